# SPDX-License-Identifier: GPL-2.0-or-later
"""The commands of docs/migration.rst, as they stand but for paths."""

import os
import re
import select
import subprocess
import sys
import time

from peers import TOP
from qtest import LIMIT, Failure, die_with_parent, firmware_options

sys.path.insert(0, os.path.join(TOP, 'tests/libvirt'))

import rst                                              # noqa: E402


class Monitor:
    def __init__(self, line):
        self.process = subprocess.Popen(
            ['bash', '-c', f'exec {line}'], stdin=subprocess.PIPE, bufsize=0,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            preexec_fn=die_with_parent)
        self.until_prompt()

    def until_prompt(self):
        text, deadline = b'', time.monotonic() + LIMIT
        while not text.endswith(b'(qemu) '):
            if not select.select([self.process.stdout], [], [], 1)[0]:
                if time.monotonic() > deadline:
                    raise Failure(f'no prompt after {LIMIT} s: {text!r}')
                continue
            data = os.read(self.process.stdout.fileno(), 4096)
            if not data:
                raise Failure(f'QEMU ended: {text.decode()[-200:]}')
            text += data
        return text.decode('utf-8', 'replace')

    def send(self, line):
        self.process.stdin.write(line.encode() + b'\n')

    def ask(self, line):
        self.send(line)
        return self.until_prompt()

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(LIMIT)


def wait_for(path):
    deadline = time.monotonic() + LIMIT
    while not os.path.exists(path):
        if time.monotonic() > deadline:
            raise Failure(f'no {path} after {LIMIT} s')
        time.sleep(0.05)


def run(peers, folder):
    with open(os.path.join(folder, 'disk.img'), 'wb') as file:
        file.truncate(1 << 20)
    monitors, seen = [], ''
    try:
        for kind, text in rst.blocks(os.path.join(TOP, 'docs/migration.rst')):
            for line in rst.commands(text) if kind == 'console' else ():
                binary = peers.binary[
                    'ours' if line.startswith('build/') else '7.2']
                line = re.sub(r'^\S+', ' '.join((binary,
                                                 *firmware_options())), line)
                monitors.append(Monitor(line.replace('/path/to', folder)))
                if '-incoming' in line:
                    wait_for(os.path.join(folder, 'socket'))
            for line in re.findall(r'^\(qemu\) (.*)$', text, re.M):
                line = line.replace('/path/to', folder)
                if line == 'quit':
                    monitors[-1].send(line)
                    monitors[-1].process.wait(LIMIT)
                else:
                    seen += monitors[-1].ask(line)
        if 'completed' not in seen:
            raise Failure(f'"info migrate" says: {seen[-300:]}')
        deadline = time.monotonic() + LIMIT
        while 'running' not in monitors[0].ask('info status'):
            if time.monotonic() > deadline:
                raise Failure('the guest does not run on the other side')
    finally:
        for monitor in monitors:
            monitor.end()
