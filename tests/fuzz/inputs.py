# SPDX-License-Identifier: GPL-2.0-or-later
"""Inputs of the harnesses, which are kept as text: "NAME: HEX", # a comment.

    inputs.py unpack FILE DIR   write each input of FILE to DIR/NAME
    inputs.py pack FOLDER       print the files of FOLDER in that form
"""

import os
import sys


def unpack(path, folder):
    os.makedirs(folder, exist_ok=True)
    with open(path, encoding='utf-8') as f:
        for line in f:
            if line.strip() and not line.startswith('#'):
                name, data = line.split(':')
                with open(os.path.join(folder, name), 'wb') as out:
                    out.write(bytes.fromhex(data))


def pack(folder):
    for name in sorted(os.listdir(folder)):
        with open(os.path.join(folder, name), 'rb') as f:
            print(f'{name[:12]}: {f.read().hex()}')


if len(sys.argv) == 4 and sys.argv[1] == 'unpack':
    unpack(sys.argv[2], sys.argv[3])
elif len(sys.argv) == 3 and sys.argv[1] == 'pack':
    pack(sys.argv[2])
else:
    sys.exit(__doc__)
