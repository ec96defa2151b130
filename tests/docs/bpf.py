# SPDX-License-Identifier: GPL-2.0-or-later
"""bpftrace scripts of the documents: compiled, and run where that works."""

import functools
import os
import shutil
import signal
import subprocess
import tempfile
import time

from place import Failure

LIMIT = 60


@functools.cache
def why_not():
    """Why bpftrace cannot run here, or None."""
    if not shutil.which('bpftrace'):
        return 'bpftrace is missing; run scripts/setup'
    done = subprocess.run(
        ['bpftrace', '-e', 'BEGIN { printf("run%s", "s"); exit(); }'],
        capture_output=True, text=True, timeout=LIMIT, check=False)
    if 'runs' not in done.stdout:
        return 'this kernel or user may not run BPF programs'
    return None


def compile_only(command):
    """Parse and compile a script, where bpftrace is there."""
    if not shutil.which('bpftrace'):
        return
    done = subprocess.run(
        ['bash', '-c', command.replace('bpftrace ', 'bpftrace -d ', 1)],
        capture_output=True, text=True, timeout=LIMIT, check=False)
    if 'syntax error' in done.stderr or 'define void' not in (
            done.stdout + done.stderr) and 'define i64' not in (
                done.stdout + done.stderr):
        raise Failure(f'it does not compile: {done.stderr.strip()[-300:]}')


class Watch:
    """A script that runs until it is interrupted."""

    def __init__(self, command):
        self.file = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            ['bash', '-c', f'exec {command}'], stdin=subprocess.DEVNULL,
            stdout=self.file, stderr=self.file,
            env={**os.environ, 'BPFTRACE_STRLEN': '64'})

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(LIMIT)
        self.file.close()

    @property
    def seen(self):
        return os.pread(self.file.fileno(), 1 << 20, 0).decode(
            'utf-8', 'replace')

    def wait_for(self, text):
        end = time.monotonic() + LIMIT
        while text not in self.seen:
            if self.process.poll() is not None or time.monotonic() > end:
                raise Failure(f'bpftrace printed: {self.seen.strip()[-300:]}')
            time.sleep(0.1)

    def interrupt(self):
        """As Ctrl-C does; returns all that it printed.

        One that comes while it still attaches is lost, hence several."""
        for _ in range(LIMIT // 5):
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(5)
                return self.seen
            except subprocess.TimeoutExpired:
                pass
        raise Failure('bpftrace does not end')


def reads(vm):
    return sum(disk['stats']['rd_operations'] + disk['stats']['rd_merged']
               for disk in vm.qmp.command('query-blockstats'))


def watch_firmware(command, vm, attach_time):
    """What a script sees of the firmware, which reads after a reset.

    It does not tell when its probes are in place, hence the time."""
    watch = Watch(command)
    with watch:
        watch.wait_for('Attaching')
        time.sleep(attach_time)
        before = reads(vm)
        vm.monitor('system_reset')
        end = time.monotonic() + LIMIT
        while reads(vm) == before:
            if time.monotonic() > end:
                raise Failure('the firmware reads nothing')
            time.sleep(0.1)
        time.sleep(0.5)
        return watch.interrupt()
