#!/usr/bin/env bash
# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# ansible-core 2.17.14, 2.19.14 and 2.21.5: a task that uses one filter of a collection executes every file in that collection's
# plugins/filter, in the process that is forked for this task and this host, so all of them again for the next task. What such a
# file imports from module_utils is compiled from its source each time as well, since the loader of collections keeps no bytecode.
# A filter that is used only by others costs as much as the one that is needed: in a collection with 33 filter files each task that
# used one took 0.1 s more of processor time.
# When an action plugin of the collection has imported the filter files, no task after that executes any: action plugins are
# loaded in the process that forks the others.
#
# Needs PyPI and Python 3.12. Seen on 2026-11-30, for each of the three versions, with 10 filter files and 3 tasks that use one of them:
#   filters alone: 10 files were executed 30 times
#   after an action plugin that imports them: 10 files were executed 10 times
set -euo pipefail

place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT

# The first interpreter that runs and is one of these versions.
interpreter() {
  for version in "$@"; do
    for found in "python$version" "$(pyenv root 2>/dev/null || true)"/versions/"$version".*/bin/python; do
      if "$found" -c '' 2>/dev/null; then
        echo "$found"
        return
      fi
    done
  done
  echo "there is no Python $*" >&2
  return 1
}

plugins=$place/collections/ansible_collections/example/many/plugins
mkdir -p "$plugins/filter" "$plugins/action" "$plugins/modules"
for number in 0 1 2 3 4 5 6 7 8 9; do
  cat >"$plugins/filter/one$number.py" <<PY
import os

with open(os.environ["FINDING_LOG"], "a") as log:
    log.write(__name__ + "\n")


class FilterModule:
    def filters(self):
        return {"one$number": str}
PY
done
touch "$plugins/modules/load.py"
cat >"$plugins/action/load.py" <<'PY'
import importlib
import pkgutil

from ansible.plugins.action import ActionBase
from ansible_collections.example.many.plugins import filter as filters

for found in pkgutil.iter_modules(filters.__path__):
    importlib.import_module(filters.__name__ + "." + found.name)


class ActionModule(ActionBase):
    def run(self, tmp=None, task_vars=None):
        return {}
PY

tasks='
    - ansible.builtin.debug: {msg: "{{ 1 | example.many.one3 }}"}
    - ansible.builtin.debug: {msg: "{{ 2 | example.many.one3 }}"}
    - ansible.builtin.debug: {msg: "{{ 3 | example.many.one3 }}"}'
play='- hosts: localhost
  gather_facts: false
  tasks:'
printf '%s%s\n' "$play" "$tasks" >"$place/alone.yml"
printf '%s\n    - example.many.load:%s\n' "$play" "$tasks" >"$place/loaded.yml"

for version in 2.17.14 2.19.14 2.21.5; do
  case $version in
    2.17.14) python=$(interpreter 3.12 3.11 3.10) ;;
    2.19.14) python=$(interpreter 3.12 3.13 3.11) ;;
    2.21.5) python=$(interpreter 3.12 3.13) ;;
  esac
  "$python" -m venv "$place/$version"
  "$place/$version/bin/pip" install --quiet --disable-pip-version-check "ansible-core==$version"
  echo "ansible-core $version"
  for name in alone loaded; do
    export FINDING_LOG=$place/$version-$name.log ANSIBLE_COLLECTIONS_PATH=$place/collections ANSIBLE_LOCALHOST_WARNING=false
    "$place/$version/bin/ansible-playbook" -i localhost, -c local "$place/$name.yml" >"$place/output" 2>&1 || { cat "$place/output"; exit 1; }
    files=$(sort -u "$FINDING_LOG" | wc -l) times=$(wc -l <"$FINDING_LOG")
    case $name in
      alone) echo "  filters alone: $files files were executed $times times"; expected=30 ;;
      loaded) echo "  after an action plugin that imports them: $files files were executed $times times"; expected=10 ;;
    esac
    [ "$files" -eq 10 ] && [ "$times" -eq "$expected" ]
  done
done
