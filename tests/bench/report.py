# SPDX-License-Identifier: GPL-2.0-or-later
"""The results of scripts/bench as text, and as one HTML page with plots."""

import html as _html
import math

COLOURS = {'ours': '#0b62a4', 'stock': '#c0504d', 'io_uring': '#555555',
           'vhost-user': '#7a6a2f', 'fio': '#999999', 'again': '#e0a09e'}
PART_COLOURS = ['#0b62a4', '#c0504d', '#7aa644', '#8064a2', '#e08a2c',
                '#4bacc6', '#7a6a2f', '#d16ba5', '#555555', '#a5c8e4',
                '#b9d39c', '#c9b8dd', '#cccccc']
ORDER = ['ours', 'stock', 'io_uring', 'vhost-user', 'fio']


def number(x):
    if x is None:
        return '-'
    if x >= 1e6:
        return f'{x / 1e6:.2f}M'
    if x >= 1e4:
        return f'{x / 1e3:.0f}k'
    return f'{x:.0f}'


def ratio(result, key):
    v = result['ratios'].get(key)
    return '-' if v is None else f'{v:.2f}'


def kept(result):
    """'yes', or which figures were missed."""
    missed = [f'{n} {got:.2f} ({want:g})'
              for n, want, got, ok in result['verdicts'] if not ok]
    return ', '.join(missed) or 'yes'


def line(result):
    m = result['medians']
    return (f'   ours {number(m["ours"]["iops"])} stock '
            f'{number(m["stock"]["iops"])} IOPS: x{ratio(result, "iops")}, '
            f'cost x{ratio(result, "cost")}, latency '
            f'x{ratio(result, "latency")}; kept: {kept(result)}')


HEADS = ['case', 'IOPS ours', 'stock', 'io_uring', 'ratio', '/bare',
         'ns/IO ours', 'stock', 'ratio', 'above', 'p50 us', 'p99', 'p99.9',
         'ratio', 'irq/IO', 'kick/IO', 'noise', 'figures kept']


def row(result):
    m = result['medians']
    ours, stock = m['ours'], m['stock']
    low, high = result['spread'].get('noise', (None, None))
    return [
        result['name'] + ('*' if result['disturbed'] else ''),
        number(ours['iops']), number(stock['iops']),
        number(m.get('io_uring', {}).get('iops')), ratio(result, 'iops'),
        ratio(result, 'iops_bare'),
        f'{ours["iothread_ns_per_io"]:.0f}',
        f'{stock["iothread_ns_per_io"]:.0f}', ratio(result, 'cost'),
        ratio(result, 'cost_above'),
    ] + [f'{ours["latency_ns"][q] / 1000:.1f}'
         for q in ('50', '99', '99.9')] + [
        ratio(result, 'latency'), f'{ours["irqs_per_io"]:.3f}',
        f'{ours["kicks_per_io"]:.3f}',
        '-' if low is None else f'{low:.2f}-{high:.2f}', kept(result)]


def table(data):
    rows = [HEADS] + [row(c) for c in data['cases']]
    width = [max(len(r[i]) for r in rows) for i in range(len(HEADS))]
    out = []
    for r in rows:
        out.append('  '.join(
            [r[0].ljust(width[0])] +
            [v.rjust(w) for v, w in zip(r[1:-1], width[1:-1])] +
            [r[-1]]).rstrip())
    for c in data['cases']:
        if 'wakeup' in c['medians']:
            us = c['medians']['wakeup']['latency_ns']['50'] / 1000
            out.append(f'{c["name"]}: two threads that do nothing but wake '
                       f'each other: p50 {us:.1f} us')
    for backend, counted in data.get('instructions', {}).items():
        o, s = counted['ours']['total'], counted['stock']['total']
        out.append(f'instructions per request, {backend}: ours {o:.0f}, '
                   f'stock {s:.0f}, ratio {o / s:.3f}')
    for name, value in data.get('vhost', {}).get('ratios', {}).items():
        out.append(f'instructions per request in a VM, {name}: {value:.2f}')
    out += [f'left out: {x}' for x in data['left_out']]
    if any(c['disturbed'] for c in data['cases']):
        out.append('*: other load used the machine in some of the runs')
    return '\n'.join(out) + '\n'


# ---- plots ----

def esc(text):
    return _html.escape(str(text))


def text(x, y, s, anchor='start', size=11):
    return (f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" '
            f'font-size="{size}">{esc(s)}</text>')


def svg(width, height, body, title):
    return (f'<figure><figcaption>{esc(title)}</figcaption>'
            f'<svg viewBox="0 0 {width} {height}" width="{width}" '
            f'height="{height}" role="img">{"".join(body)}</svg></figure>')


def legend(names, colours, x, y):
    out = []
    for i, name in enumerate(names):
        out.append(f'<rect x="{x}" y="{y + 16 * i - 9}" width="10" '
                   f'height="10" fill="{colours[name]}"/>')
        out.append(text(x + 14, y + 16 * i, name))
    return out


def nice_step(top):
    raw = top / 5
    unit = 10 ** math.floor(math.log10(raw))
    return next(unit * m for m in (1, 2, 5, 10) if unit * m >= raw)


class Axes:
    """A frame with a linear or logarithmic y axis from 0 or LOW."""

    def __init__(self, low, high, log=False):
        self.x0, self.y0, self.w, self.h = 60, 20, 420, 220
        self.low, self.high, self.log = low, max(high, low * 1.01, 1e-9), log

    def y(self, v):
        if self.log:
            f = (math.log(max(v, self.low)) - math.log(self.low)) / (
                math.log(self.high) - math.log(self.low))
        else:
            f = v / self.high
        return self.y0 + self.h * (1 - f)

    def ticks(self):
        if self.log:
            e = math.floor(math.log10(self.low))
            while 10 ** e <= self.high:
                if 10 ** e >= self.low:
                    yield 10 ** e
                e += 1
        else:
            step = nice_step(self.high)
            for i in range(int(self.high / step) + 1):
                yield i * step

    def frame(self, unit):
        out = [f'<path d="M{self.x0} {self.y0}v{self.h}h{self.w}" '
               'fill="none" stroke="#888"/>']
        for v in self.ticks():
            y = self.y(v)
            out.append(f'<path d="M{self.x0} {y:.1f}h{self.w}" '
                       'stroke="#ddd"/>')
            out.append(text(self.x0 - 5, y + 4, number(v), 'end'))
        out.append(text(self.x0, 12, unit))
        return out


def polyline(points, colour):
    d = ' '.join(f'{x:.1f},{y:.1f}' for x, y in points)
    dots = ''.join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" '
                   f'fill="{colour}"/>' for x, y in points)
    return (f'<polyline points="{d}" fill="none" stroke="{colour}" '
            f'stroke-width="2"/>{dots}')


def by_depth(data, backend, load):
    """Throughput against depth, one queue, 4 KiB, nothing else changed."""
    chosen = sorted((c for c in data['cases'] if c['backend'] == backend and
                     set(c['options']) == {'load', 'depth'} and
                     c['options']['load'] == load),
                    key=lambda c: c['options']['depth'])
    if len(chosen) < 2:
        return ''
    names = [n for n in ORDER if any(n in c['medians'] for c in chosen)]
    top = max(m['iops'] for c in chosen for m in c['medians'].values())
    a = Axes(0, top * 1.05)
    body = a.frame('IOPS')
    xs = {c['name']: a.x0 + a.w * (i + 0.5) / len(chosen)
          for i, c in enumerate(chosen)}
    for c in chosen:
        body.append(text(xs[c['name']], a.y0 + a.h + 16,
                         f'depth {c["options"]["depth"]}', 'middle'))
    for n in names:
        body.append(polyline([(xs[c['name']], a.y(c['medians'][n]['iops']))
                              for c in chosen if n in c['medians']],
                             COLOURS[n]))
    body += legend(names, COLOURS, a.x0 + a.w + 15, a.y0 + 10)
    return svg(600, 265, body, f'Throughput by depth: {backend}, {load}, '
               '4 KiB')


def stacked(title, unit, bars, parts, colours):
    """Horizontal bars; BARS: (label, {part: value})."""
    top = max((sum(b.values()) for _, b in bars), default=0) or 1
    body = []
    y = 10
    for label, values in bars:
        body.append(text(225, y + 13, label, 'end'))
        x = 230.0
        for p in parts:
            w = max(values.get(p, 0), 0) / top * 400
            body.append(f'<rect x="{x:.1f}" y="{y}" width="{w:.1f}" '
                        f'height="17" fill="{colours[p]}"><title>{esc(p)}: '
                        f'{values.get(p, 0):.0f}</title></rect>')
            x += w
        body.append(text(x + 4, y + 13, f'{sum(values.values()):.0f}'))
        y += 22
    body += legend(parts, colours, 690, 20)
    return svg(850, max(y, 16 * len(parts) + 20) + 10, body,
               f'{title} ({unit})')


def cpu_bars(data):
    parts = ['iothread, user', 'iothread, kernel', 'other threads']
    colours = dict(zip(parts, PART_COLOURS))
    bars = []
    for c in data['cases']:
        for n in ORDER:
            m = c['medians'].get(n)
            if not m or 'iothread_system_share' not in m:
                continue
            io = m['iothread_ns_per_io']
            system = min(io * m['iothread_system_share'], io)
            bars.append((f'{c["name"]} {n}', {
                parts[0]: io - system, parts[1]: system,
                parts[2]: max(m['process_ns_per_io'] - io, 0)}))
    return stacked('CPU time of one I/O', 'ns', bars, parts, colours)


def instruction_bars(data):
    out = ''
    for backend, counted in data.get('instructions', {}).items():
        parts = list(dict.fromkeys(p for c in counted.values()
                                   for p in c['parts']))
        colours = dict(zip(parts, PART_COLOURS + ['#000000'] * len(parts)))
        out += stacked(f'Instructions of one request: {backend}, by part',
                       'instructions, callgrind',
                       [(n, c['parts']) for n, c in counted.items()], parts,
                       colours)
    return out


def latency(case):
    quantiles = ['1', '5', '10', '25', '50', '75', '90', '95', '99', '99.5',
                 '99.9', '99.99']
    names = [n for n in ORDER if 'latency_ns' in case['medians'].get(n, {})]
    values = {n: [case['medians'][n]['latency_ns'][q] / 1000
                  for q in quantiles] for n in names}
    flat = [v for vs in values.values() for v in vs if v > 0]
    if not flat:
        return ''
    a = Axes(min(flat) * 0.9, max(flat) * 1.1, log=True)
    body = a.frame('microseconds')
    xs = [a.x0 + a.w * (i + 0.5) / len(quantiles)
          for i in range(len(quantiles))]
    for x, q in zip(xs, quantiles):
        body.append(text(x, a.y0 + a.h + 14, q, 'middle', 9))
    for n in names:
        body.append(polyline([(x, a.y(v)) for x, v in zip(xs, values[n])],
                             COLOURS[n]))
    body += legend(names, COLOURS, a.x0 + a.w + 15, a.y0 + 10)
    return svg(600, 265, body, f'Latency by percentile: {case["name"]}')


def html_table(data):
    rows = ''.join(
        '<tr>' + ''.join(f'<td>{esc(v)}</td>' for v in row(c)) + '</tr>'
        for c in data['cases'])
    heads = ''.join(f'<th>{esc(h)}</th>' for h in HEADS)
    return f'<table><tr>{heads}</tr>{rows}</table>'


STYLE = '''
body { font: 14px sans-serif; margin: 2em; max-width: 1500px; }
table { border-collapse: collapse; font-size: 12px; }
td, th { border-bottom: 1px solid #ddd; padding: 2px 7px;
         text-align: right; white-space: nowrap; }
td:first-child, td:last-child { text-align: left; }
figure { display: inline-block; margin: 1em 2em 1em 0; }
figcaption { font-weight: bold; margin-bottom: 4px; }
'''


def html(data):
    m = data['machine']
    depth = ''.join(by_depth(data, b, l)
                    for b in ('null', 'cache', 'memory', 'disk')
                    for l in ('randread', 'randwrite'))
    left = ''.join(f'<li>left out: {esc(x)}</li>' for x in data['left_out'])
    return f'''<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<title>virtio-blk: ours against the base</title>
<style>{STYLE}</style></head><body>
<h1>virtio-blk: ours against the base</h1>
<p>{esc(m["date"])}; {esc(m["cpu"])}, {m["cpus"]} CPUs, {m["memory_mib"]} MiB,
Linux {esc(m["kernel"])}. {data["rounds"]} rounds of {data["seconds"]} s each,
in turn; medians, and medians of the ratios within a round. "above": CPU time
above io_uring's own, ours against stock. "noise": stock against itself. A star
marks a case in which other load used the machine.</p>
<ul>{left}</ul>
{html_table(data)}
<h2>Throughput</h2>{depth}
<h2>CPU</h2>{instruction_bars(data)}{cpu_bars(data)}
<h2>Latency</h2>{"".join(latency(c) for c in data["cases"])}
</body></html>
'''
