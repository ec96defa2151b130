# SPDX-License-Identifier: GPL-2.0-or-later
"""A libvirtd of the test's own: session mode, folders of its own, nothing of
the machine's touched.

It runs in namespaces of its own.  There it is nobody, whoever runs the test:
as root it would serve the whole system.  /dev/kvm is out of reach: an emulator
without KVM on a machine with it would be asked for its abilities again at each
step.  And QEMU's folder of modules has only what Debian's own needs to run:
another version ends when it meets modules that are not its own."""

import glob
import os
import re
import shutil
import signal
import subprocess
import sys
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.realpath(__file__))))
sys.path.insert(0, os.path.join(TOP, 'tests/guest'))

from machine import Failure, die_with_parent            # noqa: E402

LIBVIRTD = '/usr/sbin/libvirtd'
NAMESPACES = r"""
[ ! -e /dev/kvm ] || mount --bind "$1/nothing" /dev/kvm || exit
[ ! -d "$2" ] || mount --bind "$1/modules" "$2" || exit
shift 2
exec unshare -U --map-user=65534 --map-group=65534 "$@"
"""
MODULES = '/usr/lib/x86_64-linux-gnu/qemu'


def apart(folder, *argv):
    """The command that runs argv there."""
    modules = os.path.join(folder, 'modules')
    os.makedirs(modules, exist_ok=True)
    for path in glob.glob(f'{MODULES}/accel-*.so'):
        shutil.copy(path, modules)
    nothing = os.path.join(folder, 'nothing')
    with open(nothing, 'w', encoding='ascii'):
        os.chmod(nothing, 0)
    return ['unshare', '-U', '-r', '-m', 'bash', '-c', NAMESPACES, '-',
            folder, MODULES, *argv]


def can_be_apart(folder):
    return subprocess.run(apart(folder, 'true'), stdin=subprocess.DEVNULL,
                          check=False, timeout=60).returncode == 0


class Daemon:
    def __init__(self, folder, number, settings=''):
        """settings are more lines of qemu.conf."""
        self.folder = folder
        self.log = os.path.join(folder, 'libvirtd.log')
        self.run_folder = os.path.join(folder, 'run')
        self.uri = ('qemu+unix:///session?socket='
                    f'{self.run_folder}/libvirt/libvirt-sock')
        self.environment = dict(
            os.environ, HOME=folder, LIBVIRT_DEFAULT_URI=self.uri,
            XDG_RUNTIME_DIR=self.run_folder, LC_ALL='C',
            XDG_CONFIG_HOME=f'{folder}/conf',
            XDG_CACHE_HOME=f'{folder}/cache', XDG_DATA_HOME=f'{folder}/data')
        for name in ('run', 'conf/libvirt', 'cache', 'data'):
            os.makedirs(os.path.join(folder, name))
        with open(f'{folder}/conf/libvirt/qemu.conf', 'w',
                  encoding='ascii') as file:
            # no virtlogd; each daemon has its own ports
            file.write('stdio_handler = "file"\n'
                       f'migration_port_min = {49300 + 100 * number}\n'
                       f'migration_port_max = {49399 + 100 * number}\n' +
                       settings)
        with open(f'{folder}/libvirtd.conf', 'w', encoding='ascii') as file:
            file.write('host_uuid = "11111111-2222-4333-8444-'
                       f'{number:012d}"\n')
        self.process = None

    def start(self):
        with open(self.log, 'ab') as log:
            self.process = subprocess.Popen(
                apart(self.folder, LIBVIRTD, '-p', f'{self.folder}/pid',
                      '-f', f'{self.folder}/libvirtd.conf'),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=self.environment, preexec_fn=die_with_parent)
        deadline = time.monotonic() + 60
        while self._virsh(['uri'], 30).returncode:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise Failure(f'libvirtd does not start; log: {self.log}')
            time.sleep(0.2)

    def _virsh(self, words, timeout):
        try:
            return subprocess.run(
                ['virsh', *words], stdin=subprocess.DEVNULL, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False,
                timeout=timeout, env=self.environment)
        except subprocess.TimeoutExpired:
            raise Failure(f'virsh {" ".join(words)}: no end within '
                          f'{timeout} s') from None

    def virsh(self, *words, timeout=120):
        """Output of a virsh command that must succeed."""
        words = [str(word) for word in words]
        done = self._virsh(words, timeout)
        if done.returncode:
            raise Failure(f'virsh {" ".join(words)}: '
                          f'{done.stderr.strip() or done.stdout.strip()}')
        return done.stdout

    def shell(self, line, timeout=180, **more):
        """A line of the documentation."""
        done = subprocess.run(
            ['bash', '-c', f'set -e -o pipefail; {line}'],
            stdin=subprocess.DEVNULL, text=True, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=timeout, env=dict(self.environment, **more))
        if done.returncode:
            raise Failure(f'"{line}" fails: {done.stdout.strip()}')
        return done.stdout

    def capabilities(self, emulator):
        """What libvirt has found out about an emulator: its flags."""
        self.virsh('domcapabilities', '--emulatorbin', emulator,
                   '--virttype', 'qemu')
        folder = f'{self.folder}/cache/libvirt/qemu/cache/capabilities'
        for name in os.listdir(folder):
            with open(os.path.join(folder, name), encoding='utf-8') as file:
                text = file.read()
            if f'<emulator>{emulator}</emulator>' in text:
                return sorted(re.findall(r"<flag name='([^']+)'", text))
        raise Failure(f'libvirt keeps nothing about {emulator}')

    def end(self):
        """The daemon and every QEMU that it started and that is left."""
        pids = []
        run = f'{self.run_folder}/libvirt/qemu/run'
        if os.path.isdir(run):
            for name in os.listdir(run):
                if name.endswith('.pid') and name != 'driver.pid':
                    with open(os.path.join(run, name),
                              encoding='ascii') as file:
                        pids.append(int(file.read() or 0))
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(20)
        for pid in pids:
            try:
                if pid:
                    os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
