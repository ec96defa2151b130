# SPDX-License-Identifier: GPL-2.0-or-later
"""Streams of one guest in the same state, from several emulators: their device
sections must be the same, byte by byte; and streams recorded from stock once
must be loaded for ever."""

import base64
import dataclasses
import itertools
import json
import lzma
import os

import cells
from cells import Cell, PARKED
from driver import BLOCK, READ, WRITE, image_errors, pattern
from qtest import Failure
from stream import difference, section

HERE = os.path.dirname(os.path.realpath(__file__))
RECORDED = os.path.join(HERE, 'recorded')
STATES = ('fresh', 'idle', 'reset', 'stopped')


@dataclasses.dataclass(frozen=True)
class State:
    machine: str
    packed: bool
    queues: int
    state: str

    def name(self):
        ring = 'packed' if self.packed else 'split'
        return f'{self.machine}-{ring}-{self.queues}q-{self.state}'


def states():
    for machine, packed, queues, state in itertools.product(
            cells.MACHINES, (False, True), (1, 4), STATES):
        yield State(machine, packed, queues, state)


def steady(guest):
    """The same requests in the same order, whatever the speed."""
    for number in range(11):
        queue = number % len(guest.rings)
        guest.submit(queue, WRITE, 200 + number)
        guest.settle()
        guest.submit(queue, READ, 200 + number)
        guest.settle()


def stop_last(guest, source):
    last = len(guest.rings) - 1
    for block in PARKED:
        guest.submit(last, WRITE, block, kick=False)
    guest.bus.kick(last)
    source.wait_status('io-error')


def bring_to(trip, who, state, **options):
    """A machine whose guest is in that state, stopped; and its driver."""
    source = trip.start(who, fail=state == 'stopped', small=True, **options)
    guest = cells.driver(source, trip.cell, seed=0)
    if state != 'fresh':
        guest.setup()
        guest.config()
        steady(guest)
    if state == 'reset':
        guest.reset()
    if state == 'stopped':
        stop_last(guest, source)
    else:
        source.qmp('stop')
    return source, guest


def make(peers, who, state, folder, by=None, **options):
    """Path of the stream and the driver's own state.  by is the version of
    the emulator, where its name does not tell."""
    os.makedirs(folder, exist_ok=True)
    cell = Cell(by or who, who, state.machine, 'file', state.packed, state.queues)
    trip = cells.Trip(peers, cell, folder)
    try:
        source, guest = bring_to(trip, who, state.state, **options)
        trip.send(source, by or who)
        source.wait_for(lambda: source.migration() == 'completed',
                        'the migration is not complete')
        return trip.stream, guest.state()
    finally:
        trip.end()


def compare(peers, other, state, folder):
    """Ours against an emulator that is here."""
    mine, _ = make(peers, 'ours', state, f'{folder}/ours')
    its, _ = make(peers, other, state, f'{folder}/other')
    differs = difference(section(mine), section(its))
    if differs:
        raise Failure(f'ours and {other}: {differs}')


def no_discard(peers, wanted, folder):
    """A node that can't discard: what ours says of it is still stock's."""
    state = State('pc-q35-10.0', False, 1, 'idle')
    mine, _ = make(peers, 'ours', state, folder, discard='ignore')
    differs = difference(section(mine), tuple(wanted[state.name()]))
    if differs:
        raise Failure(f'ours and the recorded one: {differs}')


# ---- what was recorded ----

def kept(state):
    """The states whose whole stream is kept: half of them, for their size."""
    return state.state in ('idle', 'stopped') and (
        (state.packed == (state.queues == 1)) == (state.state == 'stopped'))


def packed_text(data):
    return base64.b64encode(lzma.compress(data, preset=9)).decode('ascii')


def unpacked(text):
    return lzma.decompress(base64.b64decode(text))


def save(name, content):
    os.makedirs(RECORDED, exist_ok=True)
    with open(os.path.join(RECORDED, name), 'w', encoding='ascii') as file:
        json.dump(content, file, indent=0)
        file.write('\n')


def record(peers, version, folder):
    """The sections of all states, and some of the streams."""
    seen = {}
    for state in states():
        if not cells.possible(Cell(version, 'ours', state.machine)):
            continue
        path, guest = make(peers, 'ours', state, f'{folder}/{state.name()}',
                           by=version)
        name, data = section(path)
        seen[state.name()] = [name, packed_text(data)]
        if kept(state):
            with open(path, 'rb') as file:
                stream = file.read()
            save(f'{version}-{state.name()}.json',
                 {'from': version, **dataclasses.asdict(state),
                  'guest': guest, 'stream': packed_text(stream)})
    save(f'{version}.sections', seen)


def recorded():
    """(name, path) of what is there."""
    for entry in sorted(os.listdir(RECORDED)):
        if entry.endswith('.json'):
            yield entry[:-5], os.path.join(RECORDED, entry)


def unpack(path, folder):
    """The state, the driver's memory, and the stream as a file."""
    with open(path, encoding='ascii') as file:
        saved = json.load(file)
    state = State(saved['machine'], saved['packed'], saved['queues'],
                  saved['state'])
    stream = os.path.join(folder, 'stream')
    with open(stream, 'wb') as file:
        file.write(unpacked(saved['stream']))
    return state, saved['guest'], stream


def load(peers, path, folder):
    """The guest of a recorded stream goes on in ours."""
    state, memory, _ = unpack(path, folder)
    moment = {'idle': 'load'}.get(state.state, state.state)
    cell = Cell('ours', 'ours', state.machine, 'file', state.packed,
                state.queues, moment=moment)
    trip = cells.Trip(peers, cell, folder)
    try:
        fill_image(trip, memory)
        to = trip.await_guest('ours', small=True)
        to.qmp('migrate-incoming', uri=f'file:{trip.stream}')
        to.wait_for(lambda: trip.came(to), 'the guest has not come')
        guest = cells.driver(to, cell)
        guest.resume(memory)
        guest.bus.know()
        cells.wake(cell, guest, to, stopped=True)
        cells.finish(cell, guest, to, folder)
    finally:
        trip.end()


def fill_image(trip, memory):
    """The disk as it was when the stream was recorded."""
    image = os.path.join(trip.folder, 'disk.img')
    with open(image, 'r+b') as file:
        for block, seed in memory['blocks']:
            file.seek(block * BLOCK)
            file.write(pattern(seed))
    if image_errors(image, dict(memory['blocks'])):
        raise Failure('the image cannot be filled')


def recorded_sections():
    """(version, {state's name: section})."""
    for entry in sorted(os.listdir(RECORDED)):
        if entry.endswith('.sections'):
            path = os.path.join(RECORDED, entry)
            with open(path, encoding='ascii') as file:
                yield entry[:-9], {
                    state: (name, unpacked(text))
                    for state, (name, text) in json.load(file).items()}


def same_section(peers, state, wanted, folder):
    """Ours in that state makes the section that stock made."""
    mine, _ = make(peers, 'ours', state, folder)
    differs = difference(section(mine), wanted)
    if differs:
        raise Failure(f'ours and the recorded one: {differs}')
