# SPDX-License-Identifier: GPL-2.0-or-later
"""The code blocks of the documents, and the sessions in them."""

import os
import re
import shlex
import subprocess
import textwrap
from dataclasses import dataclass, field

TOP = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))

BLOCK = re.compile(r'^( *)\.\. code-block:: (\w+)\n'
                   r'((?:\1 +:\w+:.*\n)*)\n((?:(?:\1   .*)?\n)+)', re.M)
LITERAL = re.compile(r'^( *)(?!\.\. )(?:\S.*)?::\n\n((?:(?:\1 +.*)?\n)+)',
                     re.M)
INDENTED = re.compile(r'(?<=\n\n)((?:    .*\n|\n(?=    ))+)')


@dataclass
class Block:
    page: str                   # below TOP
    line: int
    kind: str
    text: str


@dataclass
class Step:
    """A command of a session: a shell's, root's or the monitor's."""
    page: str
    line: int
    prompt: str                 # '$ ', '# ' or '(qemu) '
    command: str
    output: list = field(default_factory=list)      # lines that follow

    @property
    def name(self):
        """What a result calls it."""
        words = ' '.join(self.command.replace('\\\n', ' ').split())
        words = re.sub(r' #.*', '', words)
        return f'{self.page}:{self.line} {textwrap.shorten(words, 60)}'


def read(page):
    with open(os.path.join(TOP, page), encoding='utf-8') as file:
        return file.read()


def documents():
    """All pages, below TOP."""
    listed = subprocess.run(['git', '-C', TOP, 'ls-files', '--cached',
                             '--others', '--exclude-standard',
                             'docs/*.rst', 'README.md'], text=True,
                            capture_output=True, check=True).stdout
    return sorted(listed.split())


def blocks(page):
    """The blocks of a page, in order.

    Markdown's are "shell" where they begin with a command."""
    text = read(page)
    found = []

    def add(match, kind, group):
        line = text.count('\n', 0, match.start(group)) + 1
        body = textwrap.dedent(match.group(group)).strip('\n') + '\n'
        found.append(Block(page, line, kind, body))

    if page.endswith('.md'):
        for match in INDENTED.finditer(text):
            body = textwrap.dedent(match.group(1))
            add(match, 'shell' if re.match(r'[a-z.][\w./-]*[ \n]', body)
                else 'other', 1)
    else:
        for match in BLOCK.finditer(text):
            add(match, match.group(2), 4)
        for match in LITERAL.finditer(text):
            add(match, 'literal', 2)
    return sorted(found, key=lambda block: block.line)


def is_whole(command):
    """Is it a whole command, with no quote open and no line to follow?"""
    if command.endswith('\\'):
        return False
    try:
        shlex.split(command, comments=True)
    except ValueError:
        return False
    return True


def session(block):
    """The steps of a block.  In a "shell" block each line is a command."""
    steps, open_step = [], None

    for number, line in enumerate(block.text.splitlines(), block.line):
        prompt = re.match(r'(\$ |# |\(qemu\) )', line)
        if open_step:
            open_step.command += '\n' + line
        elif prompt and block.kind != 'shell':
            open_step = Step(block.page, number, prompt.group(1),
                             line[prompt.end():])
            steps.append(open_step)
        elif block.kind == 'shell' and line:
            open_step = Step(block.page, number, '$ ', line)
            steps.append(open_step)
        elif steps:
            steps[-1].output.append(line)
        if open_step and (open_step.prompt == '(qemu) ' or
                          is_whole(open_step.command)):
            open_step = None
    return steps


def sessions(page):
    """Per block with commands, its steps."""
    return [steps for block in blocks(page)
            if block.kind in ('console', 'text', 'shell')
            for steps in [session(block)] if steps]
