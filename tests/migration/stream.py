# SPDX-License-Identifier: GPL-2.0-or-later
"""A device's section in a migration stream.

A stream is made of sections: type, id, then for a full section the length of
its name, the name, instance and version (32 bits each, big endian), the
device's own bytes, and a footer with the id again.  Memory has sections of
other types, and nothing says how long a section is: the name is searched for,
then the footer that another section or the end follows."""


from qtest import Failure

FULL, FOOTER = 0x04, 0x7e
AFTER = (0x00, 0x04, 0x06)      # end of stream, full section, description


def sections(stream, wanted):
    """(name, bytes from the header to the footer) where wanted is in the
    name."""
    found = []
    at = stream.find(wanted)
    while at >= 0:
        # the name may begin before the words, with a bus address
        for back in range(64):
            start = at - back
            if start >= 6 and stream[start - 6] == FULL and (
                    stream[start - 1] >= back + len(wanted)):
                found.append(_whole(stream, start))
                break
        at = stream.find(wanted, at + 1)
    return found


def _whole(stream, start):
    ident = stream[start - 5:start - 1]
    length = stream[start - 1]
    name = stream[start:start + length].decode('ascii')
    end = stream.find(bytes([FOOTER]) + ident, start + length)
    while end >= 0:
        if stream[end + 5] in AFTER:
            # the id counts the machine's devices: not the device's own
            return name, stream[start - 1:end]
        end = stream.find(bytes([FOOTER]) + ident, end + 1)
    raise Failure(f'section {name} has no end')


def section(path, wanted=b'virtio-blk'):
    """The only section of that name."""
    with open(path, 'rb') as file:
        found = sections(file.read(), wanted)
    if len(found) != 1:
        raise Failure(f'{len(found)} sections with {wanted} in their name')
    return found[0]


def difference(mine, other):
    """In words where two sections differ, or None."""
    if mine == other:
        return None
    for at, (one, two) in enumerate(zip(mine[1], other[1])):
        if one != two:
            return (f'byte {at} of {mine[0]}: {one:#04x} and {two:#04x}; '
                    f'lengths {len(mine[1])} and {len(other[1])}')
    return (f'{mine[0]} and {other[0]}, lengths {len(mine[1])} and '
            f'{len(other[1])}')
