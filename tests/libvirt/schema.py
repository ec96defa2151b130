# SPDX-License-Identifier: GPL-2.0-or-later
"""What libvirt's own schema lets stand in a <disk>, and what of it no domain of
ours has, with the reason."""

import fnmatch
import os
import xml.etree.ElementTree as ET

PLACE = '/usr/share/libvirt/schemas'
RNG = '{http://relaxng.org/ns/structure/1.0}'
# Pattern of what is left out: why.  Paths are as "disk/driver@io=native".
LEFT_OUT = {
    # other buses, other machines
    'disk@device=*': 'no disk, or "lun": docs/libvirt.rst, test scsi-flags',
    'disk@rawio*': 'of device="lun" only',
    'disk@sgio*': 'of device="lun" only',
    'disk/target@bus=*': 'another bus',
    'disk/target@removable*': 'of USB disks only',
    'disk/target@rotation_rate*': 'of SCSI and IDE disks only',
    'disk/target@tray*': 'of CD and floppy drives only',
    'disk/geometry@trans*': 'of IDE disks only',
    'disk/vendor': 'of SCSI disks only',
    'disk/product': 'of SCSI disks only',
    'disk/wwn': 'of SCSI and IDE disks only',
    'disk/address@type=*': 'another bus or machine',
    'disk/address@[!tdbsfm]*': 'of other buses and machines',
    'disk/address@ssid': 'of s390x only',
    'disk/address@devno': 'of s390x only',
    'disk/address@target': 'of SCSI disks only',
    'disk/transient@shareBacking=yes': 'has the disk plugged after the start, '
                                       'where a bus of pc takes no function',
    'disk/backingStore': 'of the block layer; whole chains: test snapshot',
    'disk/address@base': 'of memory modules only',
    'disk/address/zpci*': 'of s390x only',
    'disk/boot@loadparm': 'of s390x only',
    'disk/acpi*': 'of network cards only, in 9.0',
    'disk/backenddomain*': 'of Xen only',
    # what libvirt itself writes
    'disk/mirror*': 'written by libvirt while a copy runs: test blockcopy',
    'disk/privateData*': 'written by libvirt only',
    # storage below the disk, which is the block layer's
    'disk@type=dir': 'not a disk of its own: FAT of the block layer',
    'disk@type=nvme': 'needs a PCI device to be given away',
    'disk@type=vhostuser': 'another device: vhost-user-blk',
    'disk@type=volume': 'a name of libvirt for one of the other types',
    'disk@type=block': 'no block device is a nobody\'s: test libvirt-system '
                       'and tests/vm have them',
    'disk/driver@type=*': 'another format of the block layer',
    'disk/auth*': 'of Ceph and iSCSI, see tests/guest/ceph.py',
    'disk/encryption*': 'of the block layer (LUKS), not in this build',
    'disk/source/address*': 'of type="nvme" only',
    'disk/source/auth*': 'of Ceph and iSCSI, see tests/guest/ceph.py',
    'disk/source/config*': 'of Ceph, see tests/guest/ceph.py',
    'disk/source/snapshot*': 'of Ceph, see tests/guest/ceph.py',
    'disk/source/initiator*': 'of iSCSI only',
    'disk/source/identity*': 'of NFS only',
    'disk/source/cookies*': 'of HTTP only',
    'disk/source/readahead*': 'of HTTP only',
    'disk/source/timeout*': 'of HTTP only',
    'disk/source/ssl*': 'of HTTP only',
    'disk/source/encryption*': 'of the block layer (LUKS), not in this build',
    'disk/source/reconnect*': 'of NBD, whose server tests/migration cuts off',
    'disk/source/reservations*': 'of device="lun" only',
    'disk/source/privateData': 'written by libvirt only',
    'disk/source/seclabel*': 'a session has no security driver; what the '
                             'labels do: test libvirt-system',
    'disk/source@dev': 'of type="block" only',
    'disk/source@dir': 'of type="dir" only',
    'disk/source@fdgroup': 'names files that a client of libvirt has sent',
    'disk/source@ma*': 'of type="nvme" only',
    'disk/source@namespace': 'of type="nvme" only',
    'disk/source@mode*': 'of type="volume" only',
    'disk/source@pool': 'of type="volume" only',
    'disk/source@volume*': 'of type="volume" only',
    'disk/source@path': 'of type="vhostuser" only',
    'disk/source@type*': 'of type="vhostuser" and "nvme" only',
    'disk/source@name': 'of storage that is not here',
    'disk/source@protocol=*': 'of storage that is not here',
    'disk/source@startupPolicy=requisite': 'of CD and floppy drives only',
    'disk/source@query': 'of HTTP only',
    'disk/source@tls*': 'of NBD with certificates',
    'disk/source/host@transport=*': 'of storage that is not here',
    'disk/source/host@[np]*': 'of storage that is not here',
    'disk/backingStore/*': 'of the block layer; whole chains: test snapshot',
    'disk/backingStore@*': 'of the block layer; whole chains: test snapshot',
}


class Schema:
    def __init__(self):
        self.defined, self.read, self.paths = {}, set(), set()
        self._load('domain.rng')
        for one in self.defined['disk']:
            self._walk(one, '', ())

    def _load(self, name):
        if name in self.read:
            return
        self.read.add(name)
        root = ET.parse(os.path.join(PLACE, name)).getroot()
        for one in root.iter(RNG + 'include'):
            self._load(one.get('href'))
        for one in root.iter(RNG + 'define'):
            self.defined.setdefault(one.get('name'), []).append(one)

    def _walk(self, node, path, inside):
        """inside: the definitions being followed, which may be recursive."""
        for one in node:
            kind = str(one.tag).removeprefix(RNG)
            name = one.get('name')
            if kind == 'ref' and name not in inside:
                for there in self.defined[name]:
                    self._walk(there, path, (*inside, name))
            elif kind == 'element':
                below = f'{path}/{name}'.lstrip('/')
                self.paths.add(below)
                self._walk(one, below, inside)
            elif kind == 'attribute':
                self.paths.add(f'{path}@{name}')
                self._walk(one, f'{path}@{name}', inside)
            elif kind == 'value':
                self.paths.add(f'{path}={one.text}')
            elif kind not in ('ref', 'data', 'text', 'empty'):
                self._walk(one, path, inside)


def used(texts):
    """The paths of all <disk> elements in these domains."""
    found = set()

    def add(node, path):
        found.update((path, f'{path}={(node.text or "").strip()}'))
        for name, value in node.items():
            found.update((f'{path}@{name}', f'{path}@{name}={value}'))
        for child in node:
            add(child, f'{path}/{child.tag}')

    for text in texts:
        for disk in ET.fromstring(text).iter('disk'):
            add(disk, 'disk')
    return found


def compare(texts):
    """(what nobody uses and no reason is given for, reasons for nothing)."""
    missing = Schema().paths - used(texts)
    excused = {pattern: fnmatch.filter(missing, pattern)
               for pattern in LEFT_OUT}
    return (sorted(missing.difference(*excused.values())),
            [pattern for pattern, paths in excused.items() if not paths])
