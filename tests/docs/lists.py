# SPDX-License-Identifier: GPL-2.0-or-later
"""Lists in the documents, compared with what they are lists of."""

import os
import re
import subprocess
from dataclasses import dataclass

import pages

VIRTIO = 'docs/system/devices/virtio-blk.rst'
VHOST = 'docs/system/devices/vhost-blk.rst'


class Wrong(Exception):
    """What a page says and the program does not, or the other way round."""


# ---- properties ----

@dataclass
class Property:
    kind: str
    default: str                # as shown, None where nothing is


def help_of(qemu, device):
    """Name to Property, as -device DEVICE,help prints them."""
    done = subprocess.run([qemu, '-device', f'{device},help'], text=True,
                          capture_output=True, timeout=60, check=False)
    found = {}
    for line in done.stdout.splitlines():
        match = re.match(r'  ([\w-]+)=<(.*?)>(?= |$)(.*)', line)
        if match:
            default = re.search(r'\(default: ([^)]*)\)$', match.group(3))
            found[match.group(1)] = Property(
                match.group(2), default and default.group(1))
    if not found:
        raise Wrong(f'{device},help lists nothing: {done.stderr.strip()}')
    return found


def described(page):
    """Name to (type, text in parentheses) of each property that it defines.

    A line at the margin such as
        ``a=<bool>``, ``b=<bool>`` (default: ``off``)
    with an indented text below it."""
    found = {}
    for match in re.finditer(r'^(``[\w-]+=<.*)\n((?:.+\n)*?)(?=  )',
                             pages.read(page), re.M):
        head = ' '.join((match.group(1) + ' ' + match.group(2)).split())
        rest = re.search(r'\((.*)\)$', head)
        for name, kind in re.findall(r'``([\w-]+)=<(.*?)>``', head):
            if name in found:
                raise Wrong(f'{page} defines {name} twice')
            found[name] = (kind, rest.group(1) if rest else '')
    return found


def check_default(name, said, shown):
    """Text in parentheses against the default that is shown."""
    if said == 'read-only':
        if shown is not None:
            raise Wrong(f'{name} is not read-only: its default is {shown}')
        return
    if not said.startswith('default: '):
        raise Wrong(f'{name} has no "(default: ...)"')
    literal = re.search(r'(?:^default: |shown as )``([^`]*)``$', said)
    if shown is None:
        return              # QEMU shows none for texts and links
    if not literal or literal.group(1) != shown:
        raise Wrong(f'{name}: the default shown is {shown}, the page says '
                    f'"{said}"')


def check_properties(qemu, page, device, base=None):
    shown, said = help_of(qemu, device), described(page)
    if base:                # the page tells of what is new or changed
        known = help_of(qemu, base)
        missing = [x for x in shown if x not in known and x not in said]
    else:
        text = pages.read(page)
        missing = [x for x in shown if x not in said and not
                   (x.startswith('x-') or f'``{x}``' in text)]
    unknown = [x for x in said if x not in shown]
    if missing or unknown:
        raise Wrong(f'not in {page}: {missing}; not in {device}: {unknown}')
    for name, (kind, default) in said.items():
        if kind != shown[name].kind:
            raise Wrong(f'{name} is <{shown[name].kind}>, the page says '
                        f'<{kind}>')
        check_default(name, default, shown[name].default)


# ---- messages ----

TROUBLE = 'docs/troubleshooting.rst'
DEVICE = 'hw/block/virtio-blk'
CALL = re.compile(r'\b(?:error_setg|error_setg_errno|error_report|'
                  r'error_prepend|warn_report|warn_report_once)\s*\(')
REASON = re.compile(r'(?:\breturn (?:[^;"{}]*\? [^;"{}]*: )?|why = |'
                    r'other_user\[\] = )(?=")')
TEXT = re.compile(r'\s*(?:(?:DEVICE|PRI\w+)\s+)*"(?:[^"\\]|\\.)*"'
                  r'(?:\s*(?:"(?:[^"\\]|\\.)*"|DEVICE|PRI\w+))*')


def literal_after(source, at):
    """The first text from there on, formats as "..."."""
    text = TEXT.search(source, at).group(0)
    text = re.sub(r'\bDEVICE\b', '"/dev/vhost-blk"', text)
    text = re.sub(r'\bPRI\w+', '""', text)
    text = ''.join(re.findall(r'"((?:[^"\\]|\\.)*)"', text))
    return re.sub(r'%[-+#0-9]*(?:ll|l|h|z)?[a-z]?', '...',
                  text.replace('\\"', '"'))


def messages():
    """What the device says to people, by file."""
    for name in sorted(os.listdir(os.path.join(pages.TOP, DEVICE))):
        if not name.endswith('.c'):
            continue
        source = pages.read(f'{DEVICE}/{name}')
        for match in CALL.finditer(source):
            yield name, literal_after(source, match.end())
        if name in ('plain.c', 'engine.c', 'engine-vhost.c', 'parse.c'):
            for match in REASON.finditer(source):
                yield name, literal_after(source, match.end())


def as_pattern(text):
    """A text with "..." for anything, in any line of a page."""
    words = re.escape(' '.join(text.split()))
    return words.replace(re.escape('...'), '.{1,99}?')


def check_messages():
    """Each message of the device is explained, and each quoted is one."""
    page = ' '.join(pages.read(TROUBLE).split())
    known = list(messages())
    missing = [f'{name}: {text}' for name, text in known
               if not re.search(as_pattern(text), page)]
    if missing or len(known) < 50:
        raise Wrong(f'{len(missing)} of {len(known)} messages are not in '
                    f'{TROUBLE}: {missing[:3]}')
    terms = [term for line in pages.read(TROUBLE).splitlines()
             if re.fullmatch('(``[^`]*``(, )?)+', line)
             for term in re.findall(r'``(.*?)``', line)]
    for term in terms:
        plain = re.sub('^virtio-blk (?=request )', '', term)
        if not any(re.fullmatch(as_pattern(text) + r'(:? \.\.\.)?', plain)
                   for _, text in known):
            raise Wrong(f'the device never says "{term}"')


# ---- the kernel's interface ----

UAPI, HEADER = 'docs/vhost-blk-uapi.rst', 'kernel/uapi/vhost_blk.h'


def without_comments(text):
    return re.sub(r'/\*.*?\*/', '', text, flags=re.S).replace('\\\n', ' ')


def declared_constants(header):
    """Name to what the page has in parentheses."""
    found = {}
    for name, value in re.findall(r'^#define (VHOST_BLK_\w+)\s+(.*)$', header,
                                  re.M):
        bit = re.match(r'\(1U(?:LL)? << (\d+)\)', value)
        call = re.match(r'(_IO\w*)\(VHOST_VIRTIO, (\w+),\s*(.*)\)$', value)
        if bit:
            found[name] = f'bit {bit.group(1)}'
        elif call:
            found[name] = ', '.join(f'``{x}``' for x in call.groups())
        else:
            found[name] = value.strip()
    for body in re.findall(r'^enum \w+ \{(.*?)\}', header, re.M | re.S):
        for number, name in enumerate(re.findall(r'\w+', body)):
            found[name] = str(number)
    return found


def check_uapi():
    header = without_comments(pages.read(HEADER))
    page = pages.read(UAPI)
    declared = declared_constants(header)
    said = dict(re.findall(r'``(VHOST_BLK_\w+)`` \(([^)]*)\)', page))
    for name in sorted(set(declared) | set(said)):
        if said.get(name) != declared.get(name):
            raise Wrong(f'{name} is {declared.get(name)}, the page says '
                        f'{said.get(name)}')
    sections = re.split(r'^struct (\w+)\n~+\n', page, flags=re.M)
    told = dict(zip(sections[1::2], sections[2::2]))
    structures = re.findall(r'^struct (\w+) \{(.*?)^\};', header, re.M | re.S)
    if sorted(told) != sorted(name for name, _ in structures):
        raise Wrong(f'the page has {sorted(told)}')
    for name, body in structures:
        fields = [' '.join(x.split()) for x in body.split(';') if x.strip()]
        lines = re.findall(r'^``_.*``$|^``struct .*``$', told[name], re.M)
        shown = re.findall('``(.*?)``', ' '.join(lines))
        if fields != shown:
            raise Wrong(f'struct {name} has {fields}, the page {shown}')


# ---- trace events ----

TRACING = 'docs/tracing.rst'
EVERY = ('vdev', 'req')             # arguments that the page leaves out


def events_of(build):
    """Name to the arguments beyond those, as the build declares them."""
    with open(f'{build}.tree/hw/block/trace-events',
              encoding='utf-8') as file:
        found = re.findall(r'^(virtio_blk_\w+)\((.*?)\) "', file.read(), re.M)
    return {name: [word for word in re.findall(r'(\w+)(?:,|$)', arguments)
                   if word not in EVERY]
            for name, arguments in found}


def check_events(qemu, build):
    declared = events_of(build)
    said = {name: re.findall(r'``(\w+)``', arguments)
            for name, arguments in re.findall(
                r'^``(virtio_blk_\w+)`` \((.*)\)$', pages.read(TRACING),
                re.M)}
    shown = subprocess.run([qemu, '-trace', 'help'], text=True, timeout=60,
                           capture_output=True, check=False).stdout.split()
    shown = {name for name in shown if name.startswith('virtio_blk_')}
    if set(said) != shown or shown != set(declared):
        raise Wrong(f'events that differ: {set(said) ^ shown}')
    for name, arguments in said.items():
        if arguments != declared[name]:
            raise Wrong(f'{name} has {declared[name]}, not {arguments}')


# ---- figures ----

TUNING, REPORT = 'docs/tuning.rst', 'docs/performance.rst'


def check_figures():
    """No figure is in the advice that is not in the report."""
    figure = r'(?<![\w.])\d+\.\d+(?![\w.])|(?<![\w.])\d{4,6}(?!\w)'
    text = pages.read(TUNING)
    for block in pages.blocks(TUNING):
        for line in block.text.splitlines():
            text = text.replace(line, '')
    said = set(re.findall(figure, text))
    invented = said - set(re.findall(figure, pages.read(REPORT)))
    if invented or len(said) < 10:
        raise Wrong(f'figures that {REPORT} has not: {sorted(invented)}')


def unbuilt_tests():
    """(name, function) of the lists that need the source alone."""
    yield f'{TROUBLE} has the messages', check_messages
    yield f'{UAPI} is what {HEADER} says', check_uapi
    yield f'{TUNING} has figures of the report only', check_figures


def tests(qemu, build):
    """(name, function) of the lists that are compared with a QEMU."""
    yield (f'{VIRTIO} lists the properties',
           lambda: check_properties(qemu, VIRTIO, 'virtio-blk-pci'))
    yield (f'{VHOST} lists its properties',
           lambda: check_properties(qemu, VHOST, 'vhost-blk-pci',
                                    'virtio-blk-pci'))
    yield (f'{TRACING} lists the events',
           lambda: check_events(qemu, build))
