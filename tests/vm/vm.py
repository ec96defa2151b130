# SPDX-License-Identifier: GPL-2.0-or-later
"""Boot a kernel under TCG on the machine's own root and run one command."""

import ctypes
import os
import re
import shlex
import signal
import subprocess

from kernels import HERE, Missing
import debian
from initramfs import Cpio

EARLY = ('virtio_pci', '9pnet_virtio', '9p')
FIRMWARE = ('/usr/share/seabios', '/usr/share/qemu')
ARGUMENTS = ('console=ttyS0 quiet panic=-1 oops=panic mitigations=off nokaslr '
             'tsc=reliable no_timer_check random.trust_cpu=on nowatchdog '
             'slab_nomerge '
             'audit=0 apparmor=0 rdinit=/init')
COMPLAINT = re.compile(r'BUG |BUG:|WARNING:|Oops|Call Trace|general protection|'
                       r'blocked for more than|refcount_t|'
                       r'use-after-free in|Objects remaining|'
                       r'still has objects|suspicious RCU usage|'
                       r'inconsistent lock state')


class Hang(Exception):
    """The VM did not come to its end."""


def _initramfs(kernel, path):
    busybox = debian.busybox(lambda text: None)
    archive = Cpio(path)
    for name in ('proc', 'sys', 'dev', 'sysroot', 'out', 'modules'):
        archive.folder(name)
    archive.device('dev/console', 5, 1)
    archive.copy('bin/busybox', busybox)
    archive.link('bin/sh', 'busybox')
    archive.copy('init', os.path.join(HERE, 'init'))
    order = kernel.load_order(EARLY)
    for module in order:
        archive.copy(f'modules/{os.path.basename(module)}', module)
    archive.add('modules/order', ''.join(
        os.path.basename(module) + '\n' for module in order).encode())
    archive.close()


def _module_lines(kernel, wanted):
    """One line a module, in the order of insmod: path and parameters."""
    early = kernel.load_order(EARLY)
    lines = []
    seen = set(early)
    for text in wanted:
        name, _, parameters = text.partition(' ')
        for path in kernel.load_order([name.replace('-', '_')]):
            own = path == kernel.files.get(name.replace('-', '_'))
            if path not in seen:
                lines.append(f'{path} {parameters if own else ""}'.rstrip())
                seen.add(path)
    return ''.join(line + '\n' for line in lines)


def _arguments(kernel, options):
    """The kernel's command line; parameters of modules built in go there."""
    words = [ARGUMENTS, kernel.extra_arguments(), options.append]
    for text in options.module:
        name, _, parameters = text.partition(' ')
        if name.replace('-', '_') in kernel.builtin:
            words += [f'{name}.{word}' for word in parameters.split()]
    return ' '.join(word for word in words if word)


def _command(qemu, kernel, folder, options):
    argv = [qemu, '-name', 'vhost-blk-vm', '-no-user-config', '-nodefaults',
            '-display', 'none', '-no-reboot', '-machine', 'q35',
            '-accel', 'tcg,thread=multi', '-cpu', 'max',
            '-smp', str(options.cpus), '-m', str(options.memory),
            '-kernel', kernel.image(), '-initrd', f'{folder}/initramfs',
            '-append', _arguments(kernel, options),
            '-chardev', f'file,id=console,path={folder}/console',
            '-serial', 'chardev:console',
            '-fsdev', 'local,id=root,path=/,security_model=none,readonly=on,'
                      'multidevs=remap',
            '-device', 'virtio-9p-pci,fsdev=root,mount_tag=root',
            '-fsdev', f'local,id=out,path={folder}/out,security_model=none',
            '-device', 'virtio-9p-pci,fsdev=out,mount_tag=out']
    for place in FIRMWARE:
        argv += ['-L', place]
    if options.plugin:
        argv += ['-plugin', options.plugin, '-d', 'plugin',
                 '-D', f'{folder}/plugin.log']
    return argv


def _die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _read(path):
    try:
        with open(path, encoding='utf-8', errors='replace') as file:
            return file.read()
    except OSError:
        return ''


def _boot(qemu, kernel, folder, options):
    out = os.path.join(folder, 'out')
    for name in ('code', 'output', 'dmesg'):
        if os.path.exists(os.path.join(out, name)):
            os.unlink(os.path.join(out, name))
    with open(os.path.join(folder, 'qemu.log'), 'wb') as log:
        with subprocess.Popen(_command(qemu, kernel, folder, options),
                              stdin=subprocess.DEVNULL, stdout=log,
                              stderr=log, preexec_fn=_die_with_parent) as vm:
            try:
                vm.wait(options.timeout)
                return True
            except subprocess.TimeoutExpired:
                return False
            finally:
                vm.kill()


def run(qemu, kernel, folder, command, options):
    """Exit code, output and kernel log of a command (a list of words), which
    finds options.environment in its own."""
    out = os.path.join(folder, 'out')
    os.makedirs(out, exist_ok=True)
    if ',' in folder:
        raise Missing(f'QEMU takes no comma in {folder}; choose another '
                      'folder with TMPDIR')
    _initramfs(kernel, os.path.join(folder, 'initramfs'))
    with open(os.path.join(out, 'modules'), 'w', encoding='utf-8') as file:
        file.write(_module_lines(kernel, options.module))
    with open(os.path.join(out, 'command'), 'w', encoding='utf-8') as file:
        for name, value in options.environment.items():
            file.write(f'export {name}={shlex.quote(value)}\n')
        file.write(f'cd {shlex.quote(os.getcwd())}\n{shlex.join(command)}\n')
    ended = False
    # A VM that is silent from the start on has met a busy host, no test.
    for _ in range(2):
        ended = _boot(qemu, kernel, folder, options)
        if ended or os.path.exists(os.path.join(out, 'output')):
            break
    output = _read(os.path.join(out, 'output'))
    code = _read(os.path.join(out, 'code')).strip()
    if not code:
        tail = (_read(os.path.join(folder, 'qemu.log')) +
                _read(os.path.join(folder, 'console')))[-3000:]
        why = 'ended early' if ended else f'timed out ({options.timeout} s)'
        raise Hang(f'{output}\nthe VM {why}; its last words:\n{tail}')
    return int(code), output, _read(os.path.join(out, 'dmesg'))


def complaints(log):
    """Lines in which the kernel finds fault with itself."""
    return [line for line in log.splitlines() if COMPLAINT.search(line)]
