# SPDX-License-Identifier: GPL-2.0-or-later
"""A driver of virtio-blk that remembers what the disk must hold."""

import copy
import random
import struct
import time

import ring
from qtest import LIMIT, Failure
from transport import Mmio, Pci

BLOCK = 4096                    # bytes of one request
BLOCKS = 2048                   # of the disk
RINGS, BUFFERS = 0x100000, 0x200000     # in guest memory
BUFFER = 0x2000                 # of a slot: header, status, table, data
CACHE, CACHED = 0x400000, 8     # so many buffers: data, status

EVENT_IDX, VERSION_1, RING_PACKED = 1 << 29, 1 << 32, 1 << 34
INDIRECT, ANY_LAYOUT, MQ = 1 << 28, 1 << 27, 1 << 12
# Read-only, topology and so on need no driver's help.
WANTED = (EVENT_IDX | VERSION_1 | RING_PACKED | INDIRECT | MQ | ANY_LAYOUT |
          1 << 2 | 1 << 6 | 1 << 9 | 1 << 11 | 1 << 13 | 1 << 14)
READ, WRITE = 0, 1
PENDING = 0xff


def pattern(seed):
    """What a block holds that was written with this seed; 0 is never
    written.  Small seeds make what can be compressed."""
    if seed < 1000:
        return struct.pack('<I', seed) * (BLOCK // 4)
    return random.Random(seed).randbytes(BLOCK)


class Driver:
    def __init__(self, machine, *, microvm=False, packed=False, queues=1,
                 seed=1):
        if microvm:
            self.bus = Mmio(machine, legacy=not packed)
        else:
            self.bus = Pci(machine)
        kind = ring.Packed if packed else ring.Split
        self.rings = [kind(RINGS + number * ring.AREA)
                      for number in range(queues)]
        self.flying = {}                # (queue, slot) -> (kind, block, seed)
        self.blocks = {}                # block -> seed
        self.into = {}                  # (queue, slot) -> buffer of the cache
        self.cache = {}                 # buffer -> seed
        self.random = random.Random(seed)
        self.seed = seed * 100000
        self.done = 0

    @property
    def machine(self):
        return self.bus.machine

    def move(self, machine):
        """The guest goes on in another QEMU."""
        self.bus.machine = machine

    def setup(self):
        """From power-on or reset to a driver that is ready."""
        bus = self.bus
        bus.start()
        bus.set_status(0)
        if bus.status() != 0:
            raise Failure('the device does not reset')
        bus.set_status(1)
        bus.set_status(3)
        bus.set_features(bus.features() & WANTED)
        if not bus.legacy:
            bus.set_status(11)
            if not bus.status() & 8:
                raise Failure('the device refuses the features')
        self.flying.clear()
        for number, queue in enumerate(self.rings):
            queue.clear(self.machine)
            bus.set_queue(number, ring.SIZE, queue.areas())
        bus.set_status(15 if not bus.legacy else 7)

    def reset(self):
        self.bus.set_status(0)
        if self.bus.status() != 0:
            raise Failure('the device does not reset')
        self.flying.clear()

    def config(self, size=36):
        """The first bytes of the config space."""
        device = self.bus.device
        return b''.join(self.machine.get(device + at, 1).to_bytes(1, 'little')
                        for at in range(size))

    # --- requests ----------------------------------------------------------

    def _place(self, queue, slot):
        return BUFFERS + (queue * ring.SLOTS + slot) * BUFFER

    def submit(self, queue, kind, block, kick=True, into=None):
        """One read or write of a block; reads go into a buffer of the cache,
        which is left as it is, where one is given."""
        slot = next(slot for slot in range(ring.SLOTS)
                    if (queue, slot) not in self.flying)
        base = self._place(queue, slot)
        status, table, data = base + 16, base + 64, base + 4096
        self.machine.write(base, struct.pack('<IIQB', kind, 0, 8 * block,
                                             PENDING))
        if kind == WRITE:
            self.seed += 1
            seed = self.seed
            self.machine.write(data, pattern(seed))
        else:
            seed = self.blocks.get(block, 0)
            if into is None:
                self.machine.write(data, b'\xaa' * BLOCK)
            else:
                self.into[queue, slot] = into
                status, data = self._cached(into)
        chain = [(base, 16, False), (data, BLOCK, kind == READ),
                 (status, 1, True)]
        self.flying[queue, slot] = kind, block, seed
        self.rings[queue].add(self.machine, slot, chain,
                              table if slot & 1 else None)
        if kick:
            self.bus.kick(queue)
        return slot

    def _finish(self, queue, slot, length):
        if (queue, slot) not in self.flying:
            raise Failure(f'queue {queue} completes what was not asked for')
        kind, block, seed = self.flying.pop((queue, slot))
        base = self._place(queue, slot)
        place, data = base + 16, base + 4096
        into = self.into.pop((queue, slot), None)
        if into is not None:
            self.cache[into] = seed
            place, data = self._cached(into)
        status = self.machine.get(place, 1)
        what = f'{("read", "write")[kind]} of block {block}, queue {queue}'
        if status != 0:
            raise Failure(f'{what}: status {status}')
        if kind == WRITE:
            self.blocks[block] = seed
        elif self.machine.read(data, BLOCK) != pattern(seed):
            raise Failure(f'{what}: not what was written')
        if length < (BLOCK + 1 if kind == READ else 1):
            raise Failure(f'{what}: used length {length}')
        self.done += 1

    def reap(self):
        """Take what is complete; how many."""
        count = 0
        for queue, its in enumerate(self.rings):
            for slot, length in its.take(self.machine):
                self._finish(queue, slot, length)
                count += 1
        return count

    def settle(self, runs=lambda: True):
        """Wait for all, or until the guest does not run any more."""
        deadline = time.monotonic() + LIMIT
        while self.flying and runs():
            if not self.reap():
                time.sleep(0.002)
            if time.monotonic() > deadline:
                raise Failure(f'{len(self.flying)} requests never end: '
                              f'{sorted(self.flying)}')

    def _next(self, queue):
        """A block that no other request has."""
        busy = {block for _, block, _ in self.flying.values()}
        while True:
            block = self.random.randrange(BLOCKS)
            if block not in busy:
                return block

    def load(self, count, depth=4, runs=lambda: True):
        """Submit and take, until so many more have ended, or the guest does
        not run any more; leaves requests in flight, some of them on the ring
        with no doorbell rung."""
        goal = self.done + count
        deadline = time.monotonic() + LIMIT
        while self.done < goal and runs():
            for queue in range(len(self.rings)):
                mine = sum(1 for at in self.flying if at[0] == queue)
                for _ in range(depth - mine):
                    self.one(queue)
                self.bus.kick(queue)
            self.reap()
            if time.monotonic() > deadline:
                raise Failure('the load makes no progress')

        for queue in range(len(self.rings)):
            # a queue that lags behind must not run out of slots
            if sum(1 for at in self.flying if at[0] == queue) <= depth:
                self.one(queue)

    def one(self, queue):
        known = sorted(set(self.blocks) -
                       {block for _, block, _ in self.flying.values()})
        if known and self.random.random() < 0.5:
            self.submit(queue, READ, self.random.choice(known), kick=False)
        else:
            self.submit(queue, WRITE, self._next(queue), kick=False)

    def rest(self):
        """Take what is complete and have more in flight, to be told of by
        interrupts."""
        self.kick_all()
        for queue in range(len(self.rings)):
            self.bus.interrupts(queue)
        self.reap()
        for queue in range(len(self.rings)):
            for _ in range(4):
                self.one(queue)
        self.kick_all()

    def check_told(self):
        """What completed since rest() has had its interrupt."""
        for queue, its in enumerate(self.rings):
            if its.waits(self.machine) and not self.bus.interrupts(queue):
                raise Failure(f'queue {queue} completed a request without an '
                              'interrupt')

    # --- what the guest keeps in memory and does not touch ------------------

    @staticmethod
    def _cached(number):
        return CACHE + number * BUFFER + BLOCK, CACHE + number * BUFFER

    def prepare_cache(self):
        """Its buffers, before their memory is sent for the first time."""
        for number in range(CACHED):
            status, data = self._cached(number)
            self.machine.write(data, b'\xaa' * BLOCK)
            self.machine.write(status, bytes([PENDING]))

    def fill_cache(self, runs):
        """Read blocks into it: only the device writes to this memory."""
        self.settle(runs)
        if not runs():
            return
        known = sorted(set(self.blocks) -
                       {block for _, block, _ in self.flying.values()})
        for number, block in enumerate(known[:CACHED]):
            self.submit(number % len(self.rings), READ, block, into=number)
            if number % 4 == 3:
                self.reap()

    def check_cache(self):
        for number, seed in self.cache.items():
            status, data = self._cached(number)
            if (self.machine.read(data, BLOCK) != pattern(seed) or
                    self.machine.get(status, 1)):
                raise Failure('memory that the device wrote has not come')

    def kick_all(self):
        for queue in range(len(self.rings)):
            self.bus.kick(queue)

    def verify(self):
        """Read every block that was written, over all queues."""
        self.kick_all()
        self.settle()
        for number, block in enumerate(sorted(self.blocks)):
            self.submit(number % len(self.rings), READ, block)
            if number % 8 == 7:
                self.settle()
        self.settle()

    def check_interrupts(self):
        """Each queue interrupts."""
        for queue in range(len(self.rings)):
            self.bus.interrupts(queue)
            self.submit(queue, READ, self._next(queue))
            self.settle()
            deadline = time.monotonic() + LIMIT
            while not self.bus.interrupts(queue):
                if time.monotonic() > deadline:
                    raise Failure(f'no interrupt of queue {queue}')
                time.sleep(0.002)

    # --- for those who come back to it -------------------------------------

    def state(self):
        return copy.deepcopy({
            'rings': [its.state() for its in self.rings],
            'flying': [[*at, *what] for at, what in self.flying.items()],
            'blocks': sorted(self.blocks.items()), 'seed': self.seed})

    def resume(self, state):
        for its, saved in zip(self.rings, state['rings'], strict=True):
            its.resume(saved)
        self.flying = {(queue, slot): (kind, block, seed) for
                       queue, slot, kind, block, seed in state['flying']}
        self.blocks = dict(state['blocks'])
        self.seed = state['seed']


def image_errors(path, blocks):
    """Blocks of the image that do not hold what was written."""
    with open(path, 'rb') as file:
        image = file.read(BLOCKS * BLOCK)
    return [block for block, seed in blocks.items()
            if image[block * BLOCK:(block + 1) * BLOCK] != pattern(seed)]
