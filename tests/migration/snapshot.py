# SPDX-License-Identifier: GPL-2.0-or-later
"""savevm in one QEMU, loadvm in another: memory and disk go back together."""

import itertools
import json
import os
import subprocess

import cells
from cells import Cell
from driver import BLOCK, BLOCKS
from qtest import Failure


def all_cells():
    for (source, target), machine, packed, iothread in itertools.product(
            cells.PAIRS, cells.MACHINES, (False, True), (False, True)):
        cell = Cell(source, target, machine, 'file', packed,
                    4 if packed != iothread else 1, iothread)
        if cells.possible(cell):
            yield cell


def name(cell):
    ring = 'packed' if cell.packed else 'split'
    thread = 'iothread' if cell.iothread else 'main-loop'
    return (f'savevm/{cell.source}-to-{cell.target}/{cell.machine}/{ring}/'
            f'{cell.queues}q/{thread}')


def nodes(path):
    return ['-blockdev', json.dumps({
        'driver': 'qcow2', 'node-name': 'disk0',
        'file': {'driver': 'file', 'filename': path}})]


def hmp(machine, line):
    """A monitor command that prints nothing when all is well."""
    text = machine.qmp('human-monitor-command', command_line=line)
    if text.strip():
        raise Failure(f'{line}: {text.strip()}')


def run(peers, qemu_img, cell, folder):
    path = os.path.join(folder, 'disk.qcow2')
    subprocess.run([qemu_img, 'create', '-q', '-f', 'qcow2', path,
                    str(BLOCK * BLOCKS)], check=True, timeout=60)
    trip = cells.Trip(peers, cell, folder)
    try:
        source = trip.start(cell.source, nodes=nodes(path))
        guest = cells.driver(source, cell)
        guest.setup()
        guest.load(60)                  # leaves requests in flight
        source.qmp('stop')
        hmp(source, 'savevm one')
        then = guest.state()
        source.qmp('cont')
        guest.load(60)                  # what the snapshot must undo
        guest.verify()
        source.qmp('quit')
        source.process.wait(20)

        to = trip.start(cell.target, nodes=nodes(path), more=['-S'])
        hmp(to, 'loadvm one')
        guest = cells.driver(to, cell)
        guest.resume(then)
        guest.bus.know()
        to.qmp('cont')
        guest.verify()
        guest.load(30)
        guest.verify()
        guest.check_interrupts()
    finally:
        trip.end()
