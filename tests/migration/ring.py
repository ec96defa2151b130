# SPDX-License-Identifier: GPL-2.0-or-later
"""The driver's side of a virtqueue, split and packed.

A ring knows addresses and positions, and takes the machine with each call: the
guest may have moved since.  A chain is a list of (address, length, writable)
and has a slot, a small number that is not in use twice at a time."""

import struct

SIZE = 64                       # entries of a ring
AREA = 0x8000                   # bytes of guest memory for a queue's ring
CHAIN = 4                       # at most so many descriptors a chain
SLOTS = SIZE // CHAIN

NEXT, WRITE, INDIRECT = 1, 2, 4
AVAIL, USED = 1 << 7, 1 << 15


class Split:
    """Addresses as a legacy driver must have them."""

    def __init__(self, base):
        self.desc = base
        self.avail = base + 16 * SIZE
        self.used = base + 4096
        self.put = self.got = 0

    def areas(self):
        return self.desc, self.avail, self.used

    def clear(self, machine):
        machine.write(self.desc, bytes(AREA))
        self.put = self.got = 0

    def _flags(self, chain, index):
        return ((WRITE if chain[index][2] else 0) |
                (NEXT if index + 1 < len(chain) else 0))

    def table(self, chain, first=0):
        return b''.join(
            struct.pack('<QIHH', address, length, self._flags(chain, index),
                        first + index + 1)
            for index, (address, length, _) in enumerate(chain))

    def add(self, machine, slot, chain, indirect=None):
        head = CHAIN * slot
        if indirect is None:
            data = self.table(chain, head)
        else:
            data = self.table(chain)
            machine.write(indirect, data)
            data = struct.pack('<QIHH', indirect, len(data), INDIRECT, 0)
        machine.write(self.desc + 16 * head, data)
        machine.put(self.avail + 4 + 2 * (self.put % SIZE), head, 2)
        self.put = self.put + 1 & 0xffff
        machine.put(self.avail + 2, self.put, 2)

    def waits(self, machine):
        """Whether there is something to take."""
        return machine.get(self.used + 2, 2) != self.got

    def take(self, machine):
        """(slot, used length) of completed chains."""
        done = []
        now = machine.get(self.used + 2, 2)
        while self.got != now:
            entry = machine.read(self.used + 4 + 8 * (self.got % SIZE), 8)
            head, length = struct.unpack('<II', entry)
            done.append((head // CHAIN, length))
            self.got = self.got + 1 & 0xffff
        # EVENT_IDX: interrupt at the next one
        machine.put(self.avail + 4 + 2 * SIZE, self.got, 2)
        return done

    def state(self):
        return [self.put, self.got]

    def resume(self, state):
        self.put, self.got = state


class Packed:
    def __init__(self, base):
        self.desc = base
        self.driver = base + 4096
        self.device = base + 8192
        self._begin()

    def _begin(self):
        self.put, self.put_wrap = 0, 1
        self.got, self.got_wrap = 0, 1
        self.length = [0] * SLOTS

    def areas(self):
        return self.desc, self.driver, self.device

    def clear(self, machine):
        machine.write(self.desc, bytes(AREA))
        self._begin()

    def _step(self, place, wrap, count):
        place += count
        return (place - SIZE, wrap ^ 1) if place >= SIZE else (place, wrap)

    def add(self, machine, slot, chain, indirect=None):
        if indirect is not None:
            table = b''.join(struct.pack('<QIHH', address, length, 0,
                                         WRITE if writable else 0)
                             for address, length, writable in chain)
            machine.write(indirect, table)
            chain = [(indirect, len(table), None)]
        first = None
        place, wrap = self.put, self.put_wrap
        for index, (address, length, writable) in enumerate(chain):
            flags = AVAIL if wrap else USED
            flags |= INDIRECT if writable is None else WRITE if writable else 0
            flags |= NEXT if index + 1 < len(chain) else 0
            entry = self.desc + 16 * place
            machine.write(entry, struct.pack('<QIH', address, length, slot))
            if first is None:
                first = entry + 14, flags       # last, when all is there
            else:
                machine.put(entry + 14, flags, 2)
            place, wrap = self._step(place, wrap, 1)
        machine.put(*first, 2)
        self.put, self.put_wrap = place, wrap
        self.length[slot] = len(chain)

    def waits(self, machine):
        flags = machine.get(self.desc + 16 * self.got + 14, 2)
        wanted = AVAIL | USED if self.got_wrap else 0
        return flags & (AVAIL | USED) == wanted and self.length[self.got_slot(
            machine)] != 0

    def got_slot(self, machine):
        return machine.get(self.desc + 16 * self.got + 12, 2)

    def take(self, machine):
        done = []
        while True:
            entry = machine.read(self.desc + 16 * self.got, 16)
            _, length, slot, flags = struct.unpack('<QIHH', entry)
            wanted = AVAIL | USED if self.got_wrap else 0
            if flags & (AVAIL | USED) != wanted or not self.length[slot]:
                return done
            done.append((slot, length))
            self.got, self.got_wrap = self._step(self.got, self.got_wrap,
                                                 self.length[slot])
            self.length[slot] = 0

    def state(self):
        return [self.put, self.put_wrap, self.got, self.got_wrap, self.length]

    def resume(self, state):
        self.put, self.put_wrap, self.got, self.got_wrap, self.length = state
