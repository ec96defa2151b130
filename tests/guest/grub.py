# SPDX-License-Identifier: GPL-2.0-or-later
"""GRUB on the disk loads Linux from the disk: by BIOS calls and by UEFI."""

import glob
import os
import shutil
import struct
import subprocess

import debian
from debian import Missing
from machine import Failure
from scene import Scene
from steps import MIB
import variants

START = MIB                     # of the only partition
SIZE = 160 * MIB                # of the disk
# GRUB says which file it cannot read; Linux tells how it was started.
CONFIG = '''serial --unit=0
terminal_output serial
echo GRUB is here
md5sum /initrd
linux /vmlinuz {arguments} booted-by={name}
initrd /initrd
boot
'''
EARLY = '''serial --unit=0
terminal_output serial
search --no-floppy --set=root --file /grub.cfg
configfile ($root)/grub.cfg
'''


def tool(name, package):
    path = shutil.which(name, path='/usr/bin:/usr/sbin:/bin:/sbin')
    if not path:
        raise Missing(f'{name} is missing; apt-get install {package}')
    return path


def run(*argv, **more):
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          timeout=120, check=False, **more)
    if done.returncode != 0:
        raise Failure(f'{os.path.basename(argv[0])}: {done.stdout[-300:]}')


class Grub(Scene):
    PVH = False
    TARGET = PACKAGE = ''
    MODULES_IN = ''             # GRUB's own modules
    STEPS = ('make', 'boot', 'started-by', 'driver', 'console')

    def _command(self):
        """Without -kernel: what boots is on the disk."""
        argv = super()._command()
        at = argv.index('-kernel')
        argv[at:at + 6] = []
        return argv

    def device(self):
        return {'bootindex': 0}

    def path(self, name):
        return os.path.join(self.folder, name)

    def _files(self):
        """The disk's files, in a folder."""
        tree = self.path('tree')
        os.mkdir(tree)
        shutil.copy(self.boot_files[0], os.path.join(tree, 'vmlinuz'))
        shutil.copy(self.boot_files[1], os.path.join(tree, 'initrd'))
        with open(os.path.join(tree, 'grub.cfg'), 'w',
                  encoding='ascii') as file:
            file.write(CONFIG.format(arguments=variants.KERNEL_ARGS,
                                     name=self.NAME))
        return tree

    def _core(self, name):
        early = self.path('early.cfg')
        with open(early, 'w', encoding='ascii') as file:
            file.write(EARLY)
        modules = f'/usr/lib/grub/{self.TARGET}'
        if not os.path.isdir(modules):
            raise Missing(f'{modules} is missing; apt-get install '
                          f'{self.PACKAGE}')
        core = self.path(name)
        run(tool('grub-mkimage', 'grub-common'), '-O', self.TARGET, '-o', core,
            '-c', early, '-p', '/', '-d', modules, 'normal', 'linux', 'search',
            'configfile', 'serial', 'terminal', 'echo', 'hashsum',
            'gcry_md5', *self.MODULES_IN.split())
        return core

    def make(self):
        """Write the image, without a loop device and without root."""
        with open(self.image, 'wb') as file:
            file.truncate(SIZE)
        self._write(self._files())
        shutil.rmtree(self.path('tree'))
        return f'{os.stat(self.image).st_blocks // 2048} MiB are used'

    def started_by(self):
        """The kernel's command line is that of grub.cfg, and GRUB read the
        initrd as it is."""
        seen = self.machine.run('cat /proc/cmdline').split()
        wanted = f'booted-by={self.NAME}'
        if wanted not in seen or 'BOOT_IMAGE=/vmlinuz' not in ' '.join(seen):
            raise Failure(f'the command line is {seen}')
        with open(self.machine.console, encoding='latin-1') as file:
            console = file.read()
        run_sum = subprocess.run(
            ['md5sum', self.boot_files[1]], text=True, check=True, timeout=60,
            stdout=subprocess.PIPE).stdout.split()[0]
        if 'GRUB is here' not in console or run_sum not in console:
            raise Failure('GRUB did not print the sum of initrd')
        return f'{wanted}, initrd has its md5'


class Bios(Grub):
    NAME = 'grub-bios'
    ABOUT = 'GRUB of the boot sector and core image, by SeaBIOS'
    # SeaBIOS wants a legacy queue of 256 entries at most; QEMU 10.0.13 has 1024
    VARIANT = variants.VARIANTS['q35']
    TARGET, PACKAGE = 'i386-pc', 'grub-pc-bin'
    MODULES_IN = 'biosdisk part_msdos ext2'

    def _write(self, tree):
        core = self._core('core.img')
        with open(f'/usr/lib/grub/{self.TARGET}/boot.img', 'rb') as file:
            boot = bytearray(file.read(512))
        with open(core, 'rb') as file:
            core = file.read()
        # one partition of Linux, behind the core image, which begins in
        # sector 1: where boot.img and grub-mkimage's list of blocks have it
        boot[446:462] = struct.pack('<B3sB3sII', 0x80, b'\xfe\xff\xff', 0x83,
                                    b'\xfe\xff\xff', START // 512,
                                    (SIZE - START) // 512)
        boot[462:] = bytes(48) + b'\x55\xaa'
        if 512 + len(core) > START:
            raise Failure(f'the core image is too large: {len(core)}')
        with open(self.image, 'r+b') as file:
            file.write(boot + core)
        run(tool('mkfs.ext2', 'e2fsprogs'), '-q', '-F', '-E',
            f'offset={START}', '-d', tree, self.image,
            f'{(SIZE - START) >> 10}k')


class Uefi(Grub):
    NAME = 'grub-uefi'
    ABOUT = 'GRUB as the removable medium of UEFI (OVMF)'
    VARIANT = variants.VARIANTS['legacy']
    TARGET, PACKAGE = 'x86_64-efi', 'grub-efi-amd64-bin'
    MODULES_IN = 'fat'

    def extra(self):
        return ['-bios', debian.ovmf(print)]

    def _write(self, tree):
        core = self._core('bootx64.efi')
        run(tool('mformat', 'mtools'), '-i', self.image, '-F', '-T',
            str(SIZE // 512), '-h', '255', '-s', '63', '::')
        for folder in ('::/EFI', '::/EFI/BOOT'):
            run(tool('mmd', 'mtools'), '-i', self.image, folder)
        run(tool('mcopy', 'mtools'), '-i', self.image, core,
            '::/EFI/BOOT/BOOTX64.EFI')
        run(tool('mcopy', 'mtools'), '-i', self.image,
            *sorted(glob.glob(os.path.join(tree, '*'))), '::/')


SCENES = (Bios, Uefi)
