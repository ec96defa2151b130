# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest inside a domain: Debian's kernel, and the agent of tests/guest
over a channel that libvirt makes."""

import os
import socket
import time
import xml.etree.ElementTree as ET

import busy
import debian
import initramfs
from machine import Failure, Lines, Machine
from steps import digest
from variants import KERNEL_ARGS

PAYLOAD_SEED = 9
QEMU = 'http://libvirt.org/schemas/domain/qemu/1.0'


class Boot:
    def __init__(self, folder, say):
        kernel = debian.Kernel(say)
        self.payload = initramfs.payload(PAYLOAD_SEED)
        self.kernel = kernel.image()
        self.initrd = os.path.join(folder, 'initramfs.cpio')
        initramfs.build(self.initrd, kernel, debian.busybox(say),
                        self.payload)


def prepare(text, boot, agent, **environment):
    """A domain as the documentation shows it, for a run without KVM, started
    with the test's kernel and the agent's channel; environment is QEMU's."""
    domain = ET.fromstring(text)
    domain.set('type', 'qemu')
    os_ = domain.find('os')
    for tag, value in (('kernel', boot.kernel), ('initrd', boot.initrd),
                       ('cmdline', KERNEL_ARGS)):
        ET.SubElement(os_, tag).text = value
    domain.find('memory').text = '384'
    domain.find('memory').set('unit', 'MiB')
    if domain.find('cpu') is None:
        cpu = ET.SubElement(domain, 'cpu', mode='custom', match='exact')
        ET.SubElement(cpu, 'model', fallback='forbid').text = 'qemu64'
    devices = domain.find('devices')
    channel = ET.SubElement(devices, 'channel', type='unix')
    ET.SubElement(channel, 'source', mode='bind', path=agent)
    ET.SubElement(channel, 'target', type='virtio', name='agent')
    serial = ET.SubElement(devices, 'serial', type='file')
    ET.SubElement(serial, 'source', path=agent + '.console', append='on')
    for kind in ('usb', ):
        ET.SubElement(devices, 'controller', type=kind, model='none')
    ET.SubElement(devices, 'memballoon', model='none')
    if environment:
        line = ET.SubElement(domain, f'{{{QEMU}}}commandline')
        for name, value in environment.items():
            ET.SubElement(line, f'{{{QEMU}}}env', name=name, value=value)
    return ET.tostring(domain, encoding='unicode')


class Guest(Machine):
    """The agent's side only: libvirt has the process and its monitor."""

    def __init__(self, path):                       # no QEMU to start
        self.path = path
        self.number, self.greeting = 0, ''
        self.process = None
        self.agent = None

    def alive(self):
        return True                                 # time limits will tell

    def connect(self, timeout=60):
        deadline = time.monotonic() + timeout
        while True:
            sock = socket.socket(socket.AF_UNIX)
            try:
                sock.connect(self.path)
                break
            except OSError as error:
                sock.close()
                if time.monotonic() > deadline:
                    raise Failure(f'the agent: {error}') from None
                time.sleep(0.1)
        sock.settimeout(30)
        if self.agent:
            self.agent.sock.close()
        self.agent = Lines(sock, 'the agent', self.alive)

    def boot(self, timeout=150):
        self.connect()
        self.ready(timeout)
        self.number = 0

    def tail(self):
        try:
            with open(self.path + '.console', encoding='utf-8',
                      errors='replace') as file:
                return ' | '.join(file.read().splitlines()[-4:])
        except OSError:
            return ''


# Until /tmp/stop is there: write, sync, read back.
def begin_load(guest, payload):
    guest.run('load_disk && mkfs.ext4 -q -F /dev/vda && mount -t ext4 '
              '/dev/vda /mnt && mkdir /mnt/data && cp /payload/* /mnt/data '
              '&& sync', 120)
    guest.run(busy.LOAD)
    guest.payload = payload


def progress(guest, rounds=2, timeout=120):
    """The load goes on: so many rounds more, and no wrong byte."""
    text = guest.run(
        f'now=$(cat /tmp/rounds); wait_for {timeout} eval "test -s /tmp/end '
        f'|| test \\$(cat /tmp/rounds) -ge $((now + {rounds}))"; '
        'test ! -e /tmp/end && cat /tmp/rounds || cat /tmp/end /tmp/load',
        timeout + 30).strip()
    if not text.isdigit():
        raise Failure(f'the load says: {text} {guest.tail()}')


def end_load(guest):
    """Stop the load; every file is what was written."""
    end = guest.run('touch /tmp/stop; wait_for 90 test -s /tmp/end; '
                    'cat /tmp/load /tmp/end', 120)
    if end.strip() != 'right':
        raise Failure(f'the load says: {end} {guest.tail()}')
    text = guest.run('forget; cd /mnt/data && sha256sum f*', 90)
    seen = dict(line.split()[::-1] for line in text.splitlines())
    for name, data in guest.payload.items():
        if seen.get(name) != digest(data):
            raise Failure(f'{name} is not what was written')
