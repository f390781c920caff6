# shellcheck shell=bash
# ansible-test runs in .../ansible_collections/NAMESPACE/NAME only. Sourced after lib.sh by what runs it: makes such a tree, goes there, and has it run with
# any ansible-core and any Python.

root=$(cd "$here/../.." && pwd)
reports=${REPORTS:-$root/reports}
mkdir -p "$reports"

# ansible-test keeps its environments in the home directory, and wants a file there that is not really its own (below).
# pip's configuration, which may name the only index that can be reached, goes with it.
make_home() { # DIRECTORY
  local config
  home=$1
  mkdir -p "$home/.config"
  for config in .config/pip .pip; do
    if [ -e "$HOME/$config" ] && [ ! -e "$home/$config" ]; then ln -s "$HOME/$config" "$home/$config"; fi
  done
}
make_home "$cache/ansible-test"

# What git knows or would know. With git it sees what it would see in a clone, links to directories among it.
tree=$cache/sanity/ansible_collections/k8s_dr/etcd
locked sanity
rm -rf "$cache/sanity"
mkdir -p "$tree"
"$root/tests/tools/copy_tree" "$tree"
cd "$tree"
git init -q
git add -A

# Old Pythons are what managed nodes have.
directory_of() { local p; p=$("$root/tests/tools/python" "$1" 2>/dev/null) && dirname "$p"; } # 3.7

# Sets $core, $venv, $python: an ansible-core (2.19, or 2.21@3.13 to say its Python as well), its environment, its version of Python.
use_core() {
  venv=$("$root/tests/tools/venv" "core-$1")
  python=$("$venv/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  core=${1%@*} dir=
  # It would download pip's bootstrap script from a host that may be unreachable. Python itself carries pip, so a
  # stand-in under the name that this ansible-test looks for does the same from there.
  local name
  name=$("$venv/bin/python" - <<'PYTHON'
import inspect, re
from ansible_test._internal import python_requirements
from ansible_test._util.target.setup import requirements
name = re.search(r"(get_pip_%s\.py)'", inspect.getsource(requirements)).group(1)
version = python_requirements.get_venv_packages(python_requirements.PythonConfig)
print(name % version["pip"].replace(".", "_"))
PYTHON
  )
  mkdir -p "$home/.ansible/test/cache"
  cp "$root/tests/tools/get_pip.py" "$home/.ansible/test/cache/$name"
}

# ansible-test with the environment of $core, and the Python in $dir at hand; what it prints goes to a file, and its errors to us
ansible_test() { HOME=$home VIRTUAL_ENV=$venv PATH=$venv/bin:${dir:+$dir:}$PATH ansible-test "$@"; }
quiet_test() { # LOG ARGUMENT...
  local log=$reports/$1.log; shift
  ansible_test "$@" >"$log" 2>&1 && return
  grep -E '^(ERROR|FATAL|FAILED|E  )' "$log" | tail -n 40 >&2
  return 1
}
