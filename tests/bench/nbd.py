# SPDX-License-Identifier: GPL-2.0-or-later
"""An NBD server beside the emulators: storage behind a network, without one."""

import os
import signal
import subprocess
import time

START_LIMIT = 10            # seconds until the server must listen
TICKS = os.sysconf('SC_CLK_TCK')


class Server:
    """A qemu-storage-daemon that exports a raw file on a UNIX socket."""

    EXPORT = 'disk'

    def __init__(self, daemon, path, folder):
        self.socket = f'{folder}/nbd.sock'
        self.process = subprocess.Popen(
            # Others use the file while this one only waits.
            [daemon, '--blockdev', f'driver=file,node-name=n,filename={path},'
             'discard=unmap,aio=io_uring,locking=off',
             '--nbd-server', f'addr.type=unix,addr.path={self.socket}',
             '--export', f'nbd,id=e,node-name=n,name={self.EXPORT},'
             'writable=on'],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True)
        end = time.monotonic() + START_LIMIT
        while not os.path.exists(self.socket):
            if self.process.poll() is not None or time.monotonic() > end:
                self.stop()
                raise RuntimeError('the NBD server does not start: ' +
                                   self.process.stderr.read().strip())
            time.sleep(0.05)

    def cpu_seconds(self):
        """CPU time that it has used up to now."""
        with open(f'/proc/{self.process.pid}/stat', encoding='ascii') as f:
            fields = f.read().rpartition(')')[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(START_LIMIT)
