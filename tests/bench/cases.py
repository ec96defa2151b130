# SPDX-License-Identifier: GPL-2.0-or-later
"""What scripts/bench runs: backends, cases, and the figures to reach."""

import json

import nbd

MIB = 1 << 20

# Small enough for the page cache of a small machine to keep it.
FILE_SIZE = 256 * MIB

# Guest memory registered with io_uring, as the bare loop has its own.
REGISTERED = "register-memory='on'"


class Backend:
    """A way to give a file, or nothing, to the device.

    where  'disk' or 'memory': which file; None: no file
    nbd    the file is behind an NBD server
    bare   whether io_uring can do the same on the file without QEMU
    """

    def __init__(self, name, where=None, aio='io_uring', direct=False,
                 fmt='raw', throttle=False, nbd=False):
        self.name = name
        self.where = where
        self.aio = aio
        self.direct = direct
        self.fmt = fmt
        self.throttle = throttle
        self.nbd = nbd
        self.bare = where is not None and fmt == 'raw' and not (throttle or
                                                                nbd)

    def blockdevs(self, path):
        """
        The -blockdev arguments; the last one's node-name is drive0.  @path is
        the server's socket for NBD.
        """
        if self.nbd:
            return [{'driver': 'nbd', 'export': nbd.Server.EXPORT,
                     'server': {'type': 'unix', 'path': path},
                     'node-name': 'drive0'}]
        if self.where is None:
            return [{'driver': 'null-co', 'size': 1024 * MIB,
                     'read-zeroes': False, 'node-name': 'drive0'}]
        nodes = [{'driver': 'file', 'filename': path, 'aio': self.aio,
                  'discard': 'unmap', 'cache': {'direct': self.direct}}]
        if self.fmt != 'raw':
            nodes.append({'driver': self.fmt, 'file': 'node0',
                          'cache': {'direct': self.direct}})
        if self.throttle:
            nodes.append({'driver': 'throttle', 'file': f'node{len(nodes)-1}',
                          'throttle-group': 'limits'})
        for i, node in enumerate(nodes):
            node['node-name'] = f'node{i}'
        nodes[-1]['node-name'] = 'drive0'
        return nodes

    def arguments(self, path):
        """Arguments of vblk-bench."""
        out = []
        if self.throttle:
            # A limit that is never met: what the accounting costs.
            out += ['--qemu-arg=-object',
                    '--qemu-arg=throttle-group,id=limits,'
                    'x-iops-total=1000000000']
        return out + ['--blockdev=' + json.dumps(n)
                      for n in self.blockdevs(path)]


BACKENDS = {b.name: b for b in [
    Backend('null'),
    Backend('cache', 'disk'),
    Backend('cache-threads', 'disk', aio='threads'),
    Backend('memory', 'memory'),
    Backend('disk', 'disk', direct=True),
    Backend('disk-native', 'disk', direct=True, aio='native'),
    Backend('qcow2', 'disk', fmt='qcow2'),
    Backend('throttled', 'disk', throttle=True),
    Backend('nbd', 'disk', nbd=True),
]}


class Case:
    """One load on one backend.

    want  figures to reach, ours against stock unless the name says else:
          iops, cost, latency: ratios; iops_bare: ours against io_uring;
          cost_above: (ours - io_uring) / (stock - io_uring).
          'same' stands for "not slower": only noise is allowed.
    own   properties that only our device has
    """

    def __init__(self, name, backend, want=None, peers=False, aa=False,
                 quick=False, own=None, **options):
        self.name = name
        self.backend = BACKENDS[backend]
        self.want = want or {'iops': 'same'}
        self.peers = peers
        self.aa = aa
        self.quick = quick
        self.own = own
        self.options = {'load': 'randread', 'depth': 32}
        self.options.update(options)
        # Sleeping threads wake each other for every request.
        self.waking = (self.options.get('wait') == 'irq' and
                       self.options['depth'] == 1)

    def arguments(self):
        return [f'--{k.replace("_", "-")}={v}'
                for k, v in self.options.items()]


def targets():
    """The cases that the project has promised figures for."""
    null = {'iops': 1.4, 'cost': 0.7}
    read = {'iops': 1.7, 'iops_bare': 0.6, 'cost_above': 0.35}
    write = {'iops': 1.5, 'cost_above': 0.35}
    one = {'iops': 1.5, 'latency': 0.85}
    disk = {'iops': 'same', 'cost_above': 0.4}
    return [
        Case('null-randread-32', 'null', null, peers=True, aa=True,
             quick=True),
        Case('null-randread-128', 'null', null, depth=128),
        Case('cache-randread-32', 'cache', read, peers=True, aa=True,
             quick=True),
        Case('cache-randread-128', 'cache', read, peers=True, depth=128),
        Case('cache-randwrite-32', 'cache', write, peers=True, quick=True,
             load='randwrite'),
        Case('cache-randwrite-128', 'cache', write, peers=True, depth=128,
             load='randwrite'),
        Case('cache-randread-1', 'cache', one, peers=True, quick=True,
             depth=1),
        Case('cache-randread-1-irq', 'cache', one, depth=1, wait='irq'),
        Case('cache-read-32', 'cache', {'iops': 1.4}, peers=True, quick=True,
             load='read'),
        Case('cache-randread-4q2t', 'cache', {'iops': 1.6}, peers=True,
             queues=4, iothreads=2),
        Case('disk-randread-32', 'disk', disk, peers=True, aa=True,
             quick=True),
        Case('disk-randwrite-32', 'disk', disk, peers=True,
             load='randwrite'),
        Case('disk-randread-32-registered', 'disk', disk, peers=True, aa=True,
             own=REGISTERED),
        Case('disk-randwrite-32-registered', 'disk', disk, peers=True,
             own=REGISTERED, load='randwrite'),
        Case('disk-native-randread-32', 'disk-native', aa=True),
        Case('cache-threads-randread-32', 'cache-threads'),
        Case('qcow2-randread-32', 'qcow2', aa=True, quick=True),
        Case('throttled-randread-32', 'throttled'),
    ]


def matrix():
    """Each knob turned by itself, on null-co and on a cached file."""
    out = []
    for backend in ('null', 'cache'):
        for name, options in [
                ('randread-1', {'depth': 1}),
                ('randread-8', {'depth': 8}),
                ('randread-32-irq', {'wait': 'irq'}),
                ('read-32-unmerged', {'load': 'read',
                                      'device': 'request-merging=off'}),
                ('randread-32-direct', {'indirect': 'off'}),
                ('randread-32-packed', {'packed': 'on'}),
                ('randread-32-packed-direct', {'packed': 'on',
                                               'indirect': 'off'}),
                ('randread-32-no-event-idx', {'event-idx': 'off'}),
                ('randread-32-64k', {'bs': '64k'}),
                ('randread-8-1m', {'bs': '1m', 'depth': 8}),
                ('randread-32-64k-16segs', {'bs': '64k', 'segs': 16}),
                ('randread-2q1t', {'queues': 2}),
                ('randread-2q2t', {'queues': 2, 'iothreads': 2}),
                ('write-32', {'load': 'write'}),
                ('randrw-32', {'load': 'randrw'}),
                ('flush-8', {'load': 'flush', 'depth': 8}),
                ('discard-32', {'load': 'discard'})]:
            name = f'{backend}-{name}'
            if name not in {c.name for c in targets()}:
                out.append(Case(name, backend, peers=backend == 'cache' and
                                'wait' not in options and
                                'device' not in options, **options))
    for load in ('randwrite', 'read', 'write', 'randrw', 'flush'):
        out.append(Case(f'qcow2-{load}-32', 'qcow2', load=load))
    for load in ('randread', 'randwrite', 'read', 'flush'):
        out.append(Case(f'nbd-{load}-32', 'nbd', aa=load == 'randread',
                        load=load))
    out += [
        Case('memory-randread-32', 'memory', peers=True),
        Case('memory-randwrite-32', 'memory', peers=True, load='randwrite'),
        Case('disk-randread-1', 'disk', peers=True, depth=1),
        Case('disk-native-randwrite-32', 'disk-native', load='randwrite'),
        Case('disk-read-8-1m', 'disk', load='read', bs='1m', depth=8),
        Case('disk-randread-32-64k-16segs', 'disk', peers=True, bs='64k',
             segs=16),
        Case('disk-randread-32-64k-16segs-registered', 'disk', peers=True,
             own=REGISTERED, bs='64k', segs=16),
    ]
    return out


def verify_cases():
    """Right answers, under the settings that ways through the device
    depend on."""
    cases = []
    for i, options in enumerate([
            {'load': 'randrw'},
            {'load': 'trimmix', 'depth': 64},
            {'load': 'write'},
            {'load': 'writezeroes', 'depth': 8},
            {'load': 'flush', 'packed': 'on'},
            {'load': 'randrw', 'packed': 'on', 'indirect': 'off',
             'wait': 'irq'},
            {'load': 'randrw', 'queues': 4, 'iothreads': 2, 'wait': 'irq'},
            {'load': 'randrw', 'bs': '64k', 'segs': 16, 'depth': 16},
            {'load': 'randrw', 'event_idx': 'off', 'indirect': 'off'}]):
        for backend in ('cache', 'disk', 'disk-native', 'qcow2', 'nbd'):
            name = '-'.join(f'{v}' if k == 'load' else f'{k}={v}'
                            for k, v in options.items())
            own = REGISTERED if backend == 'disk' else None
            cases.append(Case(f'verify-{backend}-{name}', backend, own=own,
                              quick=i < 2, verify='on', region='32m',
                              **options))
    return cases
