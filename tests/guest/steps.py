# SPDX-License-Identifier: GPL-2.0-or-later
"""What the guest does with its disk, step by step.

A step returns a few words for the reader or raises Failure.  The expected
values come from the runner (it made the payload), never from the guest.
A step's `sabotage` hooks spoil what the step relies on: `run --self-test`
uses them to show that each step can fail."""

import hashlib
import os
import re

from machine import Failure, Machine
import variants

MIB = 1 << 20
DISK = 192 * MIB
GROWN = 224 * MIB + 512 * 7         # not a multiple of 4 KiB
DIRECT_SECTORS = (1, 3, 7, 17, 129, 255, 1023)
FEATURES = {'seg_max': 2, 'blk_size': 6, 'flush': 9, 'config_wce': 11,
            'discard': 13, 'write_zeroes': 14, 'version_1': 32,
            'ring_packed': 34}
BOOT_TIME = 120
COMPLAINT = re.compile(r'I/O error|EXT4-fs (error|warning)|Call Trace|BUG:|'
                       r'virtio_blk.*(fail|error)|Kernel panic')


def digest(data):
    return hashlib.sha256(data).hexdigest()


def check(seen, wanted, what):
    if seen != wanted:
        raise Failure(f'{what}: the guest sees {seen!r}, not {wanted!r}')


def can_direct(path):
    """Whether the host's file system opens this file for O_DIRECT."""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_DIRECT))
    except OSError:
        return False
    return True


class Guest:
    def __init__(self, qemu, variant, boot, folder, payload, sabotage=None):
        self.qemu = qemu
        self.variant = variant
        self.boot_files = boot
        self.folder = folder
        self.payload = payload
        self.sabotage = sabotage
        self.image = os.path.join(folder, 'disk.img')
        self.machine = None
        self.size = DISK
        with open(self.image, 'wb') as file:
            file.truncate(DISK)
        self.direct = variant.direct and can_direct(self.image)
        self.argv = self._command()

    def _command(self):
        """The command line, spoilt where a sabotage asks for it."""
        device = {'serial': {'serial': 'ANOTHER'},
                  'queues': {'num-queues': self.variant.queues - 1},
                  'cache-mode': {'write-cache': 'off'},
                  'transport': {'write-zeroes': False},
                  }.get(self.sabotage)
        extra = {'reboot': ['-action', 'reboot=shutdown'],
                 'boot': ['-append', 'console=ttyS0 rdinit=/none'],
                 }.get(self.sabotage, [])
        return variants.command(
            self.qemu, self.variant, self.boot_files, self.folder,
            self.image, direct=self.direct, device=device, extra=extra,
            discard='ignore' if self.sabotage == 'discard' else 'unmap')

    def close(self):
        if self.machine:
            self.machine.end()

    # --- what steps use ----------------------------------------------------

    def _used(self):
        """Bytes that the image takes on the host."""
        return os.stat(self.image).st_blocks * 512

    def _spoil_image(self, data):
        """Change the image where it holds these bytes."""
        with open(self.image, 'r+b') as file:
            place = file.read().find(data)
            if place < 0:
                raise Failure('sabotage: the bytes are not in the image')
            file.seek(place)
            file.write(bytes(byte ^ 0x55 for byte in data))
            os.fsync(file.fileno())

    def _start(self, timeout):
        self.machine = Machine(self.argv, self.folder, timeout)

    def _shrinks(self, line, at_least):
        """Run a line that must free this much of the host's file."""
        before = self._used()
        text = self.machine.run(line, timeout=120)
        freed = before - self._used()
        if freed < at_least:
            raise Failure(f'the image shrank by {freed} bytes on the host, '
                          f'not by {at_least} or more')
        return f'{freed / MIB:.1f} MiB given back to the host', text

    def _sums(self):
        """The payload's sums as the guest reads them from the disk."""
        text = self.machine.run('forget; cd /mnt/data && sha256sum f*',
                                timeout=120)
        seen = dict(line.split()[::-1] for line in text.splitlines())
        wanted = {name: digest(data) for name, data in self.payload.items()}
        bad = sorted(name for name in wanted if seen.get(name) != wanted[name])
        if bad:
            raise Failure(f'{len(bad)} of {len(wanted)} files do not have '
                          f'their sha256: {" ".join(bad)}')
        total = sum(len(data) for data in self.payload.values())
        return f'{len(wanted)} files, {total} bytes, each with its sha256'

    def _mount(self):
        self.machine.run('load_disk && mount -t ext4 /dev/vda /mnt')

    # --- the steps ---------------------------------------------------------

    def boot(self):
        """A guest that hangs before its agent speaks has not met the disk's
        driver yet: it is started once more."""
        limit = 40 if self.sabotage else BOOT_TIME
        try:
            self._start(limit)
            release = self.machine.ready(limit)
        except Failure:
            if self.sabotage or not (self.machine and self.machine.alive()):
                raise
            self.machine.end()
            self._start(limit)
            release = self.machine.ready(limit) + ' (second try)'
        return f'Linux {release} on {self.variant.machine.split(",")[0]}'

    def driver(self):
        if self.sabotage == 'driver':
            self.machine.run('rm /modules/virtio_blk.ko')
        self.machine.run('load_disk')
        return 'virtio_blk is loaded, /dev/vda is there'

    def identity(self):
        if self.sabotage == 'identity':
            self.machine.qmp.command('block_resize', size=DISK - 512,
                                     **{'node-name': 'disk0-raw'})
        text = self.machine.run('cd /sys/block/vda && cat size && cat serial '
                                '&& echo')
        size, serial = text.split()
        check(int(size) * 512, DISK, 'size of the disk')
        check(serial, variants.SERIAL, 'serial')
        return f'{DISK // MIB} MiB, serial {serial}'

    def transport(self):
        bits = self.machine.run('cat /sys/block/vda/device/features').strip()
        got = {name: int(bits[bit]) for name, bit in FEATURES.items()}
        wanted = dict.fromkeys(FEATURES, 1)
        wanted['version_1'] = int(self.variant.modern)
        wanted['ring_packed'] = int(self.variant.packed)
        check(got, wanted, 'negotiated features')
        return ('modern' if self.variant.modern else 'legacy') + (
            ', packed ring' if self.variant.packed else ', split ring')

    def queues(self):
        text = self.machine.run('ls /sys/block/vda/mq').split()
        check(len(text), self.variant.queues, 'number of queues')
        return f'{len(text)} queue(s) in use'

    def cache_mode(self):
        """CONFIG_WCE: the guest reads the mode and may change it."""
        text = self.machine.run(
            'cd /sys/block/vda; cat cache_type; '
            'echo "write through" > cache_type; cat cache_type; '
            'echo "write back" > cache_type; cat queue/write_cache')
        check(text.splitlines(),
              ['write back', 'write through', 'write back'], 'cache mode')
        return 'write back, switched to write through and back'

    def direct_io(self):
        """O_DIRECT writes and reads at odd sizes, among them the disk's last
        sector; read back in another size than written."""
        source = self.payload['f7']
        pieces = []         # offset on the disk, sectors, offset in the file
        place = 8 * MIB + 512
        for number, sectors in enumerate(DIRECT_SECTORS):
            pieces.append((place, sectors, 512 * number))
            place += (sectors + 1) * 512
        pieces.append((DISK - 512, 1, 4096))
        line = 'set -e; '
        for offset, sectors, skip in pieces:
            line += (f'dd if=/payload/f7 iflag=skip_bytes skip={skip} '
                     f'bs={sectors * 512} count=1 of=/dev/vda conv=notrunc '
                     f'oflag=direct,seek_bytes seek={offset} status=none; ')
        self.machine.run(line)
        if self.sabotage == 'direct-io':
            self._spoil_image(source[512:1024])
        text = self.machine.run('forget; ' + '; '.join(
            f'region {offset} {sectors * 512} | sha256sum'
            for offset, sectors, _ in pieces))
        for seen, (offset, sectors, skip) in zip(text.splitlines(), pieces,
                                                 strict=True):
            check(seen.split()[0], digest(source[skip:skip + sectors * 512]),
                  f'sha256 of {sectors} sectors at {offset}')
        return (f'{len(pieces)} writes of {min(DIRECT_SECTORS)} to '
                f'{max(DIRECT_SECTORS)} sectors')

    def zeroes(self):
        """WRITE_ZEROES of a range that starts and ends off every page."""
        base, length = 16 * MIB, MIB
        start, count = 512 * 3, 512 * 1021
        data = bytearray(self.payload['f7'][:length])
        self.machine.run(f'dd if=/payload/f7 of=/dev/vda bs={length} count=1 '
                         f'oflag=direct,seek_bytes seek={base} conv=notrunc '
                         'status=none')
        if self.sabotage != 'zeroes':
            self.machine.run(f'blkdiscard -z -o {base + start} -l {count} '
                             '/dev/vda')
        data[start:start + count] = bytes(count)
        text = self.machine.run(f'forget; region {base} {length} | sha256sum')
        check(text.split()[0], digest(data), 'sha256 around the zeroed range')
        return f'{count} bytes read back as zeroes, their neighbours kept'

    def discard(self):
        base, length = 32 * MIB, 6 * MIB
        self.machine.run(
            'for at in 0 3; do dd if=/payload/f7 of=/dev/vda bs=1M count=3 '
            f'oflag=direct seek=$(({base // MIB} + at)) conv=notrunc '
            'status=none || exit 1; done')
        return self._shrinks(f'blkdiscard -o {base} -l {length} /dev/vda',
                             length - MIB)[0]

    def mkfs(self):
        if self.sabotage == 'mkfs':
            self.machine.run('blockdev --setro /dev/vda')
        self.machine.run('mkfs.ext4 -q -F /dev/vda && '
                         'mount -t ext4 /dev/vda /mnt && mkdir /mnt/data',
                         timeout=120)
        return 'ext4 is made and mounted'

    def write(self):
        """Copy the payload; each file is on the disk when its dd ends."""
        self.machine.run(
            'for f in /payload/f*; do dd if=$f of=/mnt/data/${f##*/} bs=64k '
            'conv=fsync status=none || exit 1; done; sync', timeout=120)
        if self.sabotage == 'write':
            self.machine.run('echo x >> /mnt/data/f0; sync')
        text = self.machine.run('cd /mnt/data && stat -c "%n %s" f*')
        check(dict(line.split() for line in text.splitlines()),
              {name: str(len(data)) for name, data in self.payload.items()},
              'sizes of the files')
        return f'{len(self.payload)} files written and fsynced'

    def read_back(self):
        if self.sabotage == 'read-back':
            self._spoil_image(self.payload['f6'][4096:8192])
        return self._sums()

    def trim(self):
        self.machine.run(
            'for i in 1 2 3 4; do dd if=/payload/f7 of=/mnt/filler$i bs=1M '
            'conv=fsync status=none || exit 1; done; '
            'rm /mnt/filler*; sync', timeout=120)
        line = 'fstrim -v /mnt'
        if self.sabotage == 'trim':
            line = 'echo nothing is trimmed'
        words, text = self._shrinks(line, 11 * MIB)
        if 'trimmed' not in text:
            raise Failure(f'fstrim says {text!r}')
        return words

    def resize(self):
        """The disk grows while files are being written to it."""
        size = GROWN + (512 if self.sabotage == 'resize' else 0)
        self.machine.send(
            'for i in 1 2 3; do cp /payload/f7 /mnt/busy && sync || exit 1; '
            f'done; wait_for 20 has_size {GROWN // 512}; '
            'cat /sys/block/vda/size; cmp /payload/f7 /mnt/busy')
        self.machine.qmp.command('block_resize', size=size,
                                 **{'node-name': 'disk0-raw'})
        status, text = self.machine.result(120)
        check(text.split()[0] if text.split() else '', str(GROWN // 512),
              'sectors in sysfs after the resize')
        if status != 0:
            raise Failure(f'a file written meanwhile is not whole: {text}')
        self.machine.run('resize2fs /dev/vda', timeout=120)
        self.size = GROWN
        return f'{DISK} to {GROWN} bytes with ext4 mounted and in use'

    def reboot(self):
        """The guest's own reboot: QEMU resets the machine and goes on."""
        process = self.machine.process.pid
        self.machine.run('sync; umount /mnt')
        self.machine.send('reboot -f')
        cause = self.machine.qmp.event('RESET', 60)
        if not cause.get('guest'):
            raise Failure(f'a reset that the guest did not ask for: {cause}')
        release = self.machine.ready(BOOT_TIME)
        if self.machine.process.pid != process or not self.machine.alive():
            raise Failure('the guest came back in another process')
        return f'reset by the guest, Linux {release} again'

    def data_after_reboot(self):
        if self.sabotage == 'data-after-reboot':
            self._spoil_image(self.payload['f6'][4096:8192])
        self._mount()
        size = self.machine.run('cat /sys/block/vda/size').strip()
        check(int(size) * 512, self.size, 'size of the disk')
        return self._sums()

    def fsck(self):
        self.machine.run('umount /mnt')
        if self.sabotage == 'fsck':
            # block group 0's inode bitmap and table lie behind the header
            self.machine.run('dd if=/payload/f7 of=/dev/vda bs=4k seek=1 '
                             'count=1 oflag=direct conv=notrunc status=none')
        self.machine.run('e2fsck -fn /dev/vda', timeout=120)
        return 'e2fsck finds nothing to mend'

    def console(self):
        """Nothing went wrong that no step has seen."""
        if self.sabotage == 'console':
            self.machine.run('echo "<3>I/O error, dev vda" > /dev/kmsg')
        with open(self.machine.console, encoding='utf-8',
                  errors='replace') as file:
            bad = [line.strip() for line in file if COMPLAINT.search(line)]
        if bad:
            raise Failure(f'{len(bad)} complaint(s) of the kernel, the first: '
                          f'{bad[0]}')
        return 'the kernel complains of nothing'

    def new_process(self):
        """Power off, then another QEMU on the same image."""
        self.machine.run('sync')
        self.machine.send('poweroff -f')
        self.machine.wait(60)
        if self.sabotage == 'new-process':
            # zeroes, no hole: QEMU probes for alignment in what is there
            size = os.path.getsize(self.image)
            with open(self.image, 'r+b') as file:
                file.write(bytes(size))
        return self._come_back()

    def killed_process(self):
        """SIGKILL after the guest's sync: what it had flushed is there,
        with the journal to replay."""
        self.machine.run('cp /payload/f6 /mnt/data/late && sync')
        if self.sabotage == 'killed-process':
            self.machine.run('rm /mnt/data/f6; sync')
        self.machine.end()
        words = self._come_back()
        self.machine.run('cmp /payload/f6 /mnt/data/late')
        return words

    def _come_back(self):
        before = self.machine.process.pid
        self._start(BOOT_TIME)
        self.machine.ready(BOOT_TIME)
        if self.machine.process.pid == before:
            raise Failure('not a new process')
        self._mount()
        return self._sums()


SHORT = ('boot', 'driver', 'identity', 'transport', 'queues', 'cache-mode',
         'direct-io', 'zeroes', 'discard', 'mkfs', 'write', 'read-back',
         'trim', 'resize', 'reboot', 'data-after-reboot', 'fsck',
         'console')
FULL = SHORT + ('new-process', 'killed-process')
# the first minutes of a check: one boot
QUICK = SHORT[:SHORT.index('reboot')]


def method(name):
    return name.replace('-', '_')
