# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests whose queues the kernel serves, on one side of the way or on both.

The kernel is the machine's own where $VBLK_VHOST is set (in tests/vm), else
tests/fakehost's."""

import os
import subprocess

from qtest import Failure


def in_kernel():
    """Is there a real /dev/vhost-blk to be used?"""
    return bool(os.environ.get('VBLK_VHOST'))


def why_not(peers):
    """Why no vhost-blk can be tested, or None."""
    binary = peers.binary['ours']
    done = subprocess.run([binary, '-device', 'help'], text=True, timeout=60,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, check=False)
    if '"vhost-blk-device"' not in done.stdout:
        return 'this QEMU has no vhost-blk (--disable-vhost-blk)'
    if not in_kernel() and not os.path.exists(_fake(binary)):
        return ('fakehost.so is not built; run ninja -C build '
                'tests/qtest/virtio-blk/fakehost.so')
    return None


def _fake(binary):
    return os.path.join(os.path.dirname(binary),
                        'tests/qtest/virtio-blk/fakehost.so')


def command(binary, folder):
    """How to start QEMU there: argv's first words."""
    if in_kernel():
        return [binary]
    node = os.path.join(folder, 'vhost-blk')
    with open(node, 'ab'):
        pass
    return ['/usr/bin/env', f'LD_PRELOAD={_fake(binary)}',
            f'FAKEHOST_VHOST={node}', 'FAKEHOST_VHOST_US=300',
            'ASAN_OPTIONS=' + ':'.join((os.environ.get('ASAN_OPTIONS', ''),
                                        'verify_asan_link_order=0')), binary]


def check_engine(machine, cell, who):
    """The kernel has the queues, or will in a moment, if it should at all."""
    path = '/machine/peripheral/virtio0'
    if cell.machine != 'microvm':
        path += '/virtio-backend'

    def engine():
        return machine.qmp('qom-get', path=path, property='engine')

    if who == 'vhost':
        try:
            machine.wait_for(lambda: engine() == 'vhost', 'not in the kernel')
        except Failure as error:
            why = machine.qmp('qom-get', path=path, property='engine-reason')
            raise Failure(f'{error}: {why}') from error
    elif who == 'ours' and engine() == 'vhost':
        raise Failure('the kernel has the queues of a virtio-blk device')
