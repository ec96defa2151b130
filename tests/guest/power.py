# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest sleeps and goes on: in RAM, and in an image on a second disk."""

from machine import Failure
from scene import Scene
from steps import BOOT_TIME, check
import variants

# The guest's limits are long: its clock may run fast on a busy host.  Those of
# the runner count.

# Counts in a file while the guest goes to sleep and when it is awake again;
# each line is on the disk before the next one.
COUNT = ('(i=1; while [ ! -e /tmp/enough ]; do echo $i >> /mnt/count; '
         'sync /mnt/count; i=$((i + 1)); done; echo done > /tmp/counted) '
         '> /dev/null 2>&1 & ')
# Raw writes in the same time, on another disk and past the page cache.
DIRECT = ('(n=0; while [ ! -e /tmp/enough ]; do dd if=/payload/f7 of=/dev/vdb '
          'bs=64k count=48 oflag=direct conv=notrunc status=none || '
          'echo failed > /tmp/direct-failed; n=$((n + 1)); echo $n > '
          '/tmp/rounds; done; echo done > /tmp/written) > /dev/null 2>&1 & ')
DIRECT_BYTES = 48 * 65536


class Sleeper(Scene):
    def load(self):
        """Both programs run and have got somewhere."""
        self.machine.run(f'{COUNT}{DIRECT} wait_for 600 test -s /tmp/rounds && '
                         'wait_for 600 test -s /mnt/count')
        return 'one program appends and syncs, one writes with O_DIRECT'

    def counted(self):
        text = self.machine.run('tail -n 1 /mnt/count; cat /tmp/rounds')
        return [int(word) for word in text.split()]

    def goes_on(self):
        """The programs went on after the sleep, and nothing is missing of
        what they wrote."""
        before = self.counted()
        self.machine.run(f'wait_for 600 beyond {before[1]} /tmp/rounds && '
                         f'wait_for 600 beyond {before[0]} /mnt/count',
                         timeout=120)
        self.machine.run('touch /tmp/enough; wait_for 600 test -e /tmp/written '
                         '&& wait_for 600 test -e /tmp/counted', timeout=120)
        if self.sabotage == 'goes-on':
            self.machine.run('sed -i 2d /mnt/count')
        text = self.machine.run(
            'forget; test ! -e /tmp/direct-failed || exit 1; '
            'dd if=/dev/vdb bs=64k count=48 iflag=direct status=none | '
            f'cmp -n {DIRECT_BYTES} - /payload/f7 && '
            'awk "\\$1 != NR { bad = 1 } END { print NR, bad + 0 }" '
            '/mnt/count', timeout=120)
        lines, bad = (int(word) for word in text.split())
        if bad or lines <= before[0]:
            raise Failure(f'{lines} lines after {before[0]}, wrong: {bad}')
        return (f'{lines} lines, {before[0]} of them before; the raw blocks '
                'are right')

    def after(self):
        """Discard, resize and the queues are as they were."""
        text = self.machine.run('ls /sys/block/vda/mq; '
                                'cat /sys/block/vda/cache_type')
        check(text.split(),
              [str(n) for n in range(self.variant.queues)] + ['write', 'back'],
              'queues and cache mode')
        words, _ = self._shrinks('rm /mnt/data/f6 && sync && fstrim /mnt',
                                 900 << 10)
        return words


class SuspendRam(Sleeper):
    # Started by its PVH entry, Linux 6.1 does not come back from S3.
    PVH = False
    NAME = 'suspend-ram'
    ABOUT = 'suspend to RAM (S3) and wake up, packed ring and io_uring'
    VARIANT = variants.VARIANTS['packed']
    STEPS = ('boot', 'driver', 'mkfs', 'write', 'load', 'sleep', 'read-back',
             'goes-on', 'after', 'fsck', 'console')

    def extra(self):
        return self.second_disk('disk1', 16, **{'io-engine': 'io_uring',
                                                'iothread': 'iothread1'})

    def sleep(self):
        """S3: the guest's driver resets the device and sets it up anew."""
        engine = self.property('engine', 'disk1')
        before = self.counted()
        self.machine.send('grep -q deep /sys/power/mem_sleep && '
                          'echo deep > /sys/power/mem_sleep && '
                          'echo mem > /sys/power/state && echo awake')
        self.machine.qmp.event('SUSPEND', 60)
        self.wait_status('suspended')
        self.machine.qmp.command('system_wakeup')
        self.machine.qmp.event('WAKEUP', 60)
        status, text = self.machine.result(120)
        check((status, text.strip()), (0, 'awake'), 'the end of the sleep')
        check(self.property('engine', 'disk1'), engine, 'engine')
        return f'asleep after {before[0]} lines, awake; engine {engine}'


class SuspendDisk(Sleeper):
    NAME = 'suspend-disk'
    ABOUT = 'suspend to disk (S4), resumed in a new process; legacy PCI'
    VARIANT = variants.VARIANTS['legacy']
    STEPS = ('boot', 'driver', 'mkfs', 'write', 'load', 'hibernate', 'resume',
             'read-back', 'goes-on', 'after', 'fsck', 'console')

    def extra(self):
        return (self.second_disk('disk1', 16) +
                self.second_disk('swap', 640, serial='SWAP'))

    def hibernate(self):
        """The image goes to the third disk; then QEMU ends."""
        self.boot_id = self.machine.run('cat /proc/sys/kernel/random/boot_id')
        self.machine.run('mkswap /dev/vdc > /dev/null && swapon /dev/vdc && '
                         'cat /sys/block/vdc/dev > /sys/power/resume && '
                         'echo 0 > /sys/power/image_size && '
                         'echo platform > /sys/power/disk')
        before = self.counted()
        self.machine.send('echo disk > /sys/power/state && echo awake')
        self.machine.qmp.event('SUSPEND_DISK', 180)
        self.machine.wait(60)
        self.asleep = self.machine.number
        return f'the image is written after {before[0]} lines'

    def resume(self):
        """Another process boots, finds the image, and the first guest's shell
        gets on with the line that put it to sleep."""
        if self.sabotage == 'resume':
            with open(f'{self.folder}/swap.img', 'r+b') as file:
                file.seek(4096 - 10)        # where the signature ends
                file.write(bytes(10))
        self._start(BOOT_TIME)
        self.machine.ready(BOOT_TIME)
        self.machine.run('load_disk && wait_for 10 test -b /dev/vdc')
        self.machine.send('cat /sys/block/vdc/dev > /sys/power/resume; '
                          'echo no image')
        self.machine.number = self.asleep
        status, text = self.machine.result(120)
        check((status, text.strip()), (0, 'awake'), 'the end of the sleep')
        check(self.machine.run('cat /proc/sys/kernel/random/boot_id'),
              self.boot_id, 'boot ID')
        return 'the same boot goes on in a new process'


SCENES = (SuspendRam, SuspendDisk)
