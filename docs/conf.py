# SPDX-License-Identifier: GPL-2.0-or-later
#
# sphinx-build -W docs OUT makes the documents as web pages.

import pathlib

project = 'virtio-blk for QEMU'
author = 'The qemu-virtio-blk developers'
copyright = author
release = version = (pathlib.Path(__file__).resolve().parents[1] /
                     'VERSION').read_text(encoding='utf-8').strip()
html_theme = 'alabaster'
html_show_sphinx = False
# "(qemu)" and "$" sessions are shown as they are
highlight_language = 'none'
nitpicky = True
exclude_patterns = ['_build']
