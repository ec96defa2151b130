# SPDX-License-Identifier: GPL-2.0-or-later
"""SeaBIOS and the boot sector of boot.S, on every kind of machine."""

import dataclasses
import os
import shutil
import subprocess
import time

import debian
import disks
import emulator
from disks import SECTOR
from machine import Failure, firmware_options

SECTORS = 16391
READS = ((100, 1), (1001, 8), (3000, 127), (SECTORS - 127, 127),
         (SECTORS - 1, 1))
WRITES = ((64, 1), (2000, 127), (9000, 3), (SECTORS - 1, 1))
CHS_READ = 5000
BOOTS = 60
PROGRAM = 16                    # sectors kept for boot.S
EXIT_DONE = 1 << 1 | 1          # isa-debug-exit's code for "done"
EXIT_FAILED = 2 << 1 | 1
BOOT_SECONDS = 20


@dataclasses.dataclass(frozen=True)
class Variant:
    name: str
    machine: str
    device: str = 'virtio-blk-pci'
    options: tuple = ()
    read_only: bool = False


IOTHREAD = ('-object', 'iothread,id=io0')
TWO_IOTHREADS = (*IOTHREAD, '-object', 'iothread,id=io1')
MODERN = 'virtio-blk-pci,disable-legacy=on,disable-modern=off'
TRANSITIONAL = 'virtio-blk-pci,disable-legacy=off,disable-modern=off'
LEGACY = 'virtio-blk-pci,disable-legacy=off,disable-modern=on'
MAPPING = ('{"driver":"virtio-blk-pci","num-queues":2,'
           '"iothread-vq-mapping":[{"iothread":"io0"},{"iothread":"io1"}]')

VARIANTS = (
    Variant('pc', 'pc', TRANSITIONAL),
    Variant('pc-modern', 'pc', MODERN),
    Variant('pc-legacy', 'pc', LEGACY),
    Variant('q35', 'q35', TRANSITIONAL),
    Variant('q35-modern', 'q35', MODERN),
    Variant('q35-legacy-iothread', 'q35', LEGACY + ',iothread=io0', IOTHREAD),
    Variant('q35-iothread', 'q35', TRANSITIONAL + ',iothread=io0', IOTHREAD),
    Variant('q35-modern-iothread', 'q35', MODERN + ',iothread=io0', IOTHREAD),
    Variant('q35-two-iothreads', 'q35', MAPPING, TWO_IOTHREADS),
    # offered, but no firmware here takes it: its split ring must still work
    Variant('q35-packed-offered', 'q35', MODERN + ',packed=on'),
    Variant('q35-plain', 'q35', MODERN + ',event_idx=off,indirect_desc=off,'
            'num-queues=1,vectors=0,queue_reset=off'),
    Variant('q35-root-port', 'q35', 'virtio-blk-pci,bus=port0',
            ('-device', 'pcie-root-port,id=port0')),
    Variant('q35-read-only', 'q35', MODERN, read_only=True),
    Variant('microvm', 'microvm', 'virtio-blk-device'),
    Variant('microvm-read-only', 'microvm', 'virtio-blk-device',
            read_only=True),
    Variant('microvm-modern', 'microvm', 'virtio-blk-device,iothread=io0',
            (*IOTHREAD, '-global', 'virtio-mmio.force-legacy=false')),
)


def inverted(data):
    return bytes(byte ^ 0xff for byte in data)


def pairs(ranges):
    return ','.join(f'{first},{count}' for first, count in ranges)


def assemble(folder):
    """boot.S as the first bytes of a disk."""
    source = os.path.join(os.path.dirname(os.path.abspath(__file__)),
                          'boot.S')
    module = os.path.join(folder, 'boot.o')
    program = os.path.join(folder, 'boot.bin')
    for argv in (['gcc', '-m32', '-c', f'-DSECTORS={SECTORS}',
                  f'-DREADS={pairs(READS)}', f'-DWRITES={pairs(WRITES)}',
                  f'-DCHS_READ={CHS_READ}', f'-DBOOTS={BOOTS}',
                  '-o', module, source],
                 ['ld', '-m', 'elf_i386', '-Ttext', '0x7c00',
                  '--oformat', 'binary', '-o', program, module]):
        try:
            done = subprocess.run(argv, stdin=subprocess.DEVNULL, text=True,
                                  stdout=subprocess.PIPE, timeout=60,
                                  stderr=subprocess.STDOUT, check=False)
        except OSError as error:
            raise Failure(f'{argv[0]} is missing ({error}); run '
                          'scripts/setup') from error
        if done.returncode != 0:
            raise Failure(f'{argv[0]} fails on boot.S: {done.stdout.strip()}')
    with open(program, 'rb') as file:
        return file.read()


def disk(program):
    """The disk before the first boot."""
    data = bytearray(disks.pattern(0, SECTORS))
    disks.put(data, 0, program.ljust(PROGRAM * SECTOR, b'\0'))
    disks.put(data, BOOTS, bytes(SECTOR))
    return data


def disk_after(before):
    """The disk after both boots."""
    data = bytearray(before)
    data[BOOTS * SECTOR] = 2
    for first, count in WRITES:
        disks.put(data, first, inverted(disks.pattern(first, count)))
    return data


def expected_text(read_only):
    size = f'size {SECTORS}'
    first = ['boot', size, 'boots reset']
    second = ['boot', size, 'boots refused' if read_only else 'boots',
              *(f'read {first} {count}' for first, count in READS), 'chs',
              *(f'write {first} {count}{" refused" if read_only else ""}'
                for first, count in WRITES), 'done']
    return second if read_only else first + second


def device_option(variant):
    """-device in either of its forms, with the disk and where it boots."""
    if variant.device.startswith('{'):
        return variant.device + ',"drive":"disk0","bootindex":0}'
    return variant.device + ',drive=disk0,bootindex=0'


def command(qemu, variant, image, folder):
    read_only = 'on' if variant.read_only else 'off'
    return [qemu, '-machine', variant.machine, '-accel', 'tcg', '-m', '64',
            '-nodefaults', '-no-user-config', *firmware_options(),
            '-display', 'none',
            '-chardev', f'file,id=console,path={folder}/console',
            '-serial', 'chardev:console',
            '-chardev', f'file,id=bios,path={folder}/bios.log',
            '-device', 'isa-debugcon,iobase=0x402,chardev=bios',
            '-device', 'isa-debug-exit,iobase=0xf4,iosize=1',
            *variant.options,
            '-blockdev', f'driver=file,node-name=file0,filename={image},'
            f'read-only={read_only}',
            '-blockdev', 'driver=raw,node-name=disk0,file=file0,'
            f'read-only={read_only}',
            '-device', device_option(variant)]


def compare_text(text, wanted):
    lines = text.split('\n')
    for number, line in enumerate(wanted):
        got = lines[number] if number < len(lines) else ''
        if got != line:
            raise Failure(f'line {number + 1} on the serial port is '
                          f'"{got}", not "{line}"')


def wait(process, folder):
    """QEMU's exit code, at the latest when SeaBIOS has given the disk up."""
    deadline = time.monotonic() + BOOT_SECONDS
    while process.running():
        log = emulator.text_of(os.path.join(folder, 'bios.log'))
        if 'ERROR: queue size' in log:
            raise debian.Missing('this SeaBIOS drives no legacy PCI disk '
                                 'with a queue as long as this base makes')
        if 'No bootable device' in log:
            raise Failure('SeaBIOS finds nothing to boot from')
        if time.monotonic() > deadline:
            raise Failure(f'no end within {BOOT_SECONDS} s')
        time.sleep(0.02)
    return process.wait(1)


def boot(qemu, variant, before, folder):
    image = os.path.join(folder, 'disk')
    with open(image, 'wb') as file:
        file.write(before)
    process = emulator.Process(command(qemu, variant, image, folder),
                               os.path.join(folder, 'qemu.log'))
    try:
        code = wait(process, folder)
    finally:
        process.end()
    if code not in (EXIT_DONE, EXIT_FAILED):
        raise Failure(f'QEMU ended with code {code}: {process.log()}')
    compare_text(emulator.text_of(os.path.join(folder, 'console')),
                 expected_text(variant.read_only))
    disks.compare(image, before if variant.read_only else disk_after(before))


def tests(qemu, folder):
    """(name, function) of each test."""
    made = []

    def run(variant):
        if not made:
            made.append(disk(assemble(folder)))
        own = os.path.join(folder, variant.name)
        os.mkdir(own)
        boot(qemu, variant, made[0], own)
        shutil.rmtree(own)

    for variant in VARIANTS:
        yield f'bios/{variant.name}', lambda variant=variant: run(variant)
