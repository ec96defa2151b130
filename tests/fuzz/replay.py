# SPDX-License-Identifier: GPL-2.0-or-later
"""Give a QEMU the register accesses of a file, one qtest command a line.

    replay.py QEMU FILE...

A file starts with a line "# args: ARGUMENTS" of QEMU.  QEMU must answer each
command, answer QMP after the last one, and quit when it is told to.
"""

import json
import os
import shlex
import socket
import subprocess
import sys
import tempfile

TIMEOUT = 60


def connect(folder, name):
    s = socket.socket(socket.AF_UNIX)
    s.bind(os.path.join(folder, name))
    s.listen(1)
    s.settimeout(TIMEOUT)
    return s


def commands(path):
    args, lines = None, []
    with open(path, encoding='utf-8') as f:
        for line in f:
            if line.startswith('# args:'):
                args = line[len('# args:'):].strip()
            elif line.strip() and not line.startswith('#'):
                lines.append(line)
    if args is None:
        sys.exit(f'error: {path} has no line "# args:"')
    return args, lines


def ask(stream, line):
    stream.write(line)
    stream.flush()
    while True:
        answer = stream.readline()
        if not answer:
            raise RuntimeError(f'QEMU closed its socket at: {line.strip()}')
        if not answer.startswith('IRQ'):
            return answer


def qmp(stream, command):
    stream.write(json.dumps({'execute': command}) + '\n')
    stream.flush()
    while True:
        answer = stream.readline()
        if not answer:
            raise RuntimeError(f'QEMU closed its monitor at: {command}')
        if '"return"' in answer:
            return
        if '"error"' in answer:
            raise RuntimeError(answer.strip())


def replay(qemu, path):
    args, lines = commands(path)
    with tempfile.TemporaryDirectory() as folder:
        disk = os.path.join(folder, 'disk')
        with open(disk, 'wb') as f:
            f.truncate(32 << 20)
        listen = [connect(folder, 'qtest'), connect(folder, 'qmp')]
        process = subprocess.Popen(
            [qemu, '-display', 'none', '-accel', 'qtest', '-m', '512',
             '-qtest-log', 'none', '-qtest', f'unix:{folder}/qtest',
             '-qmp', f'unix:{folder}/qmp'] +
            shlex.split(args.replace('@DISK@', disk)),
            stdin=subprocess.DEVNULL)
        try:
            streams = []
            for s in listen:
                c = s.accept()[0]
                c.settimeout(TIMEOUT)
                streams.append(c.makefile('rw', encoding='utf-8'))
            for line in lines:
                ask(streams[0], line)
            qmp(streams[1], 'qmp_capabilities')
            qmp(streams[1], 'query-status')
            qmp(streams[1], 'quit')
            code = process.wait(TIMEOUT)
            if code:
                raise RuntimeError(f'QEMU ended with {code}')
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


for name in sys.argv[2:]:
    try:
        replay(sys.argv[1], name)
    except (OSError, RuntimeError, subprocess.TimeoutExpired) as e:
        sys.exit(f'error: {name}: {e}')
if len(sys.argv) < 3:
    sys.exit(__doc__)
