# SPDX-License-Identifier: GPL-2.0-or-later
"""What libvirt asks an emulator about virtio disks before it runs anything,
and what it makes of the answers."""

import json
import os
import re
import subprocess

from machine import Failure, die_with_parent, firmware_options

STOCK = os.path.join(os.path.dirname(os.path.realpath(__file__)),
                     'stock-10.0.json')
ABOUT = re.compile(r'virtio-blk|virtio\.|iothread|blockdev')


# The property "scsi" is back (off by default), and with it what libvirt found
# in every QEMU up to 9.0.
BACK = ['virtio-blk-pci.scsi', 'virtio-blk-pci.scsi.default.disabled']


class Asked:
    """An emulator as libvirt starts it to get to know it."""

    def __init__(self, emulator):
        self.process = subprocess.Popen(
            [emulator, '-S', '-no-user-config', '-nodefaults', '-nographic',
             *firmware_options(), '-machine', 'none', '-accel', 'tcg',
             '-qmp', 'stdio'], text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, preexec_fn=die_with_parent)
        self.process.stdout.readline()
        self('qmp_capabilities')

    def __call__(self, command, **arguments):
        self.process.stdin.write(json.dumps(
            {'execute': command, 'arguments': arguments}) + '\n')
        self.process.stdin.flush()
        while True:
            line = self.process.stdout.readline()
            if not line:
                raise Failure(f'the emulator ended at {command}')
            answer = json.loads(line)
            if 'error' in answer:
                raise Failure(f'{command}: {answer["error"]["desc"]}')
            if 'return' in answer:
                return answer['return']

    def end(self):
        self.process.kill()
        self.process.wait(30)


def ask(emulator, daemon):
    asked = Asked(emulator)
    try:
        types = sorted(entry['name'] for entry in asked('qom-list-types')
                       if 'virtio-blk' in entry['name'])
        properties = {}
        for name in types:
            if name.endswith('-base') or 'abstract' in name:
                continue
            properties[name] = sorted(
                (entry['name'], entry['type'],
                 entry.get('description'), entry.get('default-value'))
                for entry in asked('device-list-properties', typename=name)
                if not entry['name'].startswith('x-'))
    finally:
        asked.end()
    flags = [flag for flag in daemon.capabilities(emulator)
             if ABOUT.search(flag)]
    return json.loads(json.dumps({'types': types, 'flags': flags,
                                  'properties': properties}))


def record(emulator, daemon):
    with open(STOCK, 'w', encoding='ascii') as file:
        json.dump(ask(emulator, daemon), file, indent=0)
        file.write('\n')


def compare(ours, stock):
    """The same types and flags; stock's properties, unchanged."""
    wanted = dict(stock, flags=sorted(stock['flags'] + BACK))
    for what in ('types', 'flags'):
        differ = set(ours[what]) ^ set(wanted[what])
        if differ:
            raise Failure(f'{what}: {sorted(differ)} differ from stock')
    for name, wanted in stock['properties'].items():
        have = {entry[0]: entry for entry in ours['properties'][name]}
        for entry in wanted:
            if have.get(entry[0]) != entry:
                raise Failure(f'{name}: stock has {entry}, ours '
                              f'{have.get(entry[0])}')
