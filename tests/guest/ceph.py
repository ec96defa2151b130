# SPDX-License-Identifier: GPL-2.0-or-later
"""A disk on Ceph RBD: a cluster of one monitor and one OSD in a folder, from
Debian's packages; its data are in memory."""

import json
import os
import shutil
import signal
import socket
import subprocess
import time
import uuid

from debian import Missing
from machine import Failure, die_with_parent
from steps import check, digest
import variants
import workload

MIB = 1 << 20
SIZE = 64                       # MiB of the image
CONFIG = '''[global]
fsid = {fsid}
mon initial members = a
mon host = {address}
auth cluster required = none
auth service required = none
auth client required = none
public addr = 127.0.0.1
ms bind ipv6 = false
osd pool default size = 1
osd pool default min size = 1
osd crush chooseleaf type = 0
mon allow pool size one = true
mon data avail crit = 1
osd objectstore = memstore
memstore device bytes = 1073741824
run dir = {folder}
admin socket = {folder}/$name.sock
log file = {folder}/$name.log
keyring = {folder}/keyring
osd data = {folder}/osd
mon data = {folder}/mon
'''


def free_port():
    with socket.socket() as sock:
        sock.bind(('127.0.0.1', 0))
        return sock.getsockname()[1]


class Cluster:
    def __init__(self, folder):
        for name in ('ceph-mon', 'ceph-osd', 'ceph', 'rbd', 'monmaptool',
                     'ceph-authtool'):
            if not shutil.which(name):
                raise Missing(f'{name} is missing; apt-get install ceph-mon '
                              'ceph-osd ceph-common')
        self.folder, self.processes = folder, []
        self.config = os.path.join(folder, 'ceph.conf')
        fsid, address = str(uuid.uuid4()), f'[v2:127.0.0.1:{free_port()}]'
        for name in ('mon', 'osd'):
            os.makedirs(os.path.join(folder, name))
        with open(self.config, 'w', encoding='ascii') as file:
            file.write(CONFIG.format(fsid=fsid, address=address,
                                     folder=folder))
        self._keys()
        monmap = os.path.join(folder, 'monmap')
        self('monmaptool', '--create', '--fsid', fsid, '--addv', 'a', address,
             monmap)
        self('ceph-mon', '--mkfs', '-i', 'a', '--monmap', monmap, '--keyring',
             os.path.join(folder, 'keyring'))

    def _keys(self):
        keyring = os.path.join(self.folder, 'keyring')
        self('ceph-authtool', '--create-keyring', keyring, '--gen-key', '-n',
             'mon.', '--cap', 'mon', 'allow *')
        self('ceph-authtool', keyring, '--gen-key', '-n', 'client.admin',
             '--cap', 'mon', 'allow *', '--cap', 'osd', 'allow *')

    def __call__(self, *argv, timeout=60):
        """Output of a command of Ceph's."""
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, timeout=timeout, check=False,
            env=dict(os.environ, CEPH_CONF=self.config))
        if done.returncode != 0:
            raise Failure(f'{argv[0]}: {done.stderr.decode()[-300:]}')
        return done.stdout

    def _daemon(self, *argv):
        with open(os.path.join(self.folder, f'{argv[0]}.log'), 'wb') as log:
            self.processes.append(subprocess.Popen(
                [*argv, '-f', '-c', self.config], stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, preexec_fn=die_with_parent))

    def start(self, image):
        self._daemon('ceph-mon', '-i', 'a')
        osd = str(uuid.uuid4())
        number = self('ceph', 'osd', 'create', osd).decode().strip()
        self('ceph-osd', '-i', number, '--mkfs', '--osd-uuid', osd)
        self._daemon('ceph-osd', '-i', number)
        deadline = time.monotonic() + 60
        while b'"num_up_osds":1' not in self('ceph', 'osd', 'stat', '-f',
                                             'json'):
            if time.monotonic() > deadline:
                raise Failure('the OSD does not come up')
            time.sleep(0.5)
        self('ceph', 'osd', 'pool', 'create', 'rbd', '8')
        self('rbd', 'create', image, '--size', f'{SIZE}M')

    def end(self):
        for process in self.processes:
            process.send_signal(signal.SIGKILL)
            process.wait(30)


class Ceph(workload.Fio):
    NAME = 'ceph'
    ABOUT = 'fio --verify on an RBD image, on an iothread'
    BY_NAME = True              # its packages and its QEMU are not the default
    DISKS = {'vdb': 'block'}
    VARIANT = variants.VARIANTS['q35']
    STEPS = ('protocol', 'cluster', 'boot', 'driver', 'engines', 'write',
             'verify', 'export', 'console')

    def __init__(self, *arguments):
        self.rbd = None
        super().__init__(*arguments)

    def device(self):
        return {}

    def extra(self):
        self.config = os.path.join(self.folder, 'ceph', 'ceph.conf')
        node = {'driver': 'rbd', 'node-name': 'rbd0', 'pool': 'rbd',
                'image': 'disk', 'conf': self.config, 'user': 'admin'}
        front = {'driver': 'virtio-blk-pci', 'id': 'disk1', 'drive': 'rbd0',
                 'iothread': 'iothread1', 'werror': 'stop'}
        return ['-blockdev', json.dumps(node), '-device', json.dumps(front)]

    def close(self):
        super().close()
        if self.rbd:
            self.rbd.end()

    def protocol(self):
        """This QEMU knows rbd: it is the cluster that is missing."""
        img = os.path.join(os.path.dirname(self.qemu), 'qemu-img')
        done = subprocess.run(
            [img, 'info', 'rbd:rbd/disk:mon_host=127.0.0.1\\:1:'
             'client_mount_timeout=3'], stdin=subprocess.DEVNULL, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60,
            check=False)
        if 'Unknown protocol' in done.stdout:
            raise Missing('this QEMU is built without rbd; install '
                          'librbd-dev and configure with --enable-rbd')
        if 'error connecting' not in done.stdout or not done.returncode:
            raise Failure(done.stdout)
        return done.stdout.strip().splitlines()[-1]

    def cluster(self):
        self.rbd = Cluster(os.path.join(self.folder, 'ceph'))
        self.rbd.start('disk')
        return 'one monitor, one OSD'

    def engines(self):
        check(self.property('engine', 'disk1'), 'block', 'engine')
        return 'block'

    def export(self):
        """What Ceph's own tool finds in the image."""
        seek = 801 if self.sabotage == 'export' else 800
        self.machine.run('dd if=/payload/f7 of=/dev/vdb bs=64k '
                         f'seek={seek} oflag=direct,sync conv=notrunc '
                         'status=none')
        data = self.rbd('rbd', 'export', 'disk', '-', timeout=120)
        payload = self.payload['f7']
        check(len(data), SIZE * MIB, 'size of the image')
        at = 800 * 65536
        check(digest(data[at:at + len(payload)]), digest(payload), 'sha256')
        return f'{len(payload)} bytes'


SCENES = (Ceph,)
