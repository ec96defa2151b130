# SPDX-License-Identifier: GPL-2.0-or-later
"""A public workload that checks itself: fio writes, trims, and verifies."""

import json

from machine import Failure
from scene import Scene
from steps import check
import variants

SIZE = 12 << 20                 # bytes that each job writes
JOBS = 3                        # for each disk, beside each other
# Blocks of all sizes, each with a header and a checksum.
COMMON = ('--thread --ioengine=libaio --direct=1 --iodepth=16 --bsrange=512-'
          f'72k --size={SIZE} --numjobs={JOBS} --offset_increment=16M '
          '--verify=crc32c --verify_fatal=1 --verify_state_save=0 '
          '--randrepeat=1 --output-format=json ')


class Fio(Scene):
    NAME = 'fio'
    ABOUT = 'fio --verify on both engines, queues by CPUs on two iothreads'
    # no num-queues: as many as there are CPUs
    VARIANT = variants.Variant(
        'fio', ABOUT, cpus=4, iothreads=2, queues=4, direct=True,
        device={'iothread-vq-mapping': [{'iothread': 'iothread1'},
                                        {'iothread': 'iothread2'}]})
    PROGRAMS = {'fio': 'fio'}
    MEMORY = 768
    DISKS = {'vda': 'block', 'vdb': 'io_uring'}
    STEPS = ('boot', 'driver', 'queues', 'engines', 'write', 'verify', 'trim',
             'console')

    def device(self):
        more = {'num-queues': 2} if self.sabotage == 'queues' else {}
        return {'io-engine': self.DISKS['vda'], **more}

    def extra(self):
        return self.second_disk('disk1', 192, **{
            **self.variant.device, 'io-engine': self.DISKS['vdb']})

    def engines(self):
        seen = [self.property('engine', name) for name in ('disk0', 'disk1')]
        check(seen, list(self.DISKS.values()), 'engines')
        return ' and '.join(seen)

    def fio(self, more):
        """Bytes that fio (read, wrote, trimmed) on each disk; an error that
        it finds is the guest's exit status."""
        jobs = ' '.join(f'--name={disk} --filename=/dev/{disk} {more}'
                        for disk in self.DISKS)
        text = self.machine.run(f'forget; fio {COMMON} {jobs}', timeout=240)
        report = json.loads(text[text.index('{'):])
        moved = {}
        for job in report['jobs']:
            if job['error']:
                raise Failure(f'{job["jobname"]}: error {job["error"]}')
            counts = moved.setdefault(job['jobname'], [0, 0, 0])
            for at, way in enumerate(('read', 'write', 'trim')):
                counts[at] += job[way]['io_bytes']
        check(sorted(moved), sorted(self.DISKS), 'disks in the report')
        return moved

    def enough(self, moved, which, least=JOBS * SIZE):
        """Each disk has moved all it should, in these ways."""
        for disk, counts in moved.items():
            for at in which:
                if counts[at] < least:
                    raise Failure(f'{disk}: only {counts} bytes')
        ways = ('read', 'written', 'trimmed')
        return '; '.join(disk + ''.join(
            f' {counts[at] >> 20} MiB {ways[at]}' for at in which)
            for disk, counts in moved.items())

    def write(self):
        return self.enough(self.fio('--rw=randwrite --do_verify=1'), (0, 1))

    def verify(self):
        """Once more, when nothing of it is in the guest's memory."""
        if self.sabotage == 'verify':
            self.machine.run('dd if=/payload/f7 of=/dev/vdb bs=512 count=1 '
                             'seek=99 oflag=direct conv=notrunc status=none')
        return self.enough(self.fio('--rw=randwrite --verify_only'), (0,))

    def trim(self):
        """Each block is trimmed and then written: the write is what stays."""
        moved = self.fio('--rw=randtrimwrite --do_verify=1 --bsrange=4k-64k '
                         f'--numjobs=1 --size={SIZE // 2}')
        return self.enough(moved, (0, 1, 2), SIZE // 2)


SCENES = (Fio,)
