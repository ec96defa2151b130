# SPDX-License-Identifier: GPL-2.0-or-later
"""Run a page's commands in a configured copy of the sources.

All of them in one shell, since what one exports the next one needs.  The
copy's build is that of the clone but for what a page changes, so nearly all of
it comes from the compiler cache."""

import os
import signal
import subprocess

import pages
from place import Failure, matches

LIMIT = 900                 # seconds for all commands of a page
ENDED = '@ended '


def make(folder):
    """The files of the clone as they are now, configured."""
    tree = os.path.join(folder, 'tree')
    os.mkdir(tree)
    listed = subprocess.run(
        ['git', '-C', pages.TOP, 'ls-files', '-z', '--cached', '--others',
         '--exclude-standard'], capture_output=True, check=True)
    with subprocess.Popen(['tar', '-C', pages.TOP, '--null', '-T', '-',
                           '-cf', '-'], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as pack:
        with subprocess.Popen(['tar', '-C', tree, '-xf', '-'],
                              stdin=pack.stdout) as unpack:
            pack.stdin.write(listed.stdout)
            pack.stdin.close()
        if unpack.returncode:
            raise Failure('the sources cannot be copied')
    done = subprocess.run(['./configure'], cwd=tree, text=True, timeout=LIMIT,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise Failure(f'configure: {done.stdout.strip()[-300:]}')
    return tree


def script(steps):
    """The commands, each with a line on its end; stops at the first failure."""
    lines = ['exec 2>&1']
    for number, step in enumerate(steps):
        lines += [step.command, f'code=$?; echo "{ENDED}{number} $code"',
                  '[ $code = 0 ] || exit 1']
    return '\n'.join(lines)


def run_all(tree, steps):
    """What the commands print, and why they were stopped or None."""
    env = {**os.environ, 'CCACHE_BASEDIR': tree, 'CCACHE_NOHASHDIR': '1'}
    with subprocess.Popen(['bash', '-c', script(steps)], cwd=tree, text=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          env=env, start_new_session=True) as shell:
        try:
            return shell.communicate(timeout=LIMIT)[0], None
        except subprocess.TimeoutExpired:
            os.killpg(shell.pid, signal.SIGKILL)
            return shell.communicate()[0], f'no end after {LIMIT} s'


def check(step, number, seen, stopped):
    """One command's share of what was printed."""
    end = f'{ENDED}{number} '
    if end not in seen:
        raise Failure(stopped or 'a command before it failed')
    before, after = seen.split(end, 1)
    printed = before.rsplit(ENDED, 1)[-1]
    if after.split('\n', 1)[0] != '0':
        raise Failure(f'it failed: {printed.strip()[-400:]}')
    if not matches('\n'.join(step.output), printed):
        raise Failure(f'it printed {printed.strip()[-400:]!r}')


def run_page(results, page, folder):
    made = []
    results.test(f'{page}: a copy of the sources',
                 lambda: made.append(make(folder)))
    if not made:
        return
    steps = [step for steps in pages.sessions(page) for step in steps]
    seen, stopped = run_all(made[0], steps)
    for number, step in enumerate(steps):
        results.test(step.name, check, step, number, seen, stopped)
