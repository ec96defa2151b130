#!/usr/bin/python3 -B
# SPDX-License-Identifier: GPL-2.0-or-later
"""libvirt.py EMULATOR: libvirt takes it for a QEMU with virtio-blk.  Exits
with 77 and the reason where no libvirtd of a test's own can run."""

import os
import shutil
import sys
import tempfile

TOP = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.realpath(__file__))))
sys.path.insert(0, os.path.join(TOP, 'tests/libvirt'))

from daemon import LIBVIRTD, Daemon, Failure, can_be_apart  # noqa: E402

# other numbers than the part libvirt has: they choose ports
NUMBER = 7


def main():
    # short: sockets have names of 107 bytes at most
    folder = tempfile.mkdtemp(prefix='vblk-install.')
    daemon = None
    try:
        if not os.path.exists(LIBVIRTD):
            print(f'{LIBVIRTD} is missing; run scripts/setup')
            return 77
        if not can_be_apart(folder):
            print('no user namespaces here')
            return 77
        os.chmod(folder, 0o755)
        daemon = Daemon(os.path.join(folder, 'd'), NUMBER)
        daemon.start()
        flags = daemon.capabilities(sys.argv[1])
        for flag in ('virtio-blk.queue-size', 'virtio-blk-pci.scsi'):
            if flag not in flags:
                raise Failure(f'libvirt finds no {flag}')
    except Failure as failure:
        print(failure)
        return 1
    finally:
        if daemon:
            daemon.end()
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == '__main__':
    sys.exit(main())
