# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: schedule_program
short_description: Builds the program that runs modules of this collection on a node without a controller
version_added: 0.1.0
author:
  - The k8s_dr founders (@k8s-dr)
description:
  - >-
    Puts modules of this collection, and what they import of it and of the controller's own C(ansible.module_utils), into one archive that Python runs.
    Ansible does the same for every task; this one stays.
  - The same modules of the same versions always make the same bytes.
  - It is written to the directory of temporary files of this run of Ansible, which Ansible removes at its end.
  - Used by the role P(k8s_dr.etcd.etcd_schedule#role).
options:
  _terms:
    description: Names of the modules, without that of the collection.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Put the program on a node
  ansible.builtin.copy:
    src: "{{ lookup('k8s_dr.etcd.schedule_program', 'etcd_cluster_info', 'etcd_snapshot').path }}"
    dest: /usr/local/lib/k8s-dr-etcd/program.pyz
    mode: "0755"
"""

RETURN = r"""
_raw:
  description: One dict with V(path) on the controller, V(sha256) and V(version), which is the collection's and a part of the checksum.
  type: list
  elements: dict
"""

import ast
import hashlib
import io
import os
import re
import tempfile
import zipfile

from ansible import constants, module_utils as core_utils
from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible.release import __version__ as core_version

COLLECTION = "ansible_collections.k8s_dr.etcd.plugins."
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MAIN = """\
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot import scheduler

raise SystemExit(scheduler.main())
"""
# What ansible.module_utils imports by names that it makes up.
MADE_UP = {"ansible.module_utils._internal._json": "ansible.module_utils._internal._json._profiles"}


def file_of(name):
    """(path, whether it is a package) of what a node needs of a module by its full name; None when it is not ours to bring along."""
    if name.startswith(COLLECTION + "module"):
        base = os.path.join(ROOT, "plugins", *name[len(COLLECTION) :].split("."))
    elif name.startswith("ansible.module_utils."):
        base = os.path.join(os.path.dirname(core_utils.__file__), *name.split(".")[2:])
    else:
        return None
    if os.path.isfile(base + ".py"):
        return base + ".py", False
    return (os.path.join(base, "__init__.py"), True) if os.path.isfile(os.path.join(base, "__init__.py")) else None


def imports(name, is_package, source):
    """Every name that a module may import, whether in the end it does or not."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = name.split(".") if is_package else name.split(".")[:-1]
                base = ".".join(above[: len(above) - node.level + 1] + ([base] if base else []))
            yield base
            for alias in node.names:
                yield base + "." + alias.name
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and re.match(r"ansible\.module_utils(\.\w+)+$", node.value):
            yield node.value


def contents(modules):
    """{name in the archive: bytes} of the modules and of all that they import."""
    found = {"__main__.py": MAIN.encode(), "ansible/__init__.py": ("__version__ = %r\n__author__ = ''\n" % core_version).encode()}
    found["ansible/module_utils/__init__.py"] = b""
    wanted = [COLLECTION + "modules." + name for name in modules] + [COLLECTION + "module_utils._snapshot.scheduler"]
    for name in wanted:
        if not file_of(name):
            raise AnsibleLookupError("this collection has no module %s" % name.rpartition(".")[2])
    seen = set()
    while wanted:
        name = wanted.pop()
        if name in seen:
            continue
        seen.add(name)
        parts = name.split(".")
        if len(parts) > 1:
            wanted.append(".".join(parts[:-1]))
        where = file_of(name)
        if not where:
            continue
        with open(where[0], "rb") as stream:
            source = stream.read()
        found["/".join(parts) + ("/__init__.py" if where[1] else ".py")] = source
        wanted += imports(name, where[1], source)
        if name in MADE_UP:
            package = MADE_UP[name]
            wanted += [package + "." + one[:-3] for one in sorted(os.listdir(os.path.dirname(file_of(package)[0]))) if one.endswith(".py") and one[0] != "."]
    # whatever is no package of its own on the controller
    for path in list(found):
        above = os.path.dirname(path)
        while above:
            found.setdefault(above + "/__init__.py", b"")
            above = os.path.dirname(above)
    return found


def archive(files):
    """The bytes of an archive that Python runs."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        for name in sorted(files):
            # the oldest time that an archive can name, so that equal contents are equal bytes
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            made.writestr(entry, files[name])
    return out.getvalue()


def collection_version():
    for name, pattern in (("MANIFEST.json", r'"version":\s*"([^"]+)"'), ("galaxy.yml", r"(?m)^version:\s*(\S+)")):
        try:
            with open(os.path.join(ROOT, name), encoding="utf-8") as stream:
                match = re.search(pattern, stream.read())
        except OSError:
            continue
        if match:
            return match.group(1)
    return "0"


class LookupModule(LookupBase):
    """Known to Ansible as k8s_dr.etcd.schedule_program."""

    def run(self, terms, variables=None, **kwargs):
        self.set_options(var_options=variables, direct=kwargs)
        data = archive(contents([str(term) for term in terms]))
        digest = hashlib.sha256(data).hexdigest()
        path = os.path.join(constants.DEFAULT_LOCAL_TMP, "k8s-dr-etcd-%s.pyz" % digest)
        if not os.path.exists(path):
            # several hosts may do this at the same time
            descriptor, temporary = tempfile.mkstemp(dir=constants.DEFAULT_LOCAL_TMP)
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(data)
            os.rename(temporary, path)
        return [{"path": path, "sha256": digest, "version": "%s-%s" % (collection_version(), digest[:12])}]
