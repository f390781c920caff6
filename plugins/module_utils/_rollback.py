# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The `rollback` script that every transaction directory holds.  Private to this collection.

It decides by what lies on the disk, not by what a state file says, so it is right from every point of a restore, and
again after it was interrupted itself.  Data moves first and manifests second: kubelet must never see an etcd manifest
without its data, or DirectoryOrCreate makes it a brand-new empty cluster whose readyz says ok.
"""

from __future__ import annotations

import shlex

SCRIPT = r"""#!/bin/sh
# Puts @HOST@ back to the data it had before restore @ID@. Needs no Ansible; safe to run again, from any point.
#   ./rollback          an unfinished restore: back to the cluster as it was
#   ./rollback --undo   a finished one: back to the old data; what was written since is kept here as undone.N
set -eu
T=@T@ LIVE=@LIVE@ DATA=@DATA@ MANIFESTS=@MANIFESTS@ HELD=@HELD@ FILES=@FILES@ HEALTH=@HEALTH@
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
say() { echo "rollback of @ID@ on @HOST@: $*"; }
stop() { code=$1; shift; say "$* Now run: $T/rollback"; exit "$code"; }
# only a note for people: with a full disk the rollback goes on without it
state() {
  line="$1 $(date -u +%Y-%m-%dT%H:%M:%SZ)"
  { echo "$line" > "$T/state.new" && sync && mv -f "$T/state.new" "$T/state" && echo "$line" >> "$T/log" && sync; } 2>/dev/null ||
    say "cannot write $T/state (is the disk full?), going on"
}
# the control plane's processes: in a Pod, in this node's network namespace (comm holds 15 characters)
pids() {
  for p in /proc/[0-9]*; do
    [ "$p/ns/net" -ef /proc/self/ns/net ] || continue
    read -r name < "$p/comm" || continue
    case " $* " in *" $name "*) ! grep -q kubepods "$p/cgroup" || echo "${p#/proc/}" ;; esac
  done 2>/dev/null
}
unlocked() { [ ! -e "$1/snap/db" ] || flock -n -x "$1/snap/db" true; }

exec 9>> "$T/lock"
flock -w 600 9 || stop 4 "another step still holds $T/lock; nothing was done."
read -r was rest < "$T/state"
case $was in
  committed) [ "${1-}" = --undo ] || { say "this restore was finished (${rest:-}); to go back to the old data: $T/rollback --undo"; exit 3; } ;;
  rolled-back) [ -e "$T/old" ] || { say "already rolled back"; exit 0; } ;;
  pruned) say "its old data was removed; nothing to go back to"; exit 3 ;;
esac
state rolling-back

if [ -e "$T/old" ]; then
  # The old data was moved away. Stop what runs on the new data, and prove it, before anything moves again.
  mkdir -p "$HELD"
  for f in $FILES; do
    if [ -e "$MANIFESTS/$f" ]; then
      if [ -e "$HELD/$f" ]; then mv "$MANIFESTS/$f" "$HELD/$f.$(date +%s)"; else mv "$MANIFESTS/$f" "$HELD/$f"; fi
    fi
  done
  say "stopping etcd and what talks to it"
  waited=0
  while [ -n "$(pids etcd kube-apiserver kube-controller kube-scheduler)" ] || ! unlocked "$DATA/member"; do
    # the API server holds no state and would use its whole 30 s; etcd is asked first
    case $waited in
      2) kill -9 $(pids kube-apiserver) ;;
      15) kill $(pids etcd) ;;
      30) kill -9 $(pids etcd kube-controller kube-scheduler) ;;
    esac 2>/dev/null || :
    [ $waited -lt 120 ] || stop 5 "etcd does not stop; no data was moved, the old data is in $T/old, the manifests in $HELD."
    sleep 1; waited=$((waited + 1))
  done
  if [ -e "$LIVE" ]; then
    n=1; while [ -e "$T/undone.$n" ]; do n=$((n + 1)); done
    mv "$LIVE" "$T/undone.$n"; sync
  fi
  mv "$T/old" "$LIVE"; sync; back=yes
  say "the old data is back in $LIVE"
fi
[ -f "$DATA/member/snap/db" ] || stop 6 "$DATA/member/snap/db is missing: the manifests stay in $HELD, or kubelet would start an empty cluster."

# A kubelet that died meanwhile would start nothing; one that runs does not notice.
systemctl start kubelet 2> /dev/null || :
# etcd first; the API server would only crash and back off until etcd answers
for f in $FILES; do
  [ -e "$HELD/$f" ] || continue
  if [ -e "$MANIFESTS/$f" ]; then say "$MANIFESTS/$f exists already; the other one stays in $HELD"; continue; fi
  mv "$HELD/$f" "$MANIFESTS/$f"; sync
  [ "$f" = @ETCD@ ] && [ -n "$HEALTH" ] && command -v curl > /dev/null || continue
  waited=0; until curl -s -m 2 "$HEALTH" | grep -q true || [ $waited -ge 60 ]; do sleep 1; waited=$((waited + 1)); done
done
rmdir "$HELD" 2> /dev/null || :
# After new data the revision has gone backwards: kubelet has to list again.
[ -z "${back-}" ] && [ ! -e "$T/undone.1" ] || systemctl restart kubelet 2> /dev/null || say "kubelet could not be restarted; run: systemctl restart kubelet"
state rolled-back
say "done: the cluster has its old data and its manifests; kubelet starts it now"
"""


def rollback_script(values):
    """The script for one transaction.  `values`: host, id, path, live, data_dir, manifests_dir, held, files (etcd's first), health_url."""
    text = SCRIPT
    for name, value in (
        ("T", values["path"]),
        ("LIVE", values["live"]),
        ("DATA", values["data_dir"]),
        ("MANIFESTS", values["manifests_dir"]),
        ("HELD", values["held"]),
        ("FILES", " ".join(values["files"])),
        ("HEALTH", values["health_url"]),
        ("ETCD", values["files"][0]),
    ):
        text = text.replace("@%s@" % name, shlex.quote(value))
    return text.replace("@HOST@", values["host"]).replace("@ID@", values["id"])
