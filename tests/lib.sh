# SPDX-License-Identifier: GPL-2.0-or-later
#
# What the parts of scripts/check share; sourced by bash.

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
: "${BUILD_DIR:=$top/build}" "${LOG_DIR:=$BUILD_DIR/check/by-hand}"
: "${QEMU:=$BUILD_DIR/qemu-system-x86_64}" "${QUICK:=}"
mkdir -p "$LOG_DIR"

# result NAME CODE [WHY]: the line of a test from an exit code, 77 a skip.
result()
{
    case $2 in
    0) echo "ok $1" ;;
    77) echo "skip $1 # ${3:-no reason given}" ;;
    124 | 137) echo "not ok $1 # timed out; ${3:-}" ;;
    *) echo "not ok $1 # ${3:-exit code $2}" ;;
    esac
}

# glib_one PREFIX SECONDS BINARY PATH: run one test of a glib test program in
# a process of its own.
glib_one()
{
    local prefix=$1 limit=$2 bin=$3 path=$4 log rc=0

    log=$LOG_DIR/$prefix${path//\//-}.log
    echo "$bin -p $path" >"$log"
    timeout -k 5 "$limit" "$bin" --tap -k -p "$path" >>"$log" 2>&1 </dev/null || rc=$?
    if [ "$rc" -ne 0 ]; then
        result "$prefix$path" "$rc" "log: $log"
    elif grep -q '^ok .*# SKIP' "$log"; then
        result "$prefix$path" 77 "$(sed -n 's/^ok .*# SKIP *//p' "$log" | head -n 1)"
    elif grep -q '^not ok' "$log" || ! grep -q '^ok' "$log"; then
        result "$prefix$path" 1 "log: $log"
    else
        result "$prefix$path" 0
    fi
}

# glib_tests PREFIX SECONDS BINARY [PATTERN [BUT]]: so run each test whose path
# matches PATTERN and not BUT, as many at a time as VBLK_JOBS says, or there are
# processors.
glib_tests()
{
    local prefix=$1 limit=$2 bin=$3 pattern=${4:-^/} but=${5:-^$} list

    list=$("$bin" -l 2>/dev/null | grep -E '^/' | grep -E "$pattern" |
           grep -vE "$but") || true
    if [ -z "$list" ]; then
        echo "not ok $prefix # $(basename "$bin") lists no test"
        return 0
    fi
    export -f result glib_one
    export LOG_DIR
    xargs -P "${VBLK_JOBS:-$(nproc)}" -I '{}' bash -c 'glib_one "$@"' - \
        "$prefix" "$limit" "$bin" '{}' <<<"$list"
}

# badfs_why_not: why the bad file system cannot be mounted here; empty if it can.
badfs_why_not()
{
    if [ ! -w /dev/fuse ]; then
        echo "no /dev/fuse that can be written"
    elif [ "$(id -u)" != 0 ]; then
        echo "mounting a file system needs root"
    elif ! pkg-config --exists fuse3; then
        echo "libfuse3-dev is missing; run scripts/setup"
    fi
}

# badfs_build: make $BUILD_DIR/badfs.
badfs_build()
{
    local bin=$BUILD_DIR/badfs

    if [ "$top/tests/badfs/badfs.c" -nt "$bin" ]; then
        # shellcheck disable=SC2046 # words are what is wanted
        gcc -O2 -Wall -o "$bin.new" "$top/tests/badfs/badfs.c" \
            $(pkg-config --cflags --libs fuse3)
        mv "$bin.new" "$bin"
    fi
}

# badfs_start DIR BYTES: mount it on DIR; it ends with badfs_stop.
badfs_start()
{
    badfs_build
    mkdir -p "$1"
    "$BUILD_DIR/badfs" "$1" "$2" >"$LOG_DIR/badfs.log" 2>&1 </dev/null &
    badfs_pid=$!
    trap badfs_stop EXIT
    for _ in $(seq 100); do
        [ ! -e "$1/ctl" ] || return 0
        sleep 0.1
    done
    echo "badfs did not come up; see $LOG_DIR/badfs.log" >&2
    return 1
}

badfs_stop()
{
    kill "$badfs_pid" 2>/dev/null || true
    wait "$badfs_pid" 2>/dev/null || true
}
