# SPDX-License-Identifier: GPL-2.0-or-later
"""What all scenes share: a guest with more disks, and steps of its own."""

import json
import os

from machine import Failure
import steps
import variants


class Scene(steps.Guest):
    """A guest whose STEPS are methods of this class or of steps.Guest."""

    NAME = ABOUT = ''
    STEPS = ()
    KERNEL = '6.1'
    VARIANT = variants.VARIANTS['q35']
    PROGRAMS = {}           # program -> Debian's package
    MODULES = ()
    MEMORY = 384            # MiB
    BY_NAME = False         # not one of those that run by default
    PVH = True              # the uncompressed kernel will do

    def __init__(self, options, boot, folder, payload):
        self.options = options
        super().__init__(options.qemu, self.VARIANT, boot, folder, payload,
                         options.spoil)

    def _command(self):
        return variants.command(
            self.qemu, self.variant, self.boot_files, self.folder,
            self.image, direct=self.direct, device=self.device(),
            extra=['-m', str(self.MEMORY), *self.extra()])

    def device(self):
        """More properties of the first disk."""
        return {}

    def extra(self):
        """More options of QEMU."""
        return []

    def second_disk(self, name, mib, **device):
        """Options of one more disk, a sparse raw file."""
        path = os.path.join(self.folder, f'{name}.img')
        with open(path, 'wb') as file:
            file.truncate(mib << 20)
        node = {'driver': 'file', 'node-name': f'{name}-file',
                'filename': path, 'discard': 'unmap'}
        raw = {'driver': 'raw', 'node-name': f'{name}-raw',
               'file': f'{name}-file', 'discard': 'unmap'}
        front = {'driver': self.variant.driver, 'id': name,
                 'drive': f'{name}-raw', **device}
        return ['-blockdev', json.dumps(node), '-blockdev', json.dumps(raw),
                '-device', json.dumps(front)]

    def property(self, name, of='disk0'):
        return self.machine.qmp.command('qom-get', property=name,
                                        path=f'/machine/peripheral/{of}')

    def wait_status(self, status):
        seen = self.machine.qmp.command('query-status')['status']
        if seen != status:
            raise Failure(f'the VM is {seen}, not {status}')
