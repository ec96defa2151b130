# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands of the documents that cannot run here as they stand."""

import re

# Pages whose commands another part runs, and the file there that reads them.
OTHER_PARTS = {
    'docs/libvirt.rst': ('libvirt', 'tests/libvirt/run'),
    'docs/migration.rst': ('migration', 'tests/migration/docs.py'),
}

# Pages whose commands change the sources: they run in a configured copy.
IN_A_COPY = ('docs/adding-a-request.rst',)

# A command that matches is not run: why.
SKIPPED = (
    (r'^modprobe ', 'needs a host whose kernel takes modules; part kernel '
                    'loads it in a VM'),
    (r'driver=nbd', 'needs an NBD server; part migration cuts one off'),
    (r'driver=rbd', 'needs a Ceph cluster; tests/guest/scenes ceph makes one'),
    (r'usdt:', 'needs a build with another trace backend'),
    (r'^scripts/(install|build-packages)|^(apt|apt-get|dpkg) ',
     'changes the machine; the parts install and packages run it'),
    (r'^scripts/check', 'it is what runs this test'),
    (r'^scripts/demo', 'it boots what part guest boots'),
)

# What may be run here without a second thought.  Another command fails until
# this file says what is to become of it.
KNOWN = (r'^(build/)?qemu-(system-x86_64|img|io|nbd) '
         r'|^scripts/(setup|bench|virtio-blk-top)\b|^\./configure$|^ninja ')

# A command that matches is run like this, and what is not done then.
CHANGED = (
    (r'^ninja -C build$', r'\g<0> -n qemu-system-x86_64',
     'dry run; part configure builds'),
    (r'^scripts/bench.*', r'\g<0> --list', 'listed only; part bench measures'),
    (r'^scripts/virtio-blk-top.*', r'\g<0> --count 1', 'one look'),
)

# What stands for places that the reader has.
PLACES = (
    ('/path/to', '{here}'),
    ('/run/vm/', '{here}/run/'),
    ('/dev/vg0/guest', '{here}/fake/image'),
    ('/dev/sdb', '{here}/fake/image'),
)

# How tests/fakehost's /dev/vhost-blk must be for a message; None: not there.
FAKE_VHOST = (
    ('/dev/vhost-blk is not there', None),
    ('has version 2', {'FAKEHOST_VHOST_ABI': '2'}),
    ('lacks features 0x4', {'FAKEHOST_VHOST_LACKS': '4'}),
)

# What "..." stands for in a command: pages say so.
DOTS = ('-machine q35 -m 1G -blockdev driver=file,node-name=file0,'
        'filename=disk.img -blockdev driver=raw,node-name=disk0,file=file0')


def why_skipped(command):
    return next((why for pattern, why in SKIPPED
                 if re.search(pattern, command)), None)


def is_known(command):
    return re.search(KNOWN, command) is not None


def changed(command):
    """The command as it is run, and what was changed or None."""
    command = re.sub(r'\s+# .*', '', command) if '\n' not in command \
        else command
    for pattern, instead, what in CHANGED:
        if re.search(pattern, command):
            return re.sub(pattern, instead, command, count=1), what
    return command, None


def fake_vhost(expected):
    """Environment for that, {} for an ordinary one, or None."""
    expected = ' '.join(expected.split())
    return next((env for text, env in FAKE_VHOST if text in expected), {})


def placed(text, here):
    for name, place in PLACES:
        text = text.replace(name, place.format(here=here))
    return text
