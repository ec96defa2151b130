# SPDX-License-Identifier: GPL-2.0-or-later
"""A folder in which a page's commands find what they name, and QEMU there."""

import os
import re
import socket
import subprocess
import sys
import time

from pages import TOP

sys.path.insert(0, os.path.join(TOP, 'tests/guest'))

from machine import (Failure, Lines, Qmp, die_with_parent,  # noqa: E402
                     firmware_options)

import rules                                            # noqa: E402

LIMIT = 120                 # seconds for one command
DISK = 64 << 20
TOOLS = ('qemu-img', 'qemu-io', 'qemu-nbd')
# A zoned disk for tests/fakehost, in sectors.
ZONES = {'zoned': 'host-managed', 'chunk_sectors': 2048, 'nr_zones': 32,
         'max_open_zones': 0, 'max_active_zones': 0,
         'zone_append_max_bytes': 65536, 'physical_block_size': 512}


def matches(expected, seen):
    """Are the lines there, in order?  "..." is anything; so is an address."""
    words = ' '.join(expected.split())
    pattern = re.escape(words).replace(re.escape(' ... '), ' (?:.* )?')
    pattern = pattern.replace(re.escape('...'), '.*')
    pattern = re.sub('0x[0-9a-f]{6,}', '0x[0-9a-f]+', pattern)
    return re.search(pattern, ' '.join(seen.split()), re.S) is not None


class Place:
    def __init__(self, folder, qemu, build):
        self.folder, self.qemu, self.build = folder, qemu, build
        for name in ('bin', 'build', 'run', 'fake/queue', 'fake/device'):
            os.makedirs(os.path.join(folder, name))
        for name in TOOLS:
            os.symlink(os.path.join(build, name), self.path('bin', name))
        self.write_shim()
        os.symlink('../bin/qemu-system-x86_64',
                   self.path('build/qemu-system-x86_64'))
        for name in ('disk.img', 'fake/image'):
            with open(self.path(name), 'wb') as file:
                file.truncate(DISK)
        for name, value in ZONES.items():
            with open(self.path('fake/queue', name), 'w',
                      encoding='ascii') as file:
                file.write(f'{value}\n')
        open(self.path('fake/vhost-blk'), 'wb').close()

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def write_shim(self):
        """QEMU with the monitors that the test looks through."""
        words = ' '.join(firmware_options())
        with open(self.path('bin/qemu-system-x86_64'), 'w',
                  encoding='utf-8') as file:
            file.write(f'''#!/bin/bash
case "$*" in
*,help* | *" help"* | *--version*) exec "{self.qemu}" "$@" ;;
esac
export LD_PRELOAD=$DOCS_PRELOAD
exec -a qemu-system-x86_64 "{self.qemu}" {words} -display none \\
    -qmp unix:{self.folder}/run/test.sock,server=on,wait=off \\
    -qmp unix:{self.folder}/run/qmp.sock,server=on,wait=off "$@"
''')
        os.chmod(self.path('bin/qemu-system-x86_64'), 0o755)

    def environment(self, command, expected=''):
        """Devices of the host that are not there are made up."""
        vhost = rules.fake_vhost(expected)
        env = {**os.environ, 'DOCS_PRELOAD': '',
               'PATH': f'{self.path("bin")}:{os.environ["PATH"]}'}
        if self.path('fake/image') in command:
            env['FAKEHOST_PATH'] = self.path('fake/image')
            env['FAKEHOST_SYSFS'] = self.path('fake')
        if vhost is not None and re.search(
                r'vhost-blk-(pci|device)|io-engine=vhost', command):
            env.update(vhost, FAKEHOST_VHOST=self.path('fake/vhost-blk'))
        if any(name.startswith('FAKEHOST_') for name in env):
            env['DOCS_PRELOAD'] = os.path.join(
                self.build, 'tests/qtest/virtio-blk/fakehost.so')
        return env

    def prepare(self, command):
        command = rules.placed(command, self.folder)
        return re.sub(r'(?<= )\.\.\.(?= )', rules.DOTS, command)

    def set_zoned(self, zoned):
        path = self.path('fake/queue/zoned')
        with open(path, 'w', encoding='ascii') as file:
            file.write('host-managed\n' if zoned else 'none\n')

    def shell(self, command):
        """Output of a command, which must succeed."""
        ours = re.match(r'(scripts/|\./configure|ninja )', command)
        done = subprocess.run(
            ['bash', '-c', f'set -euo pipefail; {self.prepare(command)}'],
            cwd=TOP if ours else self.folder, timeout=LIMIT, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False,
            stderr=subprocess.STDOUT, env=self.environment(command))
        if done.returncode:
            raise Failure(f'code {done.returncode}: '
                          f'{done.stdout.strip()[-300:]}')
        return done.stdout


class Vm:
    """A QEMU that a command of a page has started."""

    def __init__(self, place, command, expected=''):
        self.place = place
        place.set_zoned('/dev/sdb' in command)
        command = place.prepare(command)
        self.log = place.path('vm.log')
        for name in ('test.sock', 'qmp.sock'):
            if os.path.exists(place.path('run', name)):
                os.unlink(place.path('run', name))
        with open(self.log, 'wb') as log:
            self.process = subprocess.Popen(
                ['bash', '-c', f'exec {command}'], cwd=place.folder,
                stdin=subprocess.PIPE, stdout=log, stderr=log,
                env=place.environment(command, expected), preexec_fn=die_with_parent)
        self.qmp = None

    def seen(self):
        with open(self.log, encoding='utf-8', errors='replace') as file:
            return re.sub(r'(?m)^[0-9]+@[0-9.]+:', '', file.read())

    def alive(self):
        return self.process.poll() is None

    def connect(self):

        end = time.monotonic() + LIMIT
        while True:
            sock = socket.socket(socket.AF_UNIX)
            try:
                sock.connect(self.place.path('run/test.sock'))
                break
            except OSError:
                sock.close()
            if not self.alive():
                raise Failure(f'QEMU ended: {self.seen().strip()[-300:]}')
            if time.monotonic() > end:
                raise Failure('QEMU does not answer')
            time.sleep(0.05)
        sock.settimeout(LIMIT)
        self.qmp = Qmp(Lines(sock, 'QMP', self.alive))

    def check(self):
        """It runs, waits for a guest, or stands where a page wants it to."""
        status = self.qmp.command('query-status')['status']
        if status not in ('running', 'prelaunch', 'inmigrate', 'io-error'):
            raise Failure(f'the machine is {status}')

    def disks(self):
        """Devices with a medium."""
        return [disk for disk in self.qmp.command('query-block')
                if disk.get('qdev') and disk.get('inserted')]

    def monitor(self, line):
        return self.qmp.command('human-monitor-command',
                                **{'command-line': line})

    def wait_seen(self, expected):
        end = time.monotonic() + LIMIT
        while not matches(expected, self.seen()):
            if time.monotonic() > end or not self.alive():
                if matches(expected, self.seen()):
                    return
                raise Failure('it did not print what the page says; it '
                              f'printed: {self.seen().strip()[-400:]!r}')
            time.sleep(0.1)

    def wait_end(self):
        try:
            return self.process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            raise Failure(f'it does not end: {self.seen()[-300:]}') from None

    def quit(self):
        """End it as a user does; it must end well."""
        if self.alive() and self.qmp:
            self.qmp.lines.write('{"execute": "quit"}')
        code = self.wait_end()
        if code:
            raise Failure(f'QEMU ended with code {code}: '
                          f'{self.seen().strip()[-300:]}')

    def kill(self):
        if self.alive():
            self.process.kill()
        self.process.wait(LIMIT)
        self.process.stdin.close()
