# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian's kernel for the VM: its image, modules and headers, and the private
vhost header of its source package, all of one version, in the cache."""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(TOP, 'tests', 'guest'))

import debian                                           # noqa: E402
from debian import Missing                              # noqa: E402
from debian import _download as download                # noqa: E402

# of what _fill() makes; another number has it made anew
LAYOUT = 2
DEBUG_CONFIG = os.path.join(HERE, 'debug.config')

# What the tests may load; the rest of a 400 MB package is not kept.
KEEP = ('drivers/virtio', 'drivers/block', 'drivers/char', 'drivers/md',
        'drivers/scsi/scsi_mod.ko', 'drivers/scsi/scsi_common.ko',
        'drivers/scsi/scsi_debug.ko', 'drivers/scsi/sd_mod.ko',
        'drivers/scsi/sg.ko', 'drivers/vhost', 'block', 'crypto',
        'arch/x86/crypto', 'fs/9p', 'fs/netfs', 'fs/fscache', 'fs/configfs',
        'fs/ext4', 'fs/jbd2', 'fs/mbcache.ko', 'fs/xfs', 'lib', 'net/9p')


def _output(argv, timeout=60):
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, timeout=timeout,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          text=True, check=False)
    return done.stdout if done.returncode == 0 else ''


def _release(series):
    """The newest release of this series that apt knows, as in uname -r."""
    escaped = re.escape(series)
    names = _output(['apt-cache', 'pkgnames', f'linux-image-{series}.'])
    found = re.findall(rf'^linux-image-({escaped}\.[0-9][^\n]*-amd64)$',
                       names, re.M)
    # neither another flavour nor an unsigned twin
    found = [name for name in found
             if not re.search(r'-(cloud|rt|unsigned)-', name)]
    return max(found, default=None,
               key=lambda name: [int(n) for n in re.findall(r'\d+', name)])


def _apt_version(package):
    got = re.search(r'Candidate: (\S+)',
                    _output(['apt-cache', 'policy', package]))
    return got.group(1) if got and got.group(1) != '(none)' else None


def newest(series):
    """(release, version) of the newest kernel of a series, or None, None."""
    release = _release(series)
    version = _apt_version(f'linux-image-{release}') if release else None
    return release, version


def _packages(release, series):
    """The packages to unpack.  linux-kbuild is named by series or release."""
    base = release.removesuffix('-amd64')
    kbuild = f'linux-kbuild-{series}'
    if not _apt_version(kbuild):
        kbuild = f'linux-kbuild-{base}'
    return (f'linux-image-{release}', f'linux-headers-{release}',
            f'linux-headers-{base}-common', kbuild)


def _prune_image(tree, release):
    """The kernel and the modules worth keeping, moved to the top."""
    source = os.path.join(tree, 'lib', 'modules', release)
    for name in KEEP:
        there = os.path.join(source, 'kernel', name)
        for path in (there, there + '.xz'):
            if os.path.exists(path):
                here = os.path.join(tree, 'modules', 'kernel',
                                    os.path.relpath(path, source + '/kernel'))
                os.makedirs(os.path.dirname(here), exist_ok=True)
                os.rename(path, here)
    os.rename(os.path.join(source, 'modules.builtin'),
              os.path.join(tree, 'modules', 'modules.builtin'))
    os.rename(os.path.join(tree, 'boot', f'vmlinuz-{release}'),
              os.path.join(tree, 'vmlinuz'))
    for name in ('boot', 'lib'):
        shutil.rmtree(os.path.join(tree, name))
    _unpack_modules(os.path.join(tree, 'modules'))
    debian._uncompress(os.path.join(tree, 'vmlinuz'),
                       os.path.join(tree, 'vmlinux'))


def _unpack_modules(folder):
    """Newer series compress their modules; the guest's insmod wants them
    plain."""
    packed = [os.path.join(where, name)
              for where, _, names in os.walk(folder)
              for name in names if name.endswith('.ko.xz')]
    if packed:
        subprocess.run(['xz', '-d', *packed], check=True, timeout=300)


def _headers_here(tree, release):
    """The headers' Makefile names its place on an installed system."""
    base = release.removesuffix('-amd64')
    path = os.path.join(tree, 'usr', 'src', f'linux-headers-{release}')
    with open(os.path.join(path, 'Makefile'), 'w', encoding='ascii') as file:
        file.write('include $(dir $(lastword $(MAKEFILE_LIST)))'
                   f'../linux-headers-{base}-common/Makefile\n')


def dpkg_x(deb, tree):
    try:
        subprocess.run(['dpkg', '-x', deb, tree], check=True, timeout=600,
                       stdin=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError) as error:
        raise Missing(f'{os.path.basename(deb)} does not unpack ({error}); '
                      'is the disk full?') from error
    os.unlink(deb)


def _from_source(work, tree, release, series, version):
    """drivers/vhost/vhost.h from the source package of the same version, and
    the judge of the kernel's coding style."""
    deb = download(f'linux-source-{series}', version, work)
    unpacked = os.path.join(work, 'source')
    dpkg_x(deb, unpacked)
    ball = os.path.join(unpacked, 'usr', 'src', f'linux-source-{series}.tar.xz')
    done = subprocess.run(
        [os.path.join(TOP, 'kernel', 'vhost-header'),
         os.path.join(tree, 'usr', 'src', f'linux-headers-{release}'),
         os.path.join(tree, 'vhost'), ball],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
        stderr=subprocess.STDOUT, timeout=300, check=False)
    if done.returncode != 0:
        raise Missing(done.stdout.strip())
    style = os.path.join(tree, 'style')
    os.makedirs(style)
    names = [f'linux-source-{series}/scripts/{name}' for name in
             ('checkpatch.pl', 'spelling.txt', 'const_structs.checkpatch')]
    subprocess.run(['tar', '-x', '-C', style, '--strip-components=2', '-f',
                    ball, *names], check=True, timeout=300,
                   stdin=subprocess.DEVNULL)
    shutil.rmtree(unpacked)


def _fill(work, tree, release, series, version, say):
    for package in _packages(release, series):
        say(f'fetching {package} {version}')
        dpkg_x(download(package, version, work), tree)
    _prune_image(tree, release)
    _headers_here(tree, release)
    say(f'fetching linux-source-{series} {version} for vhost.h')
    _from_source(work, tree, release, series, version)


def _root():
    return os.path.join(os.path.dirname(debian.cache_root()), 'vm')


def debug_folder(series, version):
    """Where the debug kernel of this version and debug.config is kept."""
    with open(DEBUG_CONFIG, 'rb') as file:
        tag = hashlib.sha256(file.read()).hexdigest()[:8]
    return os.path.join(_root(), f'debug-{series}_{version}_{tag}')


def _folder(series, say):
    root = _root()
    os.makedirs(root, exist_ok=True)
    release, version = newest(series)
    if not version:
        have = sorted((name for name in os.listdir(root)
                       if name.startswith(f'linux-{series}.')),
                      key=lambda n: os.path.getmtime(os.path.join(root, n)))
        if have:
            say(f'apt knows no Linux {series}: using {have[-1]}')
            return os.path.join(root, have[-1])
        raise Missing(f'apt knows no linux-image-{series}.*; run "apt-get '
                      'update" first (Debian 12, main and security)')
    target = os.path.join(root, f'linux-{release}_{version}_{LAYOUT}')
    with open(os.path.join(root, '.lock'), 'w', encoding='ascii') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.isdir(target):
            with tempfile.TemporaryDirectory(dir=root, prefix='.new-') as work:
                tree = os.path.join(work, 'tree')
                _fill(work, tree, release, series, version, say)
                os.rename(tree, target)     # whole or not at all
    return target


class Kernel(debian.Kernel):
    """The VM's kernel: what debian.Kernel has, and how to build for it."""

    def __init__(self, series, say):
        # not the base class's own package: this one has headers, too
        self.folder = _folder(series, say)
        self.name = os.path.basename(self.folder)
        self.release = self.name.removeprefix('linux-').split('_')[0]
        self.bzimage = os.path.join(self.folder, 'vmlinuz')
        self.vmlinux = os.path.join(self.folder, 'vmlinux')
        self.headers = os.path.join(self.folder, 'usr', 'src',
                                    f'linux-headers-{self.release}')
        self.vhost = os.path.join(self.folder, 'vhost')
        self.files = {}
        self.builtin = set()
        self._index()

    def extra_arguments(self):
        """Of the kernel's command line."""
        return ''

    def add_module(self, path):
        """A module of ours, by its path."""
        name = os.path.basename(path).removesuffix('.ko').replace('-', '_')
        self.files[name] = path


class DebugKernel(Kernel):
    """One of tests/vm/debug-kernel; the newest that is in the cache."""

    def __init__(self, series):
        root = _root()
        suffix = debug_folder(series, '').rsplit('_', 1)[1]
        have = [name for name in
                (os.listdir(root) if os.path.isdir(root) else ())
                if name.startswith(f'debug-{series}_') and
                name.endswith(suffix)]
        if not have:
            raise Missing('no debug kernel is in the cache; build one with '
                          f'tests/vm/debug-kernel --series={series}')
        self.folder = max((os.path.join(root, name) for name in have),
                          key=os.path.getmtime)
        self.name = os.path.basename(self.folder)
        self.release = self.name
        self.bzimage = os.path.join(self.folder, 'vmlinuz')
        # the PVH entry does not go with KASAN
        self.vmlinux = ''
        self.headers = os.path.join(self.folder, 'build')
        self.vhost = os.path.join(self.folder, 'vhost')
        self.files = {}
        self.builtin = set()
        self._index()

    def extra_arguments(self):
        return 'kasan.fault=report kmemleak=on'


def find(name, say):
    """The kernel of a series, or "debug", or "debug-SERIES"."""
    kind, _, series = name.partition('-')
    if kind == 'debug':
        return DebugKernel(series or '6.1')
    return Kernel(name, say)


def build_module(kernel, folder):
    """Build kernel/ of this tree outside of it; the path of the module."""
    if not shutil.which('make'):
        raise Missing('make is missing; apt-get install make gcc-12')
    source = os.path.join(TOP, 'kernel')
    work = os.path.join(folder, f'module-{kernel.release}')
    os.makedirs(work, exist_ok=True)
    for where, _, names in os.walk(source):
        for name in names:
            here = os.path.join(work, os.path.relpath(where, source), name)
            os.makedirs(os.path.dirname(here), exist_ok=True)
            _copy_newer(os.path.join(where, name), here)
    done = subprocess.run(
        ['make', '-s', '-C', kernel.headers, f'M={work}', 'W=1', '-j2',
         f'VHOST_H_DIR={kernel.vhost}', 'CONFIG_DEBUG_INFO_BTF_MODULES=',
         'KCFLAGS=-Werror', 'modules'],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
        stderr=subprocess.STDOUT, timeout=300, check=False)
    if done.returncode != 0:
        raise Missing('the module does not build:\n' + done.stdout)
    return os.path.join(work, 'vhost_blk.ko')


def _copy_newer(source, target):
    """Keep times, so that make builds only what changed."""
    try:
        if os.stat(source).st_mtime_ns == os.stat(target).st_mtime_ns:
            return
    except OSError:
        pass
    shutil.copy2(source, target)
