# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks whose every sector is known, and what must become of them."""

from machine import Failure

SECTOR = 512
STEP = 0x6d25


def words(first):
    """The words first, first + STEP, ... that any sector is a piece of."""
    return b''.join((first + n * STEP & 0xffff).to_bytes(2, 'little')
                    for n in range(65536 + SECTOR // 2))


# STEP is odd: its multiples run through all 65536 words before they repeat.
ALL_WORDS = words(0)
INVERSE = pow(STEP, -1, 65536)


def pattern(first, count):
    """What sectors hold at first; boot.S computes the same."""
    starts = (2 * (number * 0x9e3b * INVERSE & 0xffff)
              for number in range(first, first + count))
    return b''.join(ALL_WORDS[start:start + SECTOR] for start in starts)


def put(data, first, piece):
    """Lay a piece over the sectors of a disk."""
    data[first * SECTOR:first * SECTOR + len(piece)] = piece


def compare(image, wanted):
    """The whole image must hold what is wanted."""
    with open(image, 'rb') as file:
        data = file.read()
    if data == wanted:
        return
    if len(data) != len(wanted):
        raise Failure(f'the image has {len(data)} bytes now')
    bad = [start // SECTOR for start in range(0, len(data), SECTOR)
           if data[start:start + SECTOR] != wanted[start:start + SECTOR]]
    raise Failure(f'{len(bad)} sectors of the image are wrong, '
                  f'the first is {bad[0]}')
