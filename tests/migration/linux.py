# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian's Linux on a journey through several QEMUs, writing all the time."""

import os
import tempfile
import time

import busy
import debian
import initramfs
import variants
from machine import Failure, Machine
from steps import DISK, digest
from variants import Variant

BOOT_TIME, LIMIT = 120, 60

JOURNEYS = (
    (Variant('q35-7.2', 'split rings, an iothread', machine='pc-q35-7.2',
             device={'iothread': 'iothread1'}),
     ('ours', '7.2', 'ours', '10.0', 'ours')),
    (Variant('i440fx-7.2', 'packed rings, four queues', cpus=4, queues=4,
             machine='pc-i440fx-7.2', iothreads=0,
             device={'packed': True, 'num-queues': 4}),
     ('7.2', 'ours', '10.0', 'ours', '7.2')),
    (Variant('q35-10.0', 'split rings, four queues', cpus=4, queues=4,
             machine='pc-q35-10.0', device={'num-queues': 4,
                                            'iothread': 'iothread1'}),
     ('10.0', 'ours', '10.0')),
)

# Writes, fsyncs and reads back from the disk until it is told to stop.
def boot_files(payload, folder, say):
    """Kernel and initramfs."""
    kernel = debian.Kernel(say)
    initrd = os.path.join(folder, 'initramfs.cpio')
    initramfs.build(initrd, kernel, debian.busybox(say), payload)
    return kernel.image(), initrd


class Traveller:
    def __init__(self, peers, variant, folder, say):
        self.peers, self.variant, self.folder = peers, variant, folder
        self.payload = initramfs.payload(6)
        self.boot = boot_files(self.payload, folder, say)
        self.image = os.path.join(folder, 'disk.img')
        self.machines = []
        with open(self.image, 'wb') as file:
            file.truncate(DISK)

    def start(self, who, *extra):
        folder = tempfile.mkdtemp(dir=self.folder)
        argv = variants.command(
            self.peers.binary[who], self.variant, self.boot, folder,
            self.image, direct=False, extra=('-cpu', 'qemu64', *extra))
        machine = Machine(argv, folder, BOOT_TIME)
        self.machines.append(machine)
        return machine

    @property
    def machine(self):
        return self.machines[-1]

    def begin(self, who):
        self.start(who).ready(BOOT_TIME)
        self.machine.run('load_disk && mkfs.ext4 -q -F /dev/vda && mount '
                         '-t ext4 /dev/vda /mnt && mkdir /mnt/data && '
                         'cp /payload/* /mnt/data && sync', 120)
        self.machine.run(busy.LOAD)

    def hop(self, before, who):
        source = self.machine
        rounds = self._rounds(0)
        if before == '7.2':
            # under TCG with several processors 7.2 forgets to send pages that
            # change during the migration, whatever the disk (mended in 9.0)
            source.qmp.command('stop')
        to = self.start(who, '-incoming', 'defer')
        uri = f'unix:{self.folder}/hop{len(self.machines)}'
        to.qmp.command('migrate-incoming', uri=uri)
        source.qmp.command('migrate', uri=uri)
        if before == '7.2':
            self._arrived(to)
            to.qmp.command('cont')
        to.qmp.event('RESUME', LIMIT)
        to.number = source.number
        source.end()
        self._rounds(rounds)

    @staticmethod
    def _arrived(to):
        deadline = time.monotonic() + LIMIT
        while to.qmp.command('query-status')['status'] == 'inmigrate':
            if time.monotonic() > deadline:
                raise Failure(f'the guest has not come within {LIMIT} s')
            time.sleep(0.05)

    def _rounds(self, seen):
        """Wait until the load has done two more rounds; its count."""
        return int(self.machine.run(
            f'wait_for 60 eval "test -e /tmp/end || test \\$(cat '
            f'/tmp/rounds) -ge {seen + 2}"; test ! -e /tmp/end || '
            'cat /tmp/end /tmp/load; cat /tmp/rounds', 90))

    def finish(self):
        end = self.machine.run('touch /tmp/stop; wait_for 60 test -s /tmp/end;'
                               ' cat /tmp/load /tmp/end', 90)
        if end.strip() != 'right':
            raise Failure(f'the load says: {end}')
        text = self.machine.run('forget; cd /mnt/data && sha256sum f*', 60)
        seen = dict(line.split()[::-1] for line in text.splitlines())
        for name, data in self.payload.items():
            if seen.get(name) != digest(data):
                raise Failure(f'{name} is not what was written')
        self.machine.run('umount /mnt && e2fsck -fn /dev/vda', 60)

    def end(self):
        for machine in self.machines:
            machine.end()


def name(variant, way):
    return f'linux/{variant.name}/{"-".join(way)}'


def run(peers, variant, way, folder, say):
    traveller = Traveller(peers, variant, folder, say)
    try:
        traveller.begin(way[0])
        for before, who in zip(way, way[1:]):
            traveller.hop(before, who)
        traveller.finish()
    except Failure as error:
        tails = traveller.machine.tails() if traveller.machines else ()
        raise Failure(f'{error} {" | ".join(tails[-4:])}') from error
    finally:
        traveller.end()
