# SPDX-License-Identifier: GPL-2.0-or-later
"""One cell of the matrix: a guest that goes from one QEMU to another."""

import dataclasses
import itertools
import json
import os
import time

import vhost
from driver import BLOCK, BLOCKS, WRITE, Driver, image_errors
from qtest import LIMIT, Failure, Machine
from transport import SLOT

MACHINES = ('pc-q35-7.2', 'pc-i440fx-7.2', 'pc-q35-10.0', 'microvm')
WAYS = ('unix', 'file', 'multifd')
MOMENTS = ('load', 'stopped', 'reset', 'fresh')
PAIRS = (('7.2', 'ours'), ('ours', '7.2'), ('10.0', 'ours'), ('ours', '10.0'),
         ('build', 'ours'), ('ours', 'build'), ('ours', 'ours'))
PARKED = (64, 80, 96)           # blocks whose first write fails
PER_SECTOR = BLOCK // 512


@dataclasses.dataclass(frozen=True)
class Cell:
    source: str
    target: str
    machine: str
    way: str = 'unix'
    packed: bool = False
    queues: int = 1
    iothread: bool = False
    moment: str = 'load'

    def name(self):
        return '/'.join((f'{self.source}-to-{self.target}', self.machine,
                         self.way, 'packed' if self.packed else 'split',
                         f'{self.queues}q',
                         'iothread' if self.iothread else 'main-loop',
                         self.moment))


def possible(cell):
    """7.2 has no machine type of 10.0.  Its microvm has no version, so its
    stream is promised to no other QEMU."""
    return (cell.machine.endswith('-7.2') or
            '7.2' not in (cell.source, cell.target))


def matrix():
    """Every cell."""
    for (source, target), *rest in itertools.product(
            PAIRS, MACHINES, WAYS, (False, True), (1, 4), (False, True),
            MOMENTS):
        cell = Cell(source, target, *rest)
        if possible(cell):
            yield cell


def covering():
    """Every cell but for the ways, which take turns."""
    for turn, (pair, *rest) in enumerate(itertools.product(
            PAIRS, MACHINES, (False, True), (1, 4), (False, True), MOMENTS)):
        machine, *rest = rest
        cell = Cell(*pair, machine, WAYS[turn % len(WAYS)], *rest)
        if possible(cell):
            yield cell


OTHERS = ('7.2', '10.0', 'build', 'ours')
VHOST_PAIRS = (('vhost', 'vhost'),
               *((who, 'vhost') for who in OTHERS),
               *(('vhost', who) for who in OTHERS))
VHOST_FEW = (Cell('vhost', 'vhost', 'pc-q35-7.2', queues=4, iothread=True),
             Cell('vhost', '7.2', 'pc-q35-7.2', 'file'),
             Cell('7.2', 'vhost', 'pc-i440fx-7.2', queues=4),
             Cell('vhost', '10.0', 'microvm', iothread=True),
             Cell('10.0', 'vhost', 'pc-q35-10.0', queues=4),
             Cell('vhost', 'ours', 'pc-q35-7.2', 'multifd', queues=4))


def _vhost_matrix():
    for turn, (pair, machine, queues, iothread) in enumerate(
            itertools.product(VHOST_PAIRS, MACHINES, (1, 4), (False, True))):
        yield Cell(*pair, machine, WAYS[turn % len(WAYS)], queues=queues,
                   iothread=iothread)
    for turn, (pair, machine, moment) in enumerate(
            itertools.product(VHOST_PAIRS, MACHINES, ('reset', 'fresh'))):
        yield Cell(*pair, machine, WAYS[turn % len(WAYS)],
                   queues=(1, 4)[turn // 2 % 2], moment=moment)


def vhost_matrix():
    """To and from a vhost-blk device: all of it under load, the quiet moments
    with queues and ways in turns.  A few only where an emulated machine has
    the kernel module."""
    if vhost.in_kernel():
        return VHOST_FEW
    return filter(possible, _vhost_matrix())


def refused(cell):
    """Stock cannot load a stopped request of a packed ring, not even its own:
    it reads the request in another order than it writes it."""
    return cell.packed and cell.moment == 'stopped' and cell.target != 'ours'


# ---- the machines ----

def rules():
    """blkdebug's: the first write of each of these blocks fails."""
    return [{'event': 'none', 'iotype': 'write', 'errno': 5, 'once': True,
             'sector': block * PER_SECTOR} for block in PARKED]


def disk_nodes(image, fail, discard):
    host = {'driver': 'file', 'node-name': 'file0', 'filename': image,
            'discard': discard}
    if fail:
        host = {'driver': 'blkdebug', 'image': host, 'inject-error': rules(),
                'node-name': 'debug0'}
    return ['-blockdev', json.dumps({'driver': 'raw', 'node-name': 'disk0',
                                     'discard': discard, 'file': host})]


def bios(folder):
    """Firmware that sends the processor to sleep; a stream is small with
    it."""
    path = os.path.join(folder, 'bios')
    with open(path, 'wb') as file:
        file.truncate(0x10000)
        file.seek(0xfff0)
        file.write(b'\xfa\xf4\xeb\xfd')         # cli; hlt; back to hlt
    return path


def arguments(cell, folder, *, fail=False, nodes=None, small=False,
              discard='unmap', kind='virtio'):
    """small is for streams that are kept: less in them beside the disk."""
    microvm = cell.machine == 'microvm'
    # the kernel has no other policy
    policy = 'report' if kind == 'vhost' else 'stop'
    device = {'driver': f'{kind}-blk-{"device" if microvm else "pci"}',
              'id': 'virtio0', 'drive': 'disk0', 'num-queues': cell.queues,
              'werror': policy, 'rerror': policy, 'packed': cell.packed}
    machine = cell.machine + (',acpi=off,suppress-vmdesc=on' if small else '')
    args = ['-M', machine, '-m', '32', '-bios', bios(folder)]
    if small:
        # 10.0.13 makes all rings so long, 7.2 makes them as it is told
        device['queue-size'] = 1024
    if microvm:
        legacy = 'off' if cell.packed else 'on'
        args += ['-global', f'virtio-mmio.force-legacy={legacy}']
    else:
        device.update(addr=str(SLOT))
    if cell.iothread:
        args += ['-object', 'iothread,id=io0']
        device['iothread'] = 'io0'
    args += nodes or disk_nodes(os.path.join(folder, 'disk.img'), fail,
                               discard)
    return args + ['-device', json.dumps(device)]


def make_image(folder):
    path = os.path.join(folder, 'disk.img')
    with open(path, 'wb') as file:
        file.truncate(BLOCKS * BLOCK)
    return path


def driver(machine, cell, seed=1):
    return Driver(machine, microvm=cell.machine == 'microvm',
                  packed=cell.packed, queues=cell.queues, seed=seed)


# ---- the way ----

class Trip:
    """Starts both emulators; the one that a guest leaves is kept to the end,
    as a management tool does."""

    def __init__(self, peers, cell, folder):
        self.peers, self.cell, self.folder = peers, cell, folder
        self.stream = os.path.join(folder, 'stream')
        self.machines = []
        self.rested = False
        make_image(folder)

    def start(self, who, more=(), **options):
        binary = [self.peers.binary[who]]
        if who == 'vhost':
            binary = vhost.command(*binary, self.folder)
            options['kind'] = 'vhost'
        machine = Machine([*binary, *more,
                           *arguments(self.cell, self.folder, **options)],
                          self.folder)
        self.machines.append(machine)
        return machine

    def await_guest(self, who, **options):
        """The other side, ready for the guest."""
        to = self.start(who, ['-incoming', 'defer'], **options)
        if self.cell.way == 'multifd':
            multifd(to)
        if self.cell.way != 'file':
            to.qmp('migrate-incoming', uri=f'unix:{self.stream}')
        return to

    def address(self, who, reading):
        """The address of a stream in a file; 7.2 has no "file:"."""
        if who != '7.2':
            return f'file:{self.stream}'
        return (f'exec:cat {self.stream}' if reading
                else f'exec:cat > {self.stream}')

    def send(self, source, who):
        if self.cell.way == 'file':
            source.qmp('migrate', uri=self.address(who, False))
        else:
            if self.cell.way == 'multifd':
                multifd(source)
            source.qmp('migrate', uri=f'unix:{self.stream}')

    def arrive(self, source, to, who):
        """Wait until the guest is on the other side."""
        source.wait_for(lambda: source.migration() in ('pre-switchover',
                                                       'completed'),
                        'the migration does not come to its end')
        # Once: that state is still to be seen for a moment afterwards.
        if source.migration() == 'pre-switchover':
            source.qmp('migrate-continue', state='pre-switchover')
        source.wait_for(lambda: source.migration() == 'completed',
                        'the migration is not complete')
        if self.cell.way == 'file':
            to.qmp('migrate-incoming', uri=self.address(who, True))
        to.wait_for(lambda: self.came(to), 'the guest has not come')

    @staticmethod
    def came(to):
        if not to.alive():
            raise Failure(f'the target ended: {to.tail()}')
        return to.status() != 'inmigrate'

    def end(self):
        for machine in self.machines:
            machine.end()


def capability(machine, name):
    machine.qmp('migrate-set-capabilities', capabilities=[
        {'capability': name, 'state': True}])


def multifd(machine):
    capability(machine, 'multifd')


SLOW = {'max-bandwidth': 4096, 'downtime-limit': 0}
# with a limit of 0 nothing would ever be sent twice
STEADY = {'max-bandwidth': 1 << 18, 'downtime-limit': 1}
FAST = {'max-bandwidth': 1 << 40, 'downtime-limit': 2000}


def keep_up(guest, source):
    """A load until all memory was sent once: what the device writes from then
    on must be sent again."""
    deadline = time.monotonic() + LIMIT / 3

    def active():
        # the guest is stopped before the state changes; on a busy host long
        return (source.migration() == 'active' and
                source.status() == 'running')

    def sent():
        ram = source.qmp('query-migrate').get('ram', {})
        return ram.get('dirty-sync-count', 0) > 1

    while active() and not sent() and time.monotonic() < deadline:
        guest.load(10, runs=active)
    source.qmp('migrate-set-parameters', **SLOW)
    guest.load(30, runs=active)
    if active() and sent():
        guest.kick_all()
        guest.fill_cache(active)


def leave_under_load(trip, guest, source, who):
    """Memory is being copied while the device writes to it; the guest stops
    with requests in flight and on the rings."""
    # 7.2 forgets pages that change during a migration: see migration.rst
    source.qmp('migrate-set-parameters', **SLOW if who == '7.2' else STEADY)
    # On a busy host all memory may be copied early, and then the guest would
    # kick a QEMU that has given up its disk, which no vCPU can do.
    capability(source, 'pause-before-switchover')
    guest.prepare_cache()
    guest.load(40)
    trip.send(source, who)
    # It may have come as far as that between two looks.
    source.wait_for(lambda: source.migration() in ('active', 'pre-switchover'),
                    'the migration does not begin')
    if who == '7.2':
        guest.load(60, runs=lambda: source.migration() == 'active')
    else:
        keep_up(guest, source)
    if source.migration() == 'active':
        guest.rest()
        # Else the last kicks came to a guest that did not run any more.
        trip.rested = source.migration() == 'active'
    source.qmp('stop')
    source.qmp('migrate-set-parameters', **FAST)


def park(guest, source, folder):
    """Writes fail on the last queue and wait for "cont"."""
    guest.load(30)
    guest.kick_all()
    guest.settle()
    last = len(guest.rings) - 1
    for block in PARKED:
        guest.blocks.pop(block, None)
    for block in PARKED:
        guest.submit(last, WRITE, block, kick=False)
    guest.bus.kick(last)
    source.wait_status('io-error')
    if guest.reap():
        raise Failure('a failed write was completed, not stopped')
    early = {block: 0 for block in PARKED}
    if image_errors(os.path.join(folder, 'disk.img'), early):
        raise Failure('blkdebug let a write through')


def depart(trip, guest, source, who):
    moment = trip.cell.moment
    if moment == 'load':
        leave_under_load(trip, guest, source, who)
        return
    if moment == 'stopped':
        park(guest, source, trip.folder)
    elif moment == 'reset':
        guest.load(30)
        guest.kick_all()
        guest.settle()
        guest.reset()
    trip.send(source, who)


def run(peers, cell, folder):
    """Raise Failure where the guest notices that it has moved."""
    trip = Trip(peers, cell, folder)
    try:
        source = trip.start(cell.source, fail=cell.moment == 'stopped')
        guest = driver(source, cell)
        if cell.moment != 'fresh':
            guest.setup()
            config = guest.config()
            vhost.check_engine(source, cell, cell.source)
        to = trip.await_guest(cell.target)
        depart(trip, guest, source, cell.source)
        if refused(cell):
            stay(trip, guest, source, to)
            return
        trip.arrive(source, to, cell.target)
        guest.move(to)
        if cell.source in ('ours', 'vhost') and trip.rested and tells(cell):
            guest.check_told()
        guest.check_cache()
        wake(cell, guest, to)
        vhost.check_engine(to, cell, cell.target)
        if cell.moment != 'fresh' and guest.config() != config:
            raise Failure('the config space has changed: '
                          f'{config.hex()} {guest.config().hex()}')
        finish(cell, guest, to, folder)
    finally:
        trip.end()


def tells(cell):
    """Whether the guest can see which interrupts came."""
    return cell.moment == 'load' and cell.machine != 'microvm'


def stay(trip, guest, source, to):
    """The target refuses the guest, who goes on where it was."""
    if trip.cell.way == 'file':
        source.wait_for(lambda: source.migration() == 'completed',
                        'the stream is not complete')
        try:
            to.qmp('migrate-incoming',
                   uri=trip.address(trip.cell.target, True))
        except Failure:
            pass                # it may be dead before it has answered
    to.wait_for(lambda: not to.alive(), 'the target has taken the guest')
    source.wait_for(lambda: source.qmp('query-migrate')['status'] in
                    ('completed', 'failed'), 'the source does not give up')
    source.qmp('cont')
    guest.settle()
    finish(trip.cell, guest, source, trip.folder)


def wake(cell, guest, to, stopped=False):
    """The guest runs again, in the state in which it left."""
    wanted = {'load': ('paused', 'running'), 'stopped': ('io-error',)}.get(
        cell.moment, ('paused' if stopped else 'running',))
    to.wait_for(lambda: to.status() in wanted,
                f'the guest does not get to {" or ".join(wanted)}')
    if to.status() != 'running':
        to.qmp('cont')
    if cell.moment == 'stopped':
        guest.settle()
    elif cell.moment in ('reset', 'fresh'):
        guest.setup()
    elif guest.bus.status() & 0xc4 != 4:
        raise Failure(f'device status {guest.bus.status():#x}')


def finish(cell, guest, to, folder):
    """Everything that was written is there, and the disk still works."""
    guest.load(30)
    guest.verify()
    guest.check_interrupts()
    to.qmp('quit')
    if to.process.wait(20):
        raise Failure(f'the target ends badly: {to.tail()}')
    wrong = image_errors(os.path.join(folder, 'disk.img'), guest.blocks)
    if wrong:
        raise Failure(f'{len(wrong)} blocks of the image are wrong, the '
                      f'first {wrong[0]}')
