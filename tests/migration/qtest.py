# SPDX-License-Identifier: GPL-2.0-or-later
"""One QEMU whose guest is the test, over the qtest socket.  Debian's binaries
have no qtest accelerator: the processor is TCG's, and sleeps.

Every wait has an end: at its time limit, or as soon as QEMU dies."""

import os
import select
import socket
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(
    os.path.realpath(__file__))), 'guest'))

from machine import (Failure, Lines, Qmp, die_with_parent,  # noqa: E402
                     firmware_options)

# seconds for anything that QEMU is asked for
LIMIT = 30 * int(os.environ.get('VBLK_PATIENCE', 1))


class Machine:
    """argv runs with a monitor and a qtest socket added."""

    count = 0

    def __init__(self, argv, folder):
        Machine.count += 1
        self.base = os.path.join(folder, f'm{Machine.count}')
        self.errors = self.base + '.log'
        self.process = None
        ends = [self._listen('.qtest'), self._listen('.qmp')]
        argv = argv + ['-display', 'none', '-nodefaults', '-no-user-config',
                       '-accel', 'tcg', *firmware_options(),
                       '-qtest', f'unix:{self.base}.qtest',
                       '-qtest-log', '/dev/null',
                       '-qmp', f'unix:{self.base}.qmp']
        try:
            with open(self.errors, 'wb') as errors:
                errors.write((' '.join(argv) + '\n').encode())
                errors.flush()
                self.process = subprocess.Popen(
                    argv, stdin=subprocess.DEVNULL, stdout=errors,
                    stderr=errors, preexec_fn=die_with_parent)
            self.qtest = self._accept(ends[0], 'qtest')
            self.monitor = Qmp(self._accept(ends[1], 'QMP'))
        except BaseException:
            self.end()
            raise
        finally:
            for end in ends:
                end.close()

    def _listen(self, kind):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self.base + kind)
        listener.listen(1)
        return listener

    def _accept(self, listener, what):
        deadline = time.monotonic() + LIMIT
        while not select.select([listener], [], [], 0.2)[0]:
            if not self.alive() or time.monotonic() > deadline:
                raise Failure(f'QEMU does not start: {self.tail()}')
        sock, _ = listener.accept()
        sock.settimeout(LIMIT)
        return Lines(sock, what, self.alive)

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def end(self):
        if self.alive():
            self.process.kill()
        if self.process is not None:
            self.process.wait(LIMIT)

    def tail(self):
        with open(self.errors, encoding='utf-8', errors='replace') as file:
            return ' | '.join(file.read().splitlines()[1:][-3:])

    # --- the monitor -------------------------------------------------------

    def qmp(self, name, **arguments):
        arguments = {key.replace('_', '-'): value
                     for key, value in arguments.items()}
        return self.monitor.command(name, LIMIT, **arguments)

    def status(self):
        return self.qmp('query-status')['status']

    def wait_status(self, *wanted):
        self.wait_for(lambda: self.status() in wanted,
                      f'run state {self.status()}, not {wanted}')

    def wait_for(self, condition, what):
        deadline = time.monotonic() + LIMIT
        while not condition():
            if time.monotonic() > deadline:
                raise Failure(f'{what} after {LIMIT} s')
            time.sleep(0.005)

    def migration(self):
        """Status of the outgoing migration, which must not have failed."""
        answer = self.qmp('query-migrate')
        if answer.get('status') == 'failed':
            raise Failure('migration failed: '
                          f'{answer.get("error-desc")} {self.tail()}')
        return answer.get('status')

    # --- the guest's memory and ports --------------------------------------

    def _ask(self, line):
        self.qtest.write(line)
        while True:
            answer = self.qtest.read(time.monotonic() + LIMIT)
            if answer.startswith('OK'):
                return answer[3:]
            if not answer.startswith('IRQ'):
                raise Failure(f'qtest: {line}: {answer}')

    def put(self, address, value, size):
        """A register or word of 1, 2, 4 or 8 bytes."""
        self._ask(f'write{"_bw_l___q"[size]} {address:#x} {value:#x}')

    def get(self, address, size):
        return int(self._ask(f'read{"_bw_l___q"[size]} {address:#x}'), 16)

    def out32(self, port, value):
        self._ask(f'outl {port:#x} {value:#x}')

    def in32(self, port):
        return int(self._ask(f'inl {port:#x}'), 16)

    def write(self, address, data):
        if data:
            self._ask(f'write {address:#x} {len(data):#x} 0x{data.hex()}')

    def read(self, address, size):
        return bytes.fromhex(self._ask(f'read {address:#x} {size:#x}')[2:])
