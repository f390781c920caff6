# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Loads all filters of this collection when it is imported.  Private to this collection.

To find one filter, Ansible loads every file of plugins/filter, and it compiles what they import (2.17 to 2.21: plugins/loader.py, Jinja2Loader; get_code in
utils/collection_loader/_collection_finder.py).  It does so in each process that it forks for a task on a host, which takes 0.1 s of processor time.
Action plugins are loaded in the process that forks (plugins/strategy/linear.py), so those that the roles use first import this, and the others have it.
"""

from __future__ import annotations

import importlib
import pkgutil

from ansible_collections.k8s_dr.etcd.plugins import filter as _filters

for _found in pkgutil.iter_modules(_filters.__path__):
    importlib.import_module("%s.%s" % (_filters.__name__, _found.name))
