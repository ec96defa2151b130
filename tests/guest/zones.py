# SPDX-License-Identifier: GPL-2.0-or-later
"""A host-managed disk in a Linux that knows zones of virtio-blk (6.3 and
newer).  The zones are made up by tests/fakehost, which is laid under QEMU's
host_device driver: no machine of the tests has such a disk."""

import json
import os
import re

from debian import Missing
from machine import Failure, Machine
from scene import Scene
from steps import MIB, check
import variants

ZONE = 4 * MIB
ZONES = 16
CONVENTIONAL = 2
LIMITS = {'zoned': 'host-managed', 'chunk_sectors': ZONE // 512,
          'nr_zones': ZONES, 'max_open_zones': 4, 'max_active_zones': 6,
          'zone_append_max_bytes': 65536, 'physical_block_size': 4096}
# What Linux tells of the disk, below /sys/block/vdb/queue.
SEEN = ('zoned', 'chunk_sectors', 'nr_zones', 'max_open_zones',
        'max_active_zones', 'zone_append_max_bytes')
# a line of blkzone report
LINE = re.compile(r'start: 0x(\w+), len 0x(\w+), cap 0x(\w+), wptr 0x(\w+) '
                  r'.*zcond: ?(\d+)\((\w\w)\) \[type: (\d)')


class Zones(Scene):
    NAME = 'zones'
    ABOUT = 'blkzone and zone writes on a host-managed disk, Linux 6.12'
    KERNEL = '6.12'
    VARIANT = variants.for_kernel(variants.VARIANTS['q35'], KERNEL)
    PROGRAMS = {'blkzone': 'util-linux'}
    STEPS = ('boot', 'driver', 'limits', 'report', 'write', 'wrong-write',
             'open-close-finish', 'reset', 'console')

    def extra(self):
        build = os.path.dirname(self.qemu)
        self.library = os.path.join(build, 'tests/qtest/virtio-blk/'
                                    'fakehost.so')
        self.zoned = os.path.join(self.folder, 'zoned.img')
        with open(self.zoned, 'wb') as file:
            file.truncate(ZONE * ZONES)
        os.mkdir(os.path.join(self.folder, 'queue'))
        for name, value in LIMITS.items():
            self._tell(f'queue/{name}', value)
        self._tell('zones', f'0 {CONVENTIONAL - 1} conv 0')
        node = {'driver': 'host_device', 'node-name': 'zoned',
                'filename': self.zoned, 'cache': {'direct': True}}
        front = {'driver': 'virtio-blk-pci', 'id': 'zones', 'drive': 'zoned',
                 'iothread': 'iothread1'}
        return ['-blockdev', json.dumps(node), '-device', json.dumps(front)]

    def _tell(self, name, value):
        with open(os.path.join(self.folder, name), 'w',
                  encoding='ascii') as file:
            file.write(f'{value}\n')

    def _start(self, timeout):
        if not os.path.exists(self.library):
            raise Missing(f'{self.library} is missing; run scripts/build')
        self.machine = Machine(
            ['/usr/bin/env', f'LD_PRELOAD={self.library}',
             f'FAKEHOST_PATH={self.zoned}', f'FAKEHOST_SYSFS={self.folder}',
             *self.argv], self.folder, timeout)

    def limits(self):
        text = self.machine.run('wait_for 10 test -b /dev/vdb && '
                                f'cd /sys/block/vdb/queue && cat '
                                f'{" ".join(SEEN)}')
        check(dict(zip(SEEN, text.split())),
              {name: str(LIMITS[name]) for name in SEEN}, 'limits')
        return ', '.join(f'{name} {LIMITS[name]}' for name in SEEN)

    def zones(self):
        """(write pointer in sectors of the zone, condition, type)."""
        text = self.machine.run('blkzone report /dev/vdb')
        found = LINE.findall(text)
        for number, (start, length, *_) in enumerate(found):
            check((int(start, 16), int(length, 16)),
                  (number * ZONE // 512, ZONE // 512), f'zone {number}')
        check(len(found), ZONES, 'zones in the report')
        return [(int(pointer, 16), condition, int(kind))
                for _, _, _, pointer, _, condition, kind in found]

    def report(self):
        seen = self.zones()
        wanted = [(0, 'nw', 1)] * CONVENTIONAL + \
            [(0, 'em', 2)] * (ZONES - CONVENTIONAL)
        check([(0, *zone[1:]) if zone[1] == 'nw' else zone for zone in seen],
              wanted, 'zones')
        return f'{ZONES} zones, {CONVENTIONAL} of them conventional'

    def _dd(self, zone, offset, kib, skip=0):
        return (f'dd if=/payload/f7 of=/dev/vdb bs=4k count={kib // 4} '
                f'skip={skip // 4} seek={(zone * ZONE + (offset << 10)) >> 12}'
                ' oflag=direct conv=notrunc status=none')

    def write(self):
        """At the write pointer of two zones, and it moves."""
        self.machine.run(f'{self._dd(3, 0, 64)} && {self._dd(3, 64, 64, 64)} '
                         f'&& {self._dd(5, 0, 1024)} && {self._dd(0, 512, 64)}')
        seen = self.zones()
        check([seen[3][:2], seen[5][:2]], [(256, 'oi'), (2048, 'oi')],
              'zones 3 and 5')
        self.machine.run('forget; dd if=/dev/vdb bs=4k count=32 iflag=direct '
                         f'skip={3 * ZONE >> 12} status=none | '
                         'cmp -n 131072 - /payload/f7')
        return 'the write pointers of two zones moved, the data is there'

    def wrong_write(self):
        """Not at the write pointer that the report told: Linux refuses, and
        the pointer stays.  (The device's own answer is a matter of qtests.)"""
        before = self.zones()
        self.machine.send(self._dd(3, 1024, 4))
        status, text = self.machine.result()
        if status == 0:
            raise Failure('a write beyond the write pointer succeeded')
        check(self.zones(), before, 'zones')
        return text.strip()

    def open_close_finish(self):
        def at(zone):
            return f'-o {zone * ZONE // 512} -c 1 /dev/vdb'
        self.machine.run(f'blkzone open {at(7)} && blkzone close {at(3)} && '
                         f'blkzone finish {at(5)}')
        seen = self.zones()
        check([seen[7][1], seen[3][1], seen[5][1]], ['oe', 'cl', 'fu'],
              'conditions')
        return 'open, closed, full'

    def reset(self):
        """One zone, then all of them."""
        self.machine.run(f'blkzone reset -o {5 * ZONE // 512} -c 1 /dev/vdb')
        seen = self.zones()
        check([seen[5][:2], seen[3][0]], [(0, 'em'), 256], 'zones 5 and 3')
        self.machine.run('blkzone reset /dev/vdb -o '
                         f'{CONVENTIONAL * ZONE // 512}')
        check({zone[:2] for zone in self.zones()[CONVENTIONAL:]},
              {(0, 'em')}, 'zones')
        return 'one zone, then all'


SCENES = (Zones,)
