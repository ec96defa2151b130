# SPDX-License-Identifier: GPL-2.0-or-later
"""The machines and disks that the guest is run on, as QEMU options."""

import dataclasses
import json

from machine import firmware_options

SERIAL = 'VBLK-0123456789'
KERNEL_ARGS = ('console=ttyS0 quiet loglevel=5 oops=panic mitigations=off '
               'nokaslr tsc=reliable no_timer_check random.trust_cpu=on '
               'nowatchdog audit=0 apparmor=0')


@dataclasses.dataclass(frozen=True)
class Variant:
    name: str
    about: str
    machine: str = 'q35'
    accel: str = 'tcg,thread=multi'
    cpus: int = 2
    driver: str = 'virtio-blk-pci'
    serial_driver: str = 'virtio-serial-pci'
    device: dict = dataclasses.field(default_factory=dict)
    iothreads: int = 1
    direct: bool = False        # cache=none, io=native; else io=threads
    kernel_args: str = ''
    options: tuple = ()
    # what the guest must find
    queues: int = 2
    modern: bool = True
    packed: bool = False


MICROVM = {
    # a tick of the PIT that comes while Linux sets the PIC up is taken for a
    # divide error there, on any QEMU: TCG and no BIOS that had them set up
    'machine': 'microvm,rtc=on,pit=off,pic=off', 'cpus': 1, 'queues': 1,
    'driver': 'virtio-blk-device', 'serial_driver': 'virtio-serial-device',
    'device': {'iothread': 'iothread1'},
    # its TSC calibration can hang on a busy host
    'kernel_args': 'tsc_early_khz=2300000',
}

VARIANTS = {variant.name: variant for variant in (
    Variant('q35', 'q35, modern PCI, split ring, one iothread',
            direct=True, device={'iothread': 'iothread1'}),
    Variant('legacy', 'pc, legacy PCI (disable-modern=on), no iothread',
            machine='pc', iothreads=0, modern=False,
            device={'disable-modern': True, 'disable-legacy': 'off'}),
    Variant('packed', 'q35, packed ring, one iothread', packed=True,
            device={'packed': True, 'iothread': 'iothread1'}),
    Variant('mapping', 'q35, four queues spread over two iothreads', cpus=4,
            iothreads=2, direct=True, queues=4,
            device={'num-queues': 4, 'iothread-vq-mapping': [
                {'iothread': 'iothread1', 'vqs': [0, 2]},
                {'iothread': 'iothread2', 'vqs': [1, 3]}]}),
    Variant('microvm', 'microvm, legacy virtio-mmio, one iothread',
            modern=False, **MICROVM),
    Variant('microvm-modern', 'microvm, modern virtio-mmio, one iothread',
            options=('-global', 'virtio-mmio.force-legacy=false'), **MICROVM),
)}


def for_kernel(variant, series):
    """Newer ones patch code that other CPUs run, now and then in a way that TCG
    with a thread for each CPU takes for a fault."""
    if series == '6.1':
        return variant
    return dataclasses.replace(variant, accel='tcg,thread=single')


def blockdevs(image, direct, discard):
    """The two nodes that libvirt makes of a raw file."""
    host = {'driver': 'file', 'node-name': 'disk0-file', 'filename': image,
            'discard': discard, 'aio': 'native' if direct else 'threads',
            'cache': {'direct': direct, 'no-flush': False}}
    disk = {'driver': 'raw', 'node-name': 'disk0-raw', 'discard': discard,
            'file': 'disk0-file', 'cache': host['cache']}
    return host, disk


def command(qemu, variant, boot, folder, image, *, direct, discard='unmap',
            device=None, extra=()):
    """argv of the run.  boot is (kernel, initrd)."""
    argv = [qemu, '-name', f'guest-{variant.name}', '-no-user-config',
            '-nodefaults', *firmware_options(), '-display', 'none',
            '-machine', variant.machine, '-accel', variant.accel,
            '-cpu', 'max', '-smp', str(variant.cpus), '-m', '384',
            *variant.options,
            '-kernel', boot[0], '-initrd', boot[1],
            '-append', f'{KERNEL_ARGS} {variant.kernel_args}'.strip(),
            '-chardev', f'file,id=console,path={folder}/console.log',
            '-serial', 'chardev:console',
            '-qmp', f'unix:{folder}/qmp',
            '-device', variant.serial_driver,
            '-chardev', f'socket,id=agent,path={folder}/agent',
            '-device', 'virtserialport,chardev=agent,name=agent']
    for number in range(variant.iothreads):
        argv += ['-object', f'iothread,id=iothread{number + 1}']
    for node in blockdevs(image, direct, discard):
        argv += ['-blockdev', json.dumps(node)]
    argv += ['-device', json.dumps({
        'driver': variant.driver, 'id': 'disk0', 'drive': 'disk0-raw',
        'serial': SERIAL, **variant.device, **(device or {})})]
    return argv + list(extra)
