# SPDX-License-Identifier: GPL-2.0-or-later
"""A QEMU process that boots firmware, with an end to every wait."""

import select
import socket
import subprocess
import time

from machine import Failure, die_with_parent


def text_of(path):
    """A file as text, empty when there is none."""
    try:
        with open(path, encoding='latin-1', newline='') as file:
            return file.read()
    except OSError:
        return ''


class Process:
    def __init__(self, argv, log, **options):
        self.path = log
        with open(log, 'wb') as file:
            self.process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                preexec_fn=die_with_parent, **options)

    def running(self):
        return self.process.poll() is None

    def wait(self, seconds):
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Failure(f'no end within {seconds} s') from None

    def end(self):
        if self.running():
            self.process.kill()
        self.process.wait(10)

    def log(self):
        return text_of(self.path).strip() or 'it said nothing'


class Console:
    """A QEMU process whose first serial port is typed on."""

    def __init__(self, argv, log):
        self.sock, theirs = socket.socketpair()
        self.sock.settimeout(10)
        self.text = ''
        with theirs:
            self.process = Process(
                [*argv, '-chardev', f'socket,id=tty,fd={theirs.fileno()}',
                 '-serial', 'chardev:tty'], log,
                pass_fds=(theirs.fileno(),))

    def until(self, end, seconds):
        """What was printed until `end', and drop it."""
        deadline = time.monotonic() + seconds
        while end not in self.text:
            left = deadline - time.monotonic()
            ready = left > 0 and select.select([self.sock], [], [], left)[0]
            data = self._receive() if ready else b''
            if not data:
                why = 'QEMU ended' if ready else f'{seconds} s passed'
                raise Failure(f'{why} before "{end.strip()}" came; '
                              f'last: "{self.text[-200:].strip()}"; '
                              f'QEMU: {self.process.log()}')
            self.text += data.decode('latin-1').replace('\r', '')
        before, self.text = self.text.split(end, 1)
        return before

    def _receive(self):
        try:
            return self.sock.recv(65536)
        except OSError:             # reset by a QEMU that ended
            return b''

    def type(self, text):
        try:
            self.sock.sendall(text.encode())
        except OSError as error:
            raise Failure(f'the console takes no input: {error}') from error

    def close(self):
        self.process.end()
        self.sock.close()
