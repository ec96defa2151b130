# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian's kernel and static busybox, fetched once and unpacked (never
installed) into the cache that configure uses too."""

import fcntl
import lzma
import os
import re
import shutil
import struct
import subprocess
import tempfile

# What an initramfs may want; the rest of a 400 MB package is not kept.
KEEP_MODULES = ('drivers/virtio', 'drivers/block', 'drivers/char', 'fs/ext4',
                'fs/jbd2', 'fs/mbcache.ko', 'fs/xfs', 'fs/btrfs', 'lib',
                'crypto', 'arch/x86/crypto')
# The cache has a kernel for each selection.
SELECTION = 'fs2'


class Missing(Exception):
    """Something the run needs is not there; the text names the mend."""


def cache_root():
    """In the folder that scripts/lib.sh calls cache_dir."""
    own = os.environ.get('VBLK_CACHE')
    if not own:
        base = (os.environ.get('XDG_CACHE_HOME') or
                os.path.expanduser('~/.cache'))
        own = os.path.join(base, 'qemu-virtio-blk')
    return os.path.join(own, 'guest')


def _output(argv, timeout=60):
    """Stdout of a command, or '' when it is missing or fails."""
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, timeout=timeout,
                              stdout=subprocess.PIPE, text=True,
                              stderr=subprocess.DEVNULL, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ''
    return done.stdout if done.returncode == 0 else ''


def _candidates():
    """(version, package) of the 6.1 kernel images apt knows, newest last.

    linux-image-amd64 may stand for another series where backports are pinned,
    so its dependency is only asked first."""
    found = re.findall(r'Depends: (linux-image-6\.1\.0-\d+-amd64)\b',
                       _output(['apt-cache', 'depends', 'linux-image-amd64']))
    if not found:
        names = _output(['apt-cache', 'pkgnames', 'linux-image-6.1.0-'])
        found = re.findall(r'^linux-image-6\.1\.0-\d+-amd64$', names, re.M)
        found.sort(key=lambda name: int(name.split('-')[3]))
    return found


def _version(package):
    got = re.search(r'Candidate: (\S+)',
                    _output(['apt-cache', 'policy', package]))
    return got.group(1) if got and got.group(1) != '(none)' else None


def _newest_cached(prefix):
    """The newest unpacked folder with this prefix, for use with no lists."""
    root = cache_root()
    if not os.path.isdir(root):
        return None
    have = [os.path.join(root, name) for name in os.listdir(root)
            if name.startswith(prefix)]
    return max(have, key=os.path.getmtime, default=None)


def _download(package, version, folder):
    """apt-get download checks the file against the signed package lists."""
    # root's apt hands the transfer to a user of its own when it may write
    os.chmod(folder, 0o777)
    try:
        done = subprocess.run(
            ['apt-get', '-q', '-o', 'Acquire::Retries=3',
             '-o', 'Acquire::http::Timeout=60', 'download',
             f'{package}={version}'],
            cwd=folder, stdin=subprocess.DEVNULL, timeout=600, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        failed, text = done.returncode != 0, done.stdout
    except subprocess.TimeoutExpired:
        failed, text = True, 'no answer within 600 s'
    except OSError as error:
        failed, text = True, str(error)
    debs = [name for name in os.listdir(folder) if name.endswith('.deb')]
    if failed or len(debs) != 1:
        last = text.strip().splitlines()[-1:] or ['no output']
        raise Missing(f'{package} {version} cannot be downloaded '
                      f'({last[0].strip()}); run "apt-get update" and check '
                      'the network, then try again')
    return os.path.join(folder, debs[0])


def _unpack(package, version, prune, say):
    """The package's unpacked folder in the cache; made on first use."""
    root = cache_root()
    os.makedirs(root, exist_ok=True)
    target = os.path.join(root, f'{package}_{version.replace(":", "%3a")}')
    if prune is _prune_kernel:
        target += f'_{SELECTION}'
    with open(os.path.join(root, '.lock'), 'w', encoding='ascii') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.path.isdir(target):
            return target
        say(f'fetching {package} {version}')
        with tempfile.TemporaryDirectory(dir=root, prefix='.new-') as work:
            deb = _download(package, version, work)
            tree = os.path.join(work, 'tree')
            try:
                subprocess.run(['dpkg', '-x', deb, tree], check=True,
                               timeout=300, stdin=subprocess.DEVNULL)
            except (OSError, subprocess.SubprocessError) as error:
                raise Missing(f'{package} does not unpack ({error}); is the '
                              f'disk of {root} full?') from error
            prune(tree)
            os.rename(tree, target)     # whole or not at all
    return target


def _prune_kernel(tree):
    """Keep the kernel, its list of built-ins and the few modules."""
    modules = os.path.join(tree, 'lib', 'modules')
    release = os.listdir(modules)[0]
    source = os.path.join(modules, release)
    keep = os.path.join(tree, 'modules')
    for name in KEEP_MODULES:
        there = os.path.join(source, 'kernel', name)
        if os.path.exists(there):
            here = os.path.join(keep, 'kernel', name)
            os.makedirs(os.path.dirname(here), exist_ok=True)
            os.rename(there, here)
    os.rename(os.path.join(source, 'modules.builtin'),
              os.path.join(keep, 'modules.builtin'))
    os.rename(os.path.join(tree, 'boot', f'vmlinuz-{release}'),
              os.path.join(tree, 'vmlinuz'))
    for name in ('boot', 'lib', 'usr'):
        shutil.rmtree(os.path.join(tree, name), ignore_errors=True)
    _uncompress(os.path.join(tree, 'vmlinuz'), os.path.join(tree, 'vmlinux'))


def _uncompress(bzimage, vmlinux):
    """Write the ELF kernel inside a bzImage: QEMU starts it through its PVH
    entry, which saves the guest from unpacking xz under TCG.  With another
    compression there is no vmlinux and the bzImage is booted."""
    with open(bzimage, 'rb') as file:
        image = file.read()
    # The boot protocol's setup header: sectors before the protected-mode
    # code at 0x1f1, payload offset and length at 0x248 and 0x24c.
    if image[0x202:0x206] != b'HdrS':
        return
    start = ((image[0x1f1] or 4) + 1) * 512
    offset, length = struct.unpack_from('<II', image, 0x248)
    payload = image[start + offset:start + offset + length]
    if not payload.startswith(b'\xfd7zXZ\0'):
        return
    elf = lzma.LZMADecompressor().decompress(payload)
    if elf.startswith(b'\x7fELF'):
        with open(vmlinux, 'wb') as file:
            file.write(elf)


def _fetch(packages, prefix, prune, say):
    for package in reversed(packages):
        version = _version(package)
        if version:
            return _unpack(package, version, prune, say)
    cached = _newest_cached(prefix)
    if cached:
        say(f'apt knows no {prefix}: using {os.path.basename(cached)}')
        return cached
    raise Missing(f'apt knows no package {prefix}*; run "apt-get update" '
                  'first (Debian 12, main)')


class Kernel:
    """An unpacked kernel package and its modules in load order."""

    def __init__(self, say):
        self.folder = _fetch(_candidates(), 'linux-image-6.1.0-',
                             _prune_kernel, say)
        self.name = os.path.basename(self.folder)
        self.bzimage = os.path.join(self.folder, 'vmlinuz')
        self.vmlinux = os.path.join(self.folder, 'vmlinux')
        self.files = {}
        self.builtin = set()
        self._index()

    def image(self):
        """The kernel to boot, the quicker form when there is one."""
        if os.path.exists(self.vmlinux):
            return self.vmlinux
        return self.bzimage

    def _index(self):
        modules = os.path.join(self.folder, 'modules')
        for folder, _, names in os.walk(modules):
            for name in names:
                if name.endswith('.ko'):
                    key = name[:-3].replace('-', '_')
                    self.files[key] = os.path.join(folder, name)
        path = os.path.join(modules, 'modules.builtin')
        with open(path, encoding='ascii') as listing:
            for line in listing:
                name = os.path.basename(line.strip())[:-3]
                self.builtin.add(name.replace('-', '_'))

    def _depends(self, path):
        with open(path, 'rb') as file:
            text = file.read()
        got = re.search(rb'\0depends=([^\0]*)\0', text)
        names = got.group(1).decode('ascii') if got else ''
        return [name.replace('-', '_') for name in names.split(',') if name]

    def load_order(self, wanted):
        """Paths of the modules in the order insmod must take them."""
        order = []

        def visit(name):
            if name in self.builtin:
                return
            path = self.files.get(name)
            if not path:
                raise Missing(f'{self.name} has no module {name}; remove '
                              f'{self.folder} and run again')
            if path in order:
                return
            for needed in self._depends(path):
                visit(needed)
            order.append(path)

        for name in wanted:
            visit(name)
        return order


def busybox(say):
    """Path of a static busybox."""
    folder = _fetch(['busybox-static'], 'busybox-static', lambda tree: None,
                    say)
    return os.path.join(folder, 'bin', 'busybox')


def _keep_only(*names):
    """A function that leaves these paths of an unpacked package."""
    def prune(tree):
        for folder, _, files in os.walk(tree):
            for name in files:
                path = os.path.join(folder, name)
                if os.path.relpath(path, tree) not in names:
                    os.unlink(path)
    return prune


def uboot(say):
    """Path of U-Boot as a BIOS image."""
    name = 'usr/lib/u-boot/qemu-x86_64/u-boot.rom'
    folder = _fetch(['u-boot-qemu'], 'u-boot-qemu', _keep_only(name), say)
    return os.path.join(folder, name)


def ovmf(say):
    """Path of UEFI firmware with its shell, as a BIOS image."""
    name = 'usr/share/ovmf/OVMF.fd'
    folder = _fetch(['ovmf'], 'ovmf', _keep_only(name), say)
    return os.path.join(folder, name)
