# SPDX-License-Identifier: GPL-2.0-or-later
"""The run's disk as a user writes it: QEMU's command line, libvirt's XML."""

import shlex

import variants

IMAGE = '/path/to/disk.img'

DOMAIN = '''\
<domain type='kvm'>
  <name>guest</name>
  <memory unit='GiB'>1</memory>
  <vcpu>{cpus}</vcpu>
  <iothreads>{iothreads}</iothreads>
  <os>
    <type arch='x86_64' machine='{machine}'>hvm</type>
  </os>
  <devices>
    <emulator>{qemu}</emulator>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw' cache='{cache}' io='{io}' \
discard='unmap' iothread='1'/>
      <source file='{image}'/>
      <target dev='vda' bus='virtio'/>
      <serial>{serial}</serial>
    </disk>
  </devices>
</domain>'''


def command_line(guest):
    """What a user writes for this disk, ready for a shell: each option with
    its value on a line."""
    variant = guest.variant
    aio = 'native' if guest.direct else 'threads'
    direct = 'on' if guest.direct else 'off'
    lines = [
        shlex.quote(guest.qemu),
        f'-machine {variant.machine} -accel kvm -accel tcg',
        f'-cpu max -smp {variant.cpus} -m 1G',
        '-object iothread,id=iothread1',
        f'-blockdev driver=file,node-name=file0,filename={IMAGE},'
        f'aio={aio},cache.direct={direct},discard=unmap',
        f'-blockdev driver=raw,node-name=disk0,file=file0,'
        f'cache.direct={direct},discard=unmap',
        f'-device {variant.driver},drive=disk0,iothread=iothread1,'
        f'serial={variants.SERIAL}']
    return 'On the command line:\n' + ' \\\n    '.join(lines)


def libvirt_xml(guest):
    variant = guest.variant
    text = DOMAIN.format(
        cpus=variant.cpus, iothreads=variant.iothreads,
        machine=variant.machine, qemu=_escape(guest.qemu), image=IMAGE,
        serial=variants.SERIAL,
        cache='none' if guest.direct else 'writeback',
        io='native' if guest.direct else 'threads')
    return "In libvirt's XML:\n" + text


def _escape(text):
    for plain, safe in (('&', '&amp;'), ('<', '&lt;'), ("'", '&apos;')):
        text = text.replace(plain, safe)
    return text
