# SPDX-License-Identifier: GPL-2.0-or-later
"""One domain with every element and attribute that libvirt can put on a
virtio disk, each value on a disk of its own."""

import os
import xml.etree.ElementTree as ET

# Attributes of <driver>, value by value.
DRIVER = {
    'cache': ('default', 'none', 'writethrough', 'writeback', 'directsync',
              'unsafe'),
    'error_policy': ('stop', 'report', 'ignore', 'enospace'),
    'rerror_policy': ('stop', 'report', 'ignore'),
    'io': ('threads', 'native', 'io_uring'),
    'ioeventfd': ('on', 'off'),
    'event_idx': ('on', 'off'),
    'copy_on_read': ('on', 'off'),
    'discard': ('unmap', 'ignore'),
    'detect_zeroes': ('off', 'on', 'unmap'),
    'iothread': ('1', '2'),
    'queues': ('1', '4'),
    'queue_size': ('64', '256'),
    'packed': ('on', 'off'),
    'page_per_vq': ('on', 'off'),
    'iommu': ('on', 'off'),
    'ats': ('on', 'off'),
}
# What these need beside them.
WITH = {('io', 'native'): {'cache': 'none'},
        ('iommu', 'on'): {'model': 'virtio-non-transitional'},
        ('ats', 'on'): {'model': 'virtio-non-transitional', 'iommu': 'on'},
        ('iommu', 'off'): {'model': 'virtio-non-transitional'},
        ('ats', 'off'): {'model': 'virtio-non-transitional'}}
MODELS = ('virtio', 'virtio-transitional', 'virtio-non-transitional')
# Elements of <disk>, as XML.
ELEMENTS = (
    '<readonly/>', '<shareable/>', '<serial>0123456789abcdefghij</serial>',
    '<boot order="2"/>', '<boot order="1" loadparm="A"/>',
    '<geometry cyls="128" heads="16" secs="63"/>',
    '<blockio logical_block_size="512" physical_block_size="4096"/>',
    '<blockio logical_block_size="4096" physical_block_size="4096"/>',
    '<transient/>', '<transient shareBacking="no"/>',
    '<alias name="ua-disk"/>', '<acpi index="7"/>',
    '<iotune><total_bytes_sec>10485760</total_bytes_sec>'
    '<total_bytes_sec_max>20971520</total_bytes_sec_max>'
    '<total_bytes_sec_max_length>2</total_bytes_sec_max_length></iotune>',
    '<iotune><read_iops_sec>1000</read_iops_sec>'
    '<write_iops_sec>2000</write_iops_sec>'
    '<read_iops_sec_max>3000</read_iops_sec_max>'
    '<write_iops_sec_max>4000</write_iops_sec_max>'
    '<read_iops_sec_max_length>2</read_iops_sec_max_length>'
    '<write_iops_sec_max_length>2</write_iops_sec_max_length></iotune>',
    '<iotune><read_bytes_sec>10485760</read_bytes_sec>'
    '<write_bytes_sec>10485760</write_bytes_sec>'
    '<group_name>group1</group_name></iotune>',
    '<iotune><read_bytes_sec>10485760</read_bytes_sec>'
    '<write_bytes_sec>10485760</write_bytes_sec>'
    '<read_bytes_sec_max>20971520</read_bytes_sec_max>'
    '<write_bytes_sec_max>20971520</write_bytes_sec_max>'
    '<read_bytes_sec_max_length>2</read_bytes_sec_max_length>'
    '<write_bytes_sec_max_length>2</write_bytes_sec_max_length></iotune>',
    '<iotune><total_iops_sec>500</total_iops_sec>'
    '<total_iops_sec_max>600</total_iops_sec_max>'
    '<total_iops_sec_max_length>2</total_iops_sec_max_length>'
    '<size_iops_sec>4096</size_iops_sec>'
    '<group_name>group2</group_name></iotune>',
)
# Put into <source>, or attributes of it.
SOURCES = (
    {'startupPolicy': 'mandatory'},
    {'startupPolicy': 'optional'}, {'index': '77'},
    '<slices><slice type="storage" offset="4096" size="524288"/></slices>',
)
QCOW2 = ('<driver name="qemu" type="qcow2"><metadata_cache>'
         '<max_size unit="bytes">1048576</max_size></metadata_cache></driver>',)
SKIPPED = ('loadparm', 'acpi')      # s390x; PCI hot plug of pc with a NIC


def disks():
    """(attributes of the disk, of its driver, its elements)."""
    for name, values in DRIVER.items():
        for value in values:
            more = dict(WITH.get((name, value), {}))
            model = more.pop('model', 'virtio')
            yield {'model': model}, {name: value, **more}, ()
    for model in MODELS:
        yield {'model': model}, {}, ()
    for element in ELEMENTS:
        if not any(word in element for word in SKIPPED):
            yield {'model': 'virtio'}, {}, (element,)
    for how in ('no', 'manual', 'internal', 'external'):
        yield {'model': 'virtio', 'snapshot': how}, {}, ()


def _disk(number, attributes, driver, elements, image, source=()):
    disk = ET.Element('disk', type='file', device='disk', **attributes)
    ET.SubElement(disk, 'driver', name='qemu', type='raw', **driver)
    if isinstance(source, str):
        ET.SubElement(disk, 'source', file=image).append(ET.fromstring(source))
    else:
        ET.SubElement(disk, 'source', file=image, **dict(source))
    letters = 'abcdefghijklmnopqrstuvwxyz'
    name = letters[number // 26 - 1] if number >= 26 else ''
    ET.SubElement(disk, 'target', dev=f'vd{name}{letters[number % 26]}',
                  bus='virtio')
    for element in elements:
        disk.append(ET.fromstring(element))
    # functions of the same slots of pc's bus
    ET.SubElement(disk, 'address', type='pci', domain='0', bus='0',
                  slot=hex(4 + number // 8), function=hex(number % 8),
                  multifunction='off' if number % 8 else 'on')
    return disk


def domain(emulator, folder):
    """XML text and how many disks; makes the images."""
    root = ET.fromstring(f'''<domain type='qemu'><name>everything</name>
        <memory unit='MiB'>128</memory><vcpu>4</vcpu><iothreads>2</iothreads>
        <os><type arch='x86_64' machine='pc'>hvm</type></os>
        <features><acpi/></features>
        <devices><emulator>{emulator}</emulator>
        <controller type='usb' model='none'/><memballoon model='none'/>
        </devices></domain>''')
    devices = root.find('devices')
    number = 0
    wanted = [*disks(), *(({'model': 'virtio'}, {}, (), source)
                          for source in SOURCES)]
    for number, (attributes, driver, elements, *source) in enumerate(wanted, 1):
        image = os.path.join(folder, f'every{number}.img')
        with open(image, 'wb') as file:
            file.truncate(1 << 20)
        devices.append(_disk(number - 1, attributes, driver, elements, image,
                             *source))
    number += 1
    image = os.path.join(folder, 'every.qcow2')
    disk = _disk(number - 1, {'model': 'virtio'}, {}, (), image)
    disk.remove(disk.find('driver'))
    disk.insert(0, ET.fromstring(QCOW2[0]))
    devices.append(disk)
    return ET.tostring(root, encoding='unicode'), number, image
