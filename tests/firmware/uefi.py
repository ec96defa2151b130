# SPDX-License-Identifier: GPL-2.0-or-later
"""UEFI firmware (OVMF): its shell compares and copies files of a FAT disk."""

import os
import shutil
import sys

import debian
import disks
import emulator
import fat
from machine import Failure, firmware_options

SECONDS = 45                    # 4 where nothing else runs
BYTES = 700 * 512 + 77

# comp sets an error level, as cp does; only "equal" may print each line.
SCRIPT = '''@echo -off
fs0:
comp one.bin two.bin
if %lasterror% == 0 then
  echo one and two are equal
endif
comp one.bin odd.bin
if not %lasterror% == 0 then
  echo one and odd differ
endif
cp one.bin new.bin
comp one.bin new.bin
if %lasterror% == 0 then
  echo copied well
endif
reset -s
'''
WANTED = ('one and two are equal', 'one and odd differ', 'copied well')

VARIANTS = {
    'q35-modern': ('q35', 'disable-legacy=on'),
    'pc-legacy-iothread': ('pc', 'disable-legacy=off,disable-modern=on,'
                           'iothread=io0'),
}


def command(qemu, variant, firmware, image):
    machine, device = variant
    return [qemu, '-machine', machine, '-accel', 'tcg', '-m', '128',
            '-nodefaults', '-no-user-config', *firmware_options(),
            '-display', 'none', '-bios', firmware,
            '-object', 'iothread,id=io0',
            '-blockdev', f'driver=file,node-name=file0,filename={image}',
            '-blockdev', 'driver=raw,node-name=disk0,file=file0',
            '-device', f'virtio-blk-pci,drive=disk0,{device},bootindex=0']


def boot(qemu, variant, folder):
    firmware = debian.ovmf(lambda text: print(text, file=sys.stderr))
    image = os.path.join(folder, 'disk')
    one = disks.pattern(0, BYTES // 512 + 1)[:BYTES]
    odd = one[:-1] + bytes([one[-1] ^ 1])
    with open(image, 'wb') as file:
        file.write(fat.make({'startup.nsh': SCRIPT.encode('ascii'),
                             'one.bin': one, 'two.bin': one,
                             'odd.bin': odd}))
    console = emulator.Console(command(qemu, variant, firmware, image),
                               os.path.join(folder, 'qemu.log'))
    try:
        console.until('any other key', SECONDS)
        console.type('\r')      # else the shell waits for 5 seconds
        for line in WANTED:
            console.until(line, SECONDS)
        console.process.wait(SECONDS)
    finally:
        console.close()
    with open(image, 'rb') as file:
        if fat.read(file.read(), 'new.bin') != one:
            raise Failure('the copied file on the image has other data')


def tests(qemu, folder):
    """(name, function) of each test."""
    def run(name, variant):
        own = os.path.join(folder, f'uefi-{name}')
        os.mkdir(own)
        boot(qemu, variant, own)
        shutil.rmtree(own)

    for name, variant in VARIANTS.items():
        yield (f'uefi/{name}',
               lambda name=name, variant=variant: run(name, variant))
