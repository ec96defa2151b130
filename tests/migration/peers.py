# SPDX-License-Identifier: GPL-2.0-or-later
"""The emulators that a guest comes from and goes to.

ours     the one under test
7.2      Debian 12's own: the installed package
10.0     Debian's 10.0 of bookworm-backports, unpacked in the cache (it uses
         the libraries that 7.2 has brought), or $STOCK_QEMU
build    an unpatched build of the base, when scripts/bench has made one
vhost    ours with a vhost-blk device (see vhost.py)
"""

import fcntl
import glob
import os
import re
import subprocess
import sys
import tempfile

TOP = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.realpath(__file__))))
sys.path.insert(0, os.path.join(TOP, 'tests/guest'))

import debian                                           # noqa: E402

DEBIANS = '/usr/bin/qemu-system-x86_64'
FETCH = r'''
set -euo pipefail
. "$1/scripts/lib.sh"
suite=$(debian_suite)
mirror=$(mirror_of "${suite:-none}")
[ -n "$mirror" ] || die "apt knows no Debian archive"
mapfile -t opts < <(apt_private "$2/apt" "deb $mirror $suite-backports main")
apt-get "${opts[@]}" update
version=$(apt-cache "${opts[@]}" madison qemu-system-x86 |
    sed -n 's/^[^|]*| *\([^ ]*:10\.0[.+~][^ ]*\) .*/\1/p' | head -n 1)
[ -n "$version" ] || die "$suite-backports has no QEMU 10.0"
cd "$2"
apt-get "${opts[@]}" download "qemu-system-x86=$version"
dpkg -x qemu-system-x86_*.deb tree
'''


def version(binary):
    """'7.2', '10.0' ..., or None where it does not run."""
    try:
        done = subprocess.run([binary, '--version'], timeout=60, text=True,
                              stdin=subprocess.DEVNULL, check=False,
                              stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return None
    got = re.search(r'version (\d+\.\d+)', done.stdout)
    return got.group(1) if got and done.returncode == 0 else None


def _fetched(say):
    """Debian's 10.0 from the cache; fetched once."""
    root = debian.cache_root()
    os.makedirs(root, exist_ok=True)
    target = os.path.join(root, 'qemu-system-x86-backports')
    binary = os.path.join(target, 'usr/bin/qemu-system-x86_64')
    with open(os.path.join(root, '.lock'), 'w', encoding='ascii') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.path.exists(binary):
            return binary
        say("fetching Debian's QEMU 10.0 (bookworm-backports)")
        with tempfile.TemporaryDirectory(dir=root, prefix='.new-') as work:
            done = subprocess.run(
                ['bash', '-c', FETCH, '-', TOP, work], timeout=300, text=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, check=False)
            if done.returncode:
                last = done.stdout.strip().splitlines()[-1:] or ['no output']
                raise debian.Missing(last[0])
            os.rename(os.path.join(work, 'tree'), target)
    return binary


def _unpatched():
    found = glob.glob(os.path.join(os.path.dirname(debian.cache_root()),
                                   'stock-10.0*', 'qemu-system-x86_64'))
    return max(found, key=os.path.getmtime, default=None)


class Peers:
    """name -> binary; absent has the reasons for those that are not there."""

    def __init__(self, ours, say):
        self.binary = {'ours': ours, 'vhost': ours}
        self.absent = {}
        self._take('7.2', DEBIANS, '7.2', 'run scripts/setup')
        try:
            stock = os.environ.get('STOCK_QEMU') or _fetched(say)
            self._take('10.0', stock, '10.0', 'give one in $STOCK_QEMU')
        except (OSError, subprocess.SubprocessError, debian.Missing) as error:
            self.absent['10.0'] = ("Debian's QEMU 10.0 cannot be had "
                                   f'({error}); give one in $STOCK_QEMU')
        build = _unpatched()
        if build:
            self._take('build', build, '10.0', 'run scripts/bench')
        else:
            self.absent['build'] = ('no unpatched build in the cache; '
                                    'scripts/bench makes one')

    def _take(self, name, binary, wanted, mend):
        seen = version(binary)
        if seen == wanted:
            self.binary[name] = binary
        else:
            self.absent[name] = (f'{binary} is no QEMU {wanted} '
                                 f'(but {seen}); {mend}')
