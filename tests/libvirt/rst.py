# SPDX-License-Identifier: GPL-2.0-or-later
"""The code blocks of a documentation page, to be run as they stand."""

import re
import textwrap


def blocks(path):
    """(kind, text) of each code block, in order."""
    with open(path, encoding='utf-8') as file:
        page = file.read()
    found = re.findall(r'^\.\. code-block:: (\w+)\n\n((?:(?:   .*)?\n)+)',
                       page, re.M)
    return [(kind, textwrap.dedent(text).strip() + '\n')
            for kind, text in found]


def commands(text):
    """The lines of a console block after "$ ", continued ones joined."""
    text = text.replace('\\\n', ' ')
    return [re.sub(r'\s+', ' ', line[2:]).strip()
            for line in text.splitlines() if line.startswith('$ ')]
