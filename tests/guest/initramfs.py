# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's initramfs: busybox, a few programs of the host with their
libraries, modules, the payload files and the agent of agent.sh."""

import os
import random
import re
import shutil
import stat
import subprocess

from debian import Missing

HERE = os.path.dirname(os.path.abspath(__file__))

# Programs that busybox has not, or has without the option that is used.
PROGRAMS = {
    'mkfs.ext4': 'e2fsprogs', 'e2fsck': 'e2fsprogs', 'resize2fs': 'e2fsprogs',
    'fstrim': 'util-linux', 'blkdiscard': 'util-linux', 'dd': 'coreutils',
}
# The transports are loaded by the agent before it speaks, the disk's driver
# and the file system by the runner's own steps.
EARLY = ('virtio_pci', 'virtio_mmio', 'virtio_console')
LATE = ('virtio_blk', 'crc32c_generic', 'ext4')
# Sizes on and beside the borders of sectors, pages and large requests.
PAYLOAD_SIZES = (1, 511, 4096, 4097, 65537, 262144 + 1536, 1048576 + 3,
                 3 * 1048576 + 512)
# microvm (QEMU 10.0) puts the archive at the end of memory, where SeaBIOS then
# has its ACPI tables: what the last page holds must end before them.
PAGE, TAIL = 4096, 512


class Cpio:
    """Writes the kernel's "newc" archive, so that no cpio is needed."""

    def __init__(self, path):
        self.file = open(path, 'wb')    # closed by close()
        self.inode = 0
        self.folders = set()

    def _entry(self, name, mode, data=b'', rdev=(0, 0)):
        self.inode += 1
        encoded = name.encode() + b'\0'
        fields = (self.inode, mode, 0, 0, 1, 0, len(data), 0, 0, rdev[0],
                  rdev[1], len(encoded), 0)
        header = b'070701' + b''.join(b'%08X' % field for field in fields)
        self.file.write(header + encoded)
        self.file.write(b'\0' * (-(len(header) + len(encoded)) % 4))
        self.file.write(data + b'\0' * (-len(data) % 4))

    def folder(self, name):
        if name and name not in self.folders:
            self.folder(os.path.dirname(name))
            self.folders.add(name)
            self._entry(name, stat.S_IFDIR | 0o755)

    def add(self, name, data, mode=0o644):
        self.folder(os.path.dirname(name))
        self._entry(name, stat.S_IFREG | mode, data)

    def copy(self, name, path, mode=0o755):
        with open(path, 'rb') as file:
            self.add(name, file.read(), mode)

    def link(self, name, target):
        self.folder(os.path.dirname(name))
        self._entry(name, stat.S_IFLNK | 0o777, target.encode())

    def device(self, name, major, minor):
        self.folder(os.path.dirname(name))
        self._entry(name, stat.S_IFCHR | 0o600, rdev=(major, minor))

    def close(self):
        self._entry('TRAILER!!!', 0)
        self.file.write(b'\0' * ((TAIL - self.file.tell()) % PAGE))
        self.file.close()


def _find(program, others):
    path = shutil.which(program, path='/usr/sbin:/usr/bin:/sbin:/bin')
    if not path:
        raise Missing(f'{program} is not installed; run "apt-get install '
                      f'{PROGRAMS.get(program) or others[program]}"')
    return path


def _libraries(path):
    done = subprocess.run(['ldd', path], stdin=subprocess.DEVNULL, timeout=30,
                          stdout=subprocess.PIPE, text=True, check=True)
    return re.findall(r'(/\S+)', done.stdout.replace(path + ':', ''))


def payload(seed):
    """name -> bytes; the runner knows the sums without asking the guest."""
    source = random.Random(seed)
    return {f'f{number}': source.randbytes(size)
            for number, size in enumerate(PAYLOAD_SIZES)}


def build(path, kernel, busybox, files, programs=None, modules=()):
    """programs (name -> package) and modules (listed in modules/more) are
    those that not every guest needs."""
    archive = Cpio(path)
    for name in ('proc', 'sys', 'dev', 'mnt', 'tmp', 'modules', 'payload'):
        archive.folder(name)
    archive.device('dev/console', 5, 1)
    archive.copy('bin/busybox', busybox)
    archive.link('bin/sh', 'busybox')
    archive.copy('init', os.path.join(HERE, 'agent.sh'))
    libraries = set()
    for program in {**PROGRAMS, **(programs or {})}:
        there = _find(program, programs)
        archive.copy(f'host/{program}', there)
        libraries.update(_libraries(there))
    for library in sorted(libraries):
        archive.copy(library.lstrip('/'), library)
    early = kernel.load_order(EARLY)
    late = [item for item in kernel.load_order(LATE) if item not in early]
    more = [item for item in kernel.load_order(modules)
            if item not in early + late]
    for listing, paths in (('early', early), ('late', late), ('more', more)):
        names = [os.path.basename(item) for item in paths]
        archive.add(f'modules/{listing}', '\n'.join(names + ['']).encode())
        for item in paths:
            archive.copy(f'modules/{os.path.basename(item)}', item, 0o644)
    for name, data in files.items():
        archive.add(f'payload/{name}', data)
    archive.close()
