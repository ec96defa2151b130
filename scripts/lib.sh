# SPDX-License-Identifier: GPL-2.0-or-later
#
# What the scripts share; sourced by bash.

# say TEXT: one line of progress.
say()
{
    printf '%s\n' "== $*"
}

# die TEXT: one line that says what is wrong and how to mend it, then exit.
die()
{
    printf '%s\n' "error: $*" >&2
    exit 1
}

# cache_dir: where fetched packages are kept between runs.
cache_dir()
{
    printf '%s\n' "${VBLK_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/qemu-virtio-blk}"
}

# need TOOL PACKAGE: fail clearly when TOOL is not there.
need()
{
    command -v "$1" >/dev/null 2>&1 ||
        die "$1 is missing; run scripts/setup, or: apt-get install $2"
}

# debian_suite: the suite of Debian that this machine's apt is set up for.
debian_suite()
{
    apt-get --print-uris update 2>/dev/null |
        sed -n "s,^'.*/dists/\(bookworm\|trixie\|forky\|stable\|oldstable\|testing\)/main/binary-.*,\1,p" |
        sort -u | tail -n 1
}

# mirror_of SUITE: the archive that this machine's apt uses for SUITE.  Asked
# of apt's configuration, so it works before any "apt-get update".
mirror_of()
{
    apt-get --print-uris update 2>/dev/null |
        sed -n "s,^'\(.*\)/dists/$1/main/binary-.*,\1,p" | sort -u | tail -n 1
}

# apt_private DIR LIST: print apt options for a source list and state of our
# own, so that the machine's apt configuration is never touched.  LIST is made
# of lines without the [signed-by] part, which is added here.
apt_private()
{
    local dir=$1 list=$2 key=/usr/share/keyrings/debian-archive-keyring.gpg

    [ -r "$key" ] || die "no $key; apt-get install debian-archive-keyring"
    mkdir -p "$dir/lists/partial" "$dir/archives/partial"
    # apt fetches as the user _apt where it can: let it in.
    printf '%s\n' "$list" |
        sed "s|^\\(deb\\(-src\\)\\?\\) |\\1 [signed-by=$key] |" >"$dir/sources.list"
    printf '%s\n' -o "Dir::Etc::sourcelist=$dir/sources.list" \
        -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$dir/lists" \
        -o "Dir::Cache=$dir" -o APT::Sandbox::User=root -o APT::Update::Error-Mode=any -qq
}
