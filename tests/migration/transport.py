# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a virtio device's registers are: modern PCI, and virtio-mmio.

A transport holds addresses only.  What it does goes to `machine`, so that the
same object serves the guest after it has moved (set `machine` anew)."""

from qtest import Failure

SLOT = 5                        # PCI device number, on the command line too
MODERN_BAR = 0xe0000000
MSIX_BAR = 0xe0100000
MSIX_WORDS = 0x80000            # in guest memory: vectors' messages go here

MMIO_BASE, MMIO_STEP, MMIO_SLOTS = 0xfeb00000, 512, 24


class Pci:
    """A modern device on the root bus, with MSI-X vectors that write to the
    guest's memory."""

    legacy = False

    def __init__(self, machine):
        self.machine = machine

    def _config(self, offset):
        self.machine.out32(0xcf8, 1 << 31 | SLOT << 11 | offset & ~3)
        return 0xcfc

    def config(self, offset, size):
        value = self.machine.in32(self._config(offset))
        return value >> 8 * (offset & 3) & (1 << 8 * size) - 1

    def set_config(self, offset, value):
        self.machine.out32(self._config(offset), value)

    def start(self):
        """What firmware does: BARs and bus mastering; then look around."""
        if self.config(0, 2) != 0x1af4:
            raise Failure('no virtio device in its PCI slot')
        self.set_config(0x14, MSIX_BAR)
        self.set_config(0x20, MODERN_BAR)
        self.set_config(0x24, 0)
        self.set_config(4, 0x406)
        self.know()
        self._vectors()

    def know(self):
        """Find the registers of a device that is set up already."""
        self.places = {}
        at = self.config(0x34, 1)
        while at:
            kind, bar = self.config(at + 3, 1), self.config(at + 4, 1)
            if self.config(at, 1) == 9 and kind <= 4 and bar == 4:
                self.places[kind] = MODERN_BAR + self.config(at + 8, 4)
                if kind == 2:
                    self.multiplier = self.config(at + 16, 4)
            elif self.config(at, 1) == 0x11:
                self.msix = at
            at = self.config(at + 1, 1)
        self.common, self.device = self.places[1], self.places[4]

    def _vectors(self):
        count = self.config(self.msix + 2, 2) + 1 & 0x7ff
        for vector in range(count):
            entry = MSIX_BAR + 16 * vector
            self.machine.put(entry, MSIX_WORDS + 4 * vector, 4)
            self.machine.put(entry + 4, 0, 4)
            self.machine.put(entry + 8, 1, 4)
            self.machine.put(entry + 12, 0, 4)
        low = self.config(self.msix, 2)
        self.set_config(self.msix, low | 1 << 31)

    def interrupts(self, queue):
        """Whether there was one since the last call."""
        place = MSIX_WORDS + 4 * (queue + 1)
        seen = self.machine.get(place, 4)
        if seen:
            self.machine.put(place, 0, 4)
        return bool(seen)

    def status(self):
        return self.machine.get(self.common + 0x14, 1)

    def set_status(self, value):
        self.machine.put(self.common + 0x14, value, 1)

    def features(self):
        words = []
        for half in (0, 1):
            self.machine.put(self.common, half, 4)
            words.append(self.machine.get(self.common + 4, 4))
        return words[0] | words[1] << 32

    def set_features(self, value):
        for half in (0, 1):
            self.machine.put(self.common + 8, half, 4)
            self.machine.put(self.common + 12,
                             value >> 32 * half & 0xffffffff, 4)

    def set_queue(self, number, size, areas):
        put, common = self.machine.put, self.common
        put(common + 0x16, number, 2)
        put(common + 0x18, size, 2)
        put(common + 0x1a, number + 1, 2)
        for place, area in zip((0x20, 0x28, 0x30), areas):
            put(common + place, area & 0xffffffff, 4)
            put(common + place + 4, area >> 32, 4)
        put(common + 0x1c, 1, 2)

    def kick(self, queue):
        self.machine.put(self.places[2] + self.multiplier * queue, queue, 2)


class Mmio:
    """virtio-mmio, legacy or modern, on microvm."""

    def __init__(self, machine, legacy):
        self.machine = machine
        self.legacy = legacy

    def start(self):
        self.know()

    def know(self):
        for number in range(MMIO_SLOTS):
            base = MMIO_BASE + MMIO_STEP * number
            if self.machine.get(base + 8, 4) == 2:
                self.base, self.device = base, base + 0x100
                return
        raise Failure('no virtio-blk device in any slot of virtio-mmio')

    def _put(self, offset, value):
        self.machine.put(self.base + offset, value, 4)

    def interrupts(self, _queue):
        seen = self.machine.get(self.base + 0x60, 4)
        if seen:
            self._put(0x64, seen)
        return bool(seen & 1)

    def status(self):
        return self.machine.get(self.base + 0x70, 4)

    def set_status(self, value):
        self._put(0x70, value)

    def features(self):
        words = []
        for half in range(1 if self.legacy else 2):
            self._put(0x14, half)
            words.append(self.machine.get(self.base + 0x10, 4))
        return sum(word << 32 * half for half, word in enumerate(words))

    def set_features(self, value):
        for half in range(1 if self.legacy else 2):
            self._put(0x24, half)
            self._put(0x20, value >> 32 * half & 0xffffffff)

    def set_queue(self, number, size, areas):
        self._put(0x30, number)
        self._put(0x38, size)
        if self.legacy:
            self._put(0x28, 4096)
            self._put(0x3c, 4096)
            self._put(0x40, areas[0] >> 12)
            return
        for place, area in zip((0x80, 0x90, 0xa0), areas):
            self._put(place, area & 0xffffffff)
            self._put(place + 4, area >> 32)
        self._put(0x44, 1)

    def kick(self, queue):
        self._put(0x50, queue)
