# SPDX-License-Identifier: GPL-2.0-or-later
"""A FAT16 disk without partitions: made from files, and read again."""

import struct

SECTOR = 512
PER_CLUSTER = 4
CLUSTERS = 8000                 # 4085 to 65524 make it FAT16
FAT_SECTORS = 2 * (CLUSTERS + 2) // SECTOR + 1
ROOT_ENTRIES = 512
RESERVED, FATS = 1, 2
ROOT = (RESERVED + FATS * FAT_SECTORS) * SECTOR
DATA = ROOT + ROOT_ENTRIES * 32
SIZE = DATA + CLUSTERS * PER_CLUSTER * SECTOR
CLUSTER = PER_CLUSTER * SECTOR
MEDIA = 0xf8
LAST = 0xffff


def _boot_sector():
    head = struct.pack('<3s8sHBHBHHBHHHIIBBBI11s8s', b'\xeb\xfe\x90',
                       b'VBLKTEST', SECTOR, PER_CLUSTER, RESERVED, FATS,
                       ROOT_ENTRIES, SIZE // SECTOR, MEDIA, FAT_SECTORS,
                       63, 255, 0, 0, 0x80, 0, 0x29, 0x20102010,
                       b'VBLK       ', b'FAT16   ')
    return head.ljust(510, b'\0') + b'\x55\xaa'


def _short(name):
    stem, _, extension = name.upper().partition('.')
    return stem.ljust(8).encode() + extension.ljust(3).encode()


def make(files):
    """The bytes of a disk with these files, a dict of names and data."""
    disk = bytearray(SIZE)
    table = [MEDIA | 0xff00, LAST]
    root = b''
    for name, data in files.items():
        first, count = len(table), -(-len(data) // CLUSTER)
        table += [*range(first + 1, first + count), LAST]
        at = DATA + (first - 2) * CLUSTER
        disk[at:at + len(data)] = data
        # no time stamps but a date, 2020-01-01: zero is no date
        root += struct.pack('<11sB10xHHHI', _short(name), 0x20, 0, 0x5021,
                            first, len(data))
    fat = struct.pack(f'<{len(table)}H', *table)
    disk[:SECTOR] = _boot_sector()
    for number in range(FATS):
        at = (RESERVED + number * FAT_SECTORS) * SECTOR
        disk[at:at + len(fat)] = fat
    disk[ROOT:ROOT + len(root)] = root
    return disk


def read(disk, name):
    """The data of a file in the root folder, None if there is none."""
    fat = struct.unpack_from(f'<{CLUSTERS + 2}H', disk, RESERVED * SECTOR)
    for entry in range(ROOT, DATA, 32):
        short, cluster, size = struct.unpack_from('<11s15xHI', disk, entry)
        if short != _short(name):
            continue
        data = b''
        while len(data) < size and 2 <= cluster < CLUSTERS + 2:
            at = DATA + (cluster - 2) * CLUSTER
            data += disk[at:at + CLUSTER]
            cluster = fat[cluster]
        return data[:size]
    return None
