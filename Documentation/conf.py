# SPDX-License-Identifier: GPL-2.0-only
#
# For "make doc".  kernel-doc, and the extension that calls it, are the kernel's.

import os
import sys

top = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ksrc = os.environ['KSRC']
sys.path.insert(0, os.path.join(ksrc, 'Documentation', 'sphinx'))

project = 'dirtytrack'
extensions = ['kerneldoc']
kerneldoc_bin = os.path.join(ksrc, 'scripts', 'kernel-doc')
kerneldoc_srctree = top
exclude_patterns = ['man']
highlight_language = 'none'
html_theme = 'alabaster'
