# SPDX-License-Identifier: GPL-2.0-or-later
"""A disk on an NBD export that is cut off under load and comes back."""

import json
import os
import shutil
import socket
import subprocess
import time

import cells
from cells import Cell
from driver import image_errors
from qtest import LIMIT, Failure, die_with_parent

CUTS = 3


class Server:
    """An NBD server of the image, by nbdkit or qemu-nbd."""

    def __init__(self, kind, folder, build):
        self.image = os.path.join(folder, 'disk.img')
        self.path = os.path.join(folder, 'nbd')
        self.argv = {
            'nbdkit': ['nbdkit', '-f', '-U', self.path, 'file', self.image],
            'qemu-nbd': [os.path.join(build, 'qemu-nbd'), '-f', 'raw', '-t',
                         '-e', '8', '-k', self.path, self.image],
        }[kind]
        self.process = None

    def start(self):
        if os.path.exists(self.path):
            os.unlink(self.path)
        self.process = subprocess.Popen(
            self.argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, preexec_fn=die_with_parent)
        deadline = time.monotonic() + LIMIT
        while True:
            with socket.socket(socket.AF_UNIX) as sock:
                try:
                    sock.connect(self.path)
                    return
                except OSError:
                    pass
            if time.monotonic() > deadline:
                raise Failure(f'{self.argv[0]} does not start')
            time.sleep(0.02)

    def cut(self):
        """As by a power failure: what was not answered may or may not be
        done."""
        self.process.kill()
        self.process.wait(LIMIT)


def nodes(path):
    return ['-blockdev', json.dumps({
        'driver': 'nbd', 'node-name': 'nbd0', 'reconnect-delay': 0,
        'server': {'type': 'unix', 'path': path}}),
        '-blockdev', json.dumps({'driver': 'raw', 'node-name': 'disk0',
                                 'file': 'nbd0'})]


def ride(guest, machine, server):
    """A cut under load: the guest stops, and goes on when the server is
    back."""
    guest.load(60)
    guest.kick_all()
    server.cut()
    for queue in range(len(guest.rings)):
        guest.one(queue)                       # meets the cut for certain
    guest.kick_all()
    machine.wait_status('io-error')
    server.start()
    deadline = time.monotonic() + LIMIT
    while guest.flying:
        # each request that finds the connection still down stops it again
        if machine.status() == 'io-error':
            machine.qmp('cont')
        guest.reap()
        if time.monotonic() > deadline:
            raise Failure(f'{len(guest.flying)} requests never end')
        time.sleep(0.01)


def run(peers, kind, queues, iothread, folder):
    cell = Cell('ours', 'ours', 'pc-q35-10.0', queues=queues,
                iothread=iothread)
    trip = cells.Trip(peers, cell, folder)
    build = os.path.dirname(peers.binary['ours'])
    server = Server(kind, folder, build)
    try:
        server.start()
        machine = trip.start('ours', nodes=nodes(server.path))
        guest = cells.driver(machine, cell)
        guest.setup()
        for _ in range(CUTS):
            ride(guest, machine, server)
        guest.verify()
        machine.qmp('quit')
        machine.process.wait(20)
        wrong = image_errors(server.image, guest.blocks)
        if wrong:
            raise Failure(f'{len(wrong)} blocks of the image are wrong')
    finally:
        trip.end()
        if server.process:
            server.cut()


def tests():
    """(name, arguments, why not)."""
    for kind in ('nbdkit', 'qemu-nbd'):
        lacks = kind == 'nbdkit' and not shutil.which('nbdkit')
        for queues, iothread in ((1, False), (4, True)):
            thread = 'iothread' if iothread else 'main-loop'
            yield (f'network/{kind}/{queues}q/{thread}',
                   (kind, queues, iothread),
                   'nbdkit is missing; run scripts/setup' if lacks else None)
