# SPDX-License-Identifier: GPL-2.0-or-later
"""Requests that complete while the guest is being stopped have their
interrupts, on this side or on the other."""

import json
import os

import cells
from cells import Cell

# So few requests a second that some are held back when the guest stops; a
# drain lets them go.
LIMIT = 25


def nodes(folder):
    image = os.path.join(folder, 'disk.img')
    return ['-object', f'throttle-group,id=group0,x-iops-total={LIMIT}',
            '-blockdev', json.dumps({
                'driver': 'throttle', 'throttle-group': 'group0',
                'node-name': 'disk0', 'file': {
                    'driver': 'raw',
                    'file': {'driver': 'file', 'filename': image}}})]


def run(peers, packed, queues, iothread, folder):
    cell = Cell('ours', 'ours', 'pc-q35-10.0', 'unix', packed, queues,
                iothread)
    trip = cells.Trip(peers, cell, folder)
    try:
        source = trip.start('ours', nodes=nodes(folder))
        guest = cells.driver(source, cell)
        guest.setup()
        to = trip.await_guest('ours')
        for _ in range(3):
            guest.rest()
            source.qmp('stop')
            guest.check_told()
            source.qmp('cont')
            guest.settle()
        guest.rest()
        source.qmp('stop')
        trip.send(source, 'ours')
        trip.arrive(source, to, 'ours')
        guest.move(to)
        guest.check_told()
        to.qmp('cont')
        cells.finish(cell, guest, to, folder)
    finally:
        trip.end()


def tests():
    for packed in (False, True):
        for queues, iothread in ((1, True), (4, True), (1, False)):
            ring = 'packed' if packed else 'split'
            thread = 'iothread' if iothread else 'main-loop'
            yield f'told/{ring}/{queues}q/{thread}', (packed, queues, iothread)
