# SPDX-License-Identifier: GPL-2.0-or-later
"""U-Boot's own virtio-blk driver, told what to do on its serial console."""

import dataclasses
import os
import re
import shutil
import sys
import zlib

import debian
import disks
import emulator
from disks import SECTOR
from machine import Failure, firmware_options

SECTORS = 16391
READS = ((0, 1), (1000, 8), (3000, 2048), (SECTORS - 100, 100))
COPY_FROM, COPY_TO, COPY_COUNT = 500, 12000, 1000
MEMORY = 0x2000000
PROMPT = '\n=> '
SECONDS = 20


@dataclasses.dataclass(frozen=True)
class Variant:
    name: str
    machine: str
    device: str
    iothread: bool = False


VARIANTS = (
    Variant('pc-legacy', 'pc', 'disable-legacy=off,disable-modern=on'),
    Variant('pc-legacy-iothread', 'pc',
            'disable-legacy=off,disable-modern=on', True),
    Variant('pc-transitional', 'pc', 'disable-legacy=off'),
    # U-Boot does not look at slot 1 of q35
    Variant('q35-modern', 'q35', 'disable-legacy=on,addr=5'),
    Variant('q35-modern-iothread', 'q35', 'disable-legacy=on,addr=5', True),
    # offered, but U-Boot does not take it: its split ring must still work
    Variant('q35-packed-offered', 'q35', 'disable-legacy=on,addr=5,packed=on'),
)


def command(qemu, variant, firmware, image):
    argv = [qemu, '-machine', variant.machine, '-accel', 'tcg', '-m', '128',
            '-nodefaults', '-no-user-config', *firmware_options(),
            '-display', 'none', '-bios', firmware,
            '-blockdev', f'driver=file,node-name=file0,filename={image}',
            '-blockdev', 'driver=raw,node-name=disk0,file=file0']
    device = f'virtio-blk-pci,drive=disk0,{variant.device}'
    if variant.iothread:
        argv += ['-object', 'iothread,id=io0']
        device += ',iothread=io0'
    return argv + ['-device', device]


class Uboot:
    def __init__(self, argv, log):
        self.console = emulator.Console(argv, log)
        self.started()

    def started(self):
        self.console.until('Hit any key', SECONDS)
        self.console.type(' ')
        self.console.until(PROMPT, SECONDS)
        self.run('virtio scan')

    def run(self, line, pattern=''):
        """A command and what its output must match."""
        self.console.type(line + '\r')
        text = self.console.until(PROMPT, SECONDS)
        found = re.search(pattern, text, re.S)
        if not found:
            raise Failure(f'"{line}" printed: {text.strip()}')
        return found

    def read(self, first, data):
        """The sectors from first on must hold data."""
        count = len(data) // SECTOR
        self.run(f'mw.b {MEMORY:#x} 5a {len(data):#x}')
        self.run(f'virtio read {MEMORY:#x} {first:#x} {count:#x}',
                 f'{count} blocks read: OK')
        got = self.run(f'crc32 {MEMORY:#x} {len(data):#x}',
                       r'==> ([0-9a-f]{8})').group(1)
        if int(got, 16) != zlib.crc32(data):
            raise Failure(f'{count} sectors from {first} have CRC {got}, not '
                          f'{zlib.crc32(data):08x}')

    def write(self, first, count):
        """What was read last becomes the data of other sectors."""
        self.run(f'virtio write {MEMORY:#x} {first:#x} {count:#x}',
                 f'{count} blocks written: OK')


def session(uboot):
    uboot.run('virtio info', rf'\({SECTORS} x {SECTOR}\)')
    for first, count in READS:
        uboot.read(first, disks.pattern(first, count))
    copied = disks.pattern(COPY_FROM, COPY_COUNT)
    uboot.read(COPY_FROM, copied)
    uboot.write(COPY_TO, COPY_COUNT)
    uboot.read(COPY_TO, copied)
    # the same by a firmware that starts anew on the same device
    uboot.console.type('reset\r')
    uboot.started()
    uboot.read(COPY_TO, copied)
    uboot.write(SECTORS - 1, 1)


def boot(qemu, variant, folder):
    firmware = debian.uboot(lambda text: print(text, file=sys.stderr))
    image = os.path.join(folder, 'disk')
    data = bytearray(disks.pattern(0, SECTORS))
    with open(image, 'wb') as file:
        file.write(data)
    uboot = Uboot(command(qemu, variant, firmware, image),
                  os.path.join(folder, 'qemu.log'))
    try:
        session(uboot)
    finally:
        uboot.console.close()
    copied = disks.pattern(COPY_FROM, COPY_COUNT)
    disks.put(data, COPY_TO, copied)
    disks.put(data, SECTORS - 1, copied[:SECTOR])
    disks.compare(image, data)


def tests(qemu, folder):
    """(name, function) of each test."""
    def run(variant):
        own = os.path.join(folder, f'uboot-{variant.name}')
        os.mkdir(own)
        boot(qemu, variant, own)
        shutil.rmtree(own)

    for variant in VARIANTS:
        yield f'uboot/{variant.name}', lambda variant=variant: run(variant)
