# SPDX-License-Identifier: GPL-2.0-or-later
"""One QEMU process with its QMP monitor and the guest's agent.

Every wait has an end: it stops at its time limit, or as soon as QEMU dies."""

import ctypes
import json
import os
import select
import signal
import socket
import subprocess
import time

# Debian's firmware for a build that is not installed.
FIRMWARE = ('/usr/share/seabios', '/usr/share/qemu', '/usr/lib/ipxe/qemu')


class Failure(Exception):
    """A step did not do what it must; the text says what was seen."""


def firmware_options():
    return [word for folder in FIRMWARE for word in ('-L', folder)]


def die_with_parent():
    """In the child: the runner's end, however it comes, ends QEMU too."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)      # PR_SET_PDEATHSIG


class Lines:
    """A stream socket read line by line against a deadline."""

    def __init__(self, sock, what, alive):
        self.sock = sock
        self.what = what
        self.alive = alive
        self.rest = b''

    def read(self, deadline):
        while b'\n' not in self.rest:
            left = deadline - time.monotonic()
            if left <= 0:
                raise Failure(f'{self.what} is silent')
            # wake now and then to see a QEMU that died
            ready, _, _ = select.select([self.sock], [], [], min(left, 1))
            if ready:
                try:
                    data = self.sock.recv(65536)
                except OSError:         # reset by a QEMU that ended
                    data = b''
                if not data:
                    raise Failure(f'{self.what} closed its connection')
                self.rest += data
            elif not self.alive():
                raise Failure(f'QEMU ended while {self.what} was awaited')
        line, self.rest = self.rest.split(b'\n', 1)
        return line.decode('utf-8', 'replace').rstrip('\r')

    def write(self, text):
        try:
            self.sock.sendall(text.encode() + b'\n')
        except OSError as error:
            raise Failure(f'{self.what} takes no input: {error}') from error


class Qmp:
    def __init__(self, lines):
        self.lines = lines
        self.events = []
        self._next(time.monotonic() + 30)           # the greeting
        self.command('qmp_capabilities')

    def _next(self, deadline):
        return json.loads(self.lines.read(deadline))

    def command(self, name, timeout=30, **arguments):
        self.lines.write(json.dumps({'execute': name,
                                     'arguments': arguments}))
        deadline = time.monotonic() + timeout
        while True:
            message = self._next(deadline)
            if 'event' in message:
                self.events.append(message)
            elif 'error' in message:
                raise Failure(f'{name}: {message["error"]["desc"]}')
            else:
                return message['return']

    def event(self, name, timeout=30):
        """The first event of this name since the last call for it."""
        deadline = time.monotonic() + timeout
        while True:
            for message in self.events:
                if message['event'] == name:
                    self.events.remove(message)
                    return message.get('data', {})
            message = self._next(deadline)
            if 'event' in message:
                self.events.append(message)


class Machine:
    """Starts argv with a monitor, an agent and a console file added."""

    greeting = ''           # the agent's last; it has the boot's ID

    def __init__(self, argv, folder, timeout):
        self.folder = folder
        self.console = os.path.join(folder, 'console.log')
        self.errors = os.path.join(folder, 'qemu.log')
        self.number = 0
        self.process = None
        listeners = [self._listen('qmp'), self._listen('agent')]
        try:
            with open(self.errors, 'wb') as errors:
                self.process = subprocess.Popen(
                    argv, stdin=subprocess.DEVNULL, stdout=errors,
                    stderr=errors, preexec_fn=die_with_parent)
            deadline = time.monotonic() + timeout
            # QEMU opens its monitors last: the agent's connection is first
            agent = self._accept(listeners[1], 'the agent port', deadline)
            self.qmp = Qmp(self._accept(listeners[0], 'QMP', deadline))
            self.agent = agent
        except BaseException:
            self.end()
            raise
        finally:
            for listener in listeners:
                listener.close()

    def _listen(self, name):
        path = os.path.join(self.folder, name)
        if os.path.exists(path):
            os.unlink(path)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen(1)
        return listener

    def _accept(self, listener, what, deadline):
        while True:
            ready, _, _ = select.select([listener], [], [], 0.2)
            if ready:
                sock, _ = listener.accept()
                sock.settimeout(30)
                return Lines(sock, what, self.alive)
            if not self.alive():
                raise Failure('QEMU does not start')
            if time.monotonic() > deadline:
                raise Failure(f'QEMU does not connect to {what}')

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def ready(self, timeout):
        """Wait for the agent of a guest that (re)boots; its kernel name."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                line = self.agent.read(deadline)
            except Failure as error:
                raise Failure('the guest did not boot within '
                              f'{timeout} s: {error}') from error
            if line.startswith('@ready ') and line != self.greeting:
                self.number = 0
                self.greeting = line
                return line.split()[1]

    def send(self, line):
        """Start a shell line in the guest."""
        self.number += 1
        self.agent.write(f'{self.number} {" ".join(line.split())}')

    def result(self, timeout=60):
        """Exit status and output of the line sent last."""
        deadline = time.monotonic() + timeout
        end = f'@end {self.number} '
        seen = []
        while True:
            try:
                line = self.agent.read(deadline)
            except Failure as error:
                tail = ' | '.join(seen[-3:]) or 'nothing'
                raise Failure(f'no end of the step within {timeout} s '
                              f'({error}); it printed: {tail}') from error
            if line.startswith(end):
                return int(line[len(end):]), '\n'.join(seen)
            if line == self.greeting:
                continue
            if line.startswith('@ready '):
                raise Failure('the guest started anew by itself')
            seen.append(line)

    def run(self, line, timeout=60):
        """Output of a shell line that must succeed in the guest."""
        self.send(line)
        status, text = self.result(timeout)
        if status != 0:
            raise Failure(f'in the guest: exit status {status}, it printed: '
                          f'{text.strip() or "nothing"}')
        return text

    def wait(self, timeout):
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise Failure(f'QEMU did not end within {timeout} s') from None

    def end(self):
        if self.alive():
            self.process.kill()
        if self.process is not None:
            self.process.wait(30)

    def tails(self):
        """The last lines of the guest's console and of QEMU's own output."""
        text = []
        for title, path, count in (('console', self.console, 25),
                                   ('QEMU', self.errors, 10)):
            try:
                with open(path, encoding='utf-8', errors='replace') as file:
                    lines = file.read().splitlines()
            except OSError:
                continue
            text += [f'{title}: {line}' for line in lines[-count:]]
        return text
