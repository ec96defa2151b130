# SPDX-License-Identifier: GPL-2.0-or-later
"""Instructions per request, counted by valgrind's callgrind.

A count does not depend on what else the machine does.  The device is given
requests in lock step (a full batch, then all its completions) with adaptive
polling off, so that a run differs from another by its number of requests
only; two runs are made, and the difference is what the requests cost, free of
what starting costs.  Only the threads beside the main one count.
"""

import glob
import os
import re
import shutil
import subprocess

COUNTS = (2000, 12000)

# valgrind counts a "rep" string store once for each step it makes.  glibc is
# told to use plain vector loops, whose count says what they do.
TUNABLES = ':'.join(f'glibc.cpu.x86_rep_{f}_threshold=1000000000'
                    for f in ('stosb', 'movsb'))

# First match wins; by source file, then by function.
PARTS = [
    ('virtio-blk', r'hw/block/virtio-blk|virtio_blk'),
    ('ring', r'hw/virtio/|virtqueue|vring|virtio'),
    ('memory', r'system/(physmem|memory|dma|ram_addr)|exec/|int128|flatview|'
               r'address_space'),
    ('clear and copy', r'mem(set|cpy|move|cmp)|sysdeps/.*/mem'),
    ('malloc', r'malloc|arena\.c|gmem|gslice'),
    ('block layer', r'block/|block\.c|block-backend|bdrv|blk_|throttle|'
                    r'qcow'),
    ('io_uring', r'io_uring|liburing|luring'),
    ('event loop', r'aio|async\.c|event_notifier|main-loop|poll|fdmon|'
                   r'defer-call|iothread|timer'),
    ('coroutines', r'coroutine'),
    ('locks, RCU', r'mutex|rcu|lockable|nptl|lockcnt|qemu-thread|__pthread'),
    ('objects', r'qom/|object_|gobject'),
    ('iov', r'iov|qiov'),
]


class Unavailable(Exception):
    """Nothing can be counted here; the text says why."""


def part_of(text):
    for name, pattern in PARTS:
        if re.search(pattern, text):
            return name
    return 'other'


def parse(path):
    """Self instructions of each function in one callgrind file."""
    names = {}
    costs = {}
    here = file_name = None
    skip = False

    def name_of(field):
        m = re.match(r'\((\d+)\)(?: (.*))?', field)
        if not m:
            return field
        kind = name_of.kind
        if m.group(2) is not None:
            names[kind, m.group(1)] = m.group(2)
        return names.get((kind, m.group(1)), '?')

    with open(path, encoding='utf-8', errors='replace') as f:
        for line in f:
            line = line.rstrip('\n')
            key, eq, val = line.partition('=')
            if eq and key in ('fl', 'fi', 'fe', 'cfi', 'cfl'):
                name_of.kind = 'file'
                value = name_of(val)
                if key in ('fl', 'fi', 'fe'):
                    file_name = value
            elif eq and key in ('fn', 'cfn'):
                name_of.kind = 'fn'
                value = name_of(val)
                if key == 'fn':
                    here = value
            elif eq and key in ('ob', 'cob'):
                name_of.kind = 'ob'
                name_of(val)
            elif key == 'calls':
                skip = True         # the next line is the callee's cost
            elif line[:1] in '0123456789+-*' and line and here:
                if skip:
                    skip = False
                    continue
                fields = line.split()
                if len(fields) > 1:
                    where = (file_name or '?', here)
                    costs[where] = costs.get(where, 0) + int(fields[1])
    return costs


def one_run(bench, binary, arguments, count, prefix):
    for old in glob.glob(prefix + '*'):
        os.unlink(old)
    wrap = ('valgrind --tool=callgrind --separate-threads=yes '
            f'--fair-sched=yes --callgrind-out-file={prefix}')
    r = subprocess.run(
        [bench, f'--binary={binary}', f'--wrap={wrap}', f'--count={count}',
         '--freeze=off', '--poll-max-ns=0', '--timeout=120', '--depth=32',
         '--batch=32'] + arguments,
        capture_output=True, text=True, timeout=600,
        env=dict(os.environ, GLIBC_TUNABLES=TUNABLES))
    if r.returncode:
        lines = [x for x in r.stderr.splitlines() if not x.startswith('==')]
        raise RuntimeError('; '.join(lines[-2:]) or 'vblk-bench failed')
    costs = {}
    for path in glob.glob(prefix + '-*'):
        if path.endswith('-01'):
            continue
        for where, n in parse(path).items():
            costs[where] = costs.get(where, 0) + n
    return costs


def count(bench, binary, arguments, folder):
    """Instructions per request, and the functions that they are in."""
    if not shutil.which('valgrind'):
        raise Unavailable('valgrind is missing; apt-get install valgrind')
    few, many = (one_run(bench, binary, arguments, n,
                         os.path.join(folder, f'callgrind.{n}'))
                 for n in COUNTS)
    requests = COUNTS[1] - COUNTS[0]
    functions = {}
    for where in set(few) | set(many):
        n = (many.get(where, 0) - few.get(where, 0)) / requests
        if abs(n) >= 0.05:
            functions[where] = n
    parts = {}
    for (file_name, fn), n in functions.items():
        part = part_of(f'{file_name}:{fn}')
        parts[part] = parts.get(part, 0) + n
    top = sorted(functions.items(), key=lambda x: -x[1])
    return {
        'total': round(sum(functions.values()), 1),
        'parts': {k: round(v, 1) for k, v in
                  sorted(parts.items(), key=lambda x: -x[1])},
        'top': [[f'{os.path.basename(f)}:{fn}', round(n, 1)]
                for (f, fn), n in top[:40]],
    }
