# SPDX-License-Identifier: GPL-2.0-or-later
"""Add up what gcov says of our files; called by scripts/coverage."""

import argparse
import collections
import json
import os
import re
import sys

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument('--bar', type=float, required=True)
parser.add_argument('--top', required=True)
parser.add_argument('--lines', required=True)
args = parser.parse_args()

lines = collections.defaultdict(dict)
for text in sys.stdin:
    text = text.strip()
    if not text:
        continue
    for entry in json.loads(text)['files']:
        m = re.search(r'hw/block/virtio-blk/([a-z-]+\.[ch])$', entry['file'])
        if not m:
            continue
        of = lines[m.group(1)]
        for line in entry['lines']:
            n = line['line_number']
            of[n] = max(of.get(n, 0), line['count'])

folder = os.path.join(args.top, 'hw/block/virtio-blk')
for name in os.listdir(folder):
    if name.endswith('.c') and name not in lines:
        sys.exit(f'error: no figures for {name}; is it built with --coverage?')

total = hit = 0
with open(args.lines, 'w', encoding='utf-8') as out:
    for name in sorted(lines):
        of = lines[name]
        reached = sum(1 for c in of.values() if c)
        total += len(of)
        hit += reached
        print(f'   {name:20} {reached:4} of {len(of):4}  '
              f'{100 * reached / len(of):5.1f}%')
        with open(os.path.join(folder, name), encoding='utf-8') as f:
            source = f.read().splitlines()
        for n in sorted(of):
            if not of[n]:
                out.write(f'{name}:{n}: {source[n - 1].strip()}\n')
percent = 100 * hit / total
print(f'lines of our files reached: {percent:.1f}% of {total} '
      f'(the bar is {args.bar:.0f}%); missed: {args.lines}')
sys.exit(percent < args.bar)
