# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The `rollback` script that every transaction directory holds.  Private to this collection.

It decides by what lies on the disk, not by what a state file says, so it is right from every point of a restore, and
again after it was interrupted itself.  Four triggers run it: the role's handlers, the rollback playbook, an operator at
the console, and the rollback timer (_restore/timer.py).  Data moves first and manifests second: kubelet must never see an etcd manifest
without its data, or DirectoryOrCreate makes it a brand-new empty cluster whose readyz says ok.
"""

from __future__ import annotations

import shlex

SCRIPT = r"""#!/bin/sh
# Puts @HOST@ back to the data it had before restore @ID@. Needs no Ansible; safe to run again, from any point.
#   ./rollback          an unfinished restore: back to the cluster as it was (of several nodes: run it on each)
#   ./rollback --undo   a finished one: back to the old data; what was written since is kept here as undone.N
#   ./rollback --timer  what the rollback timer and a boot run: as the first, but a restore that was validated stays
set -eu; PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
T=@T@ LIVE=@LIVE@ DATA=@DATA@ SERVED=@SERVED@ MANIFESTS=@MANIFESTS@ HELD=@HELD@ FILES=@FILES@ HEALTH=@HEALTH@ UNIT=@UNIT@ KIND=@KIND@
say() { echo "rollback of @ID@ on @HOST@: $*"; }; flush() { sync -f "$1" || :; } # not of every file system, which a dead NFS server would block
stop() { code=$1; shift; say "$* Now run: $T/rollback"; exit "$code"; }
# only a note for people: with a full disk the rollback goes on without it
state() {
  line="$1 $(date -u +%Y-%m-%dT%H:%M:%SZ)"
  { echo "$line" > "$T/state.new" && flush "$T" && mv -f "$T/state.new" "$T/state" && echo "$line" >> "$T/log" && flush "$T"; } 2>/dev/null ||
    say "cannot write $T/state (is the disk full?), going on"
}
disarm() {
  [ -e "$UNIT.service" ] || return 0; systemctl stop "${UNIT##*/}.timer" 2> /dev/null || :
  rm -f "$UNIT.timer" "$UNIT.service" "${UNIT%/*}"/*.wants/"${UNIT##*/}".*; systemctl daemon-reload 2> /dev/null || :
}
# the control plane's processes: in a Pod, in this node's network namespace (comm holds 15 characters)
pids() {
  for p in /proc/[0-9]*; do
    [ "$p/ns/net" -ef /proc/self/ns/net ] && read -r name < "$p/comm" || continue
    case " $* " in *" $name "*) grep -q kubepods "$p/cgroup" || continue ;; *) continue ;; esac
    d=$(tr '\0' '\n' < "$p/cmdline" | sed -n '/^--*data-dir$/{n;p;q;}; s/^--*data-dir=//p') # that of another etcd, as Calico's?
    [ -n "$d" ] && [ "$(readlink -m "$d")" != "$SERVED" ] || echo "${p#/proc/}"
  done 2>/dev/null
}
unlocked() { [ ! -e "$1/snap/db" ] || flock -n -x "$1/snap/db" true; }
# so that the same playbook again does not undo the restore before this one
note() { [ "$1" != --undo ] || grep -q -e ^committed -e ^undo "$T/log" 2> /dev/null || echo "undo $(date -u +%Y-%m-%dT%H:%M:%SZ)" >> "$T/log" || :; }
held() { for f in $FILES; do [ ! -e "$HELD/$f" ] || [ -e "$MANIFESTS/$f" ] || return 0; done; return 1; }
exec 9>> "$T/lock"; flock -w 600 9 || stop 4 "another step still holds $T/lock; nothing was done."
line=$(tail -qn 1 "$T/log" "$T/state" | tr -d '\0' | grep . | tail -n 1); was=${line%% *} rest=${line#* } # a bad disk may have taken the state's text
[ -e "$T/state" ] || case $was in committed | rejoined | rolled-back | '') was=pruned ;; esac # its removal was cut
if [ "$was" = committing ]; then # it was validated: several nodes decide together, a single one keeps it once its time is over
  [ ! -e "$T/decide" ] || was=$(sh "$T/decide" "${1:-abort}") || [ "${1-}" = --undo ] ||
    stop 7 "the restored etcd has no quorum to ask whether all nodes keep its data; nothing was done (--undo goes on without it)."
  case $was:${1-} in
    *:--undo) was=committing ;;
    committed:* | committing:--timer) # on the disk, or a rollback days later would discard all that was written since
      [ -e "$T/old" ] && was=committed || was=rolling-back # where a full disk took no state, it may have gone back already
      [ "$was" = rolling-back ] || { rm -rf "$T/staged" "$T"/snapshot.db*; rmdir "$HELD" 2> /dev/null || :; state committed; }
      [ "$was" = rolling-back ] || grep -q ^committed "$T/state" || { say "the restored data stays; free some space for $T/state"; exit 9; } ;;
  esac
fi
case $was:${1-} in
  committed:--undo | rejoin*:--undo) grep -q ^committed "$T/log" || echo "$was $rest" >> "$T/log" || : ;; # a power cut may have taken the log's end
  committed:--timer | rejoined:--timer) disarm; say "the restore was validated, so its data stays"; exit 0 ;;
  committed:* | rejoin*) say "this restore was finished (${rest:-}); to go back to the old data: $T/rollback --undo"; exit 3 ;;
  rolled-back:*) [ -e "$T/old" ] || held || { note "${1-}"; [ "${line%% *}" = "$was" ] || state "$was"; disarm; say "already rolled back"; exit 0; } ;;
  pruned:*) disarm; say "its old data was removed; nothing to go back to"; exit 3 ;;
esac
[ "$KIND" = restore ] || [ "${1-}" = --undo ] || [ ! -e "$T/decide" ] || [ "$(sh "$T/decide" serving)" != serving ] ||
  { say "a restored node serves, and this one would serve the old data beside it, so nothing was done. Roll back the restored ones first." \
      "If they have their old data: $T/rollback --undo. If they were restored again: kubeadm reset, kubeadm join"; exit 7; }
[ -e "$T/old" ] && previous=$T/old || previous=$LIVE
case $KIND:$was:${1-} in
  *:committed:--undo) to="" ;;
  retire:* | *:rolling-back:* | *:--undo) to=any ;;
  *) to=" Finish the restore: restore.yml -e etcd_restore_unfinished=resume. Or set its data aside: $T/rollback --undo" ;;
esac
# what was made of nothing has no way back; but several nodes must not disagree
if [ "$to" != any ] && { [ -e "$T/old" ] || held; } && [ ! -e "$T/decide" ] && [ ! -e "$previous/snap/db" ] && [ ! -e "$previous/member/snap/db" ]; then
  say "there is no old data, so nothing was done.$to"
  [ "${1-}" != --timer ] || { disarm; exit 0; }; exit 6
fi
note "${1-}"
# a step that is still to come finds nothing to swap in, even where the full disk takes no state
[ ! -e "$T/staged" ] || mv "$T/staged" "$T/staged.unused"
state rolling-back
if [ -e "$T/old" ]; then
  # The old data was moved away. Stop what runs on the new data, and prove it, before anything moves again.
  mkdir -p "$HELD"
  for f in $FILES; do
    [ ! -e "$MANIFESTS/$f" ] || mv "$MANIFESTS/$f" "$HELD/$f$([ ! -e "$HELD/$f" ] || date +.%s)"
  done
  say "stopping etcd and what talks to it"; waited=0
  while [ -n "$(pids etcd kube-apiserver kube-controller kube-scheduler)" ] || ! unlocked "$DATA/member"; do
    case $waited in # the API server holds no state and would use its whole 30 s; etcd is asked first
      2) kill -9 $(pids kube-apiserver) ;;
      15) kill $(pids etcd) ;;
      30) kill -9 $(pids etcd kube-controller kube-scheduler) ;;
    esac 2>/dev/null || :
    [ $waited -lt 120 ] || stop 5 "etcd does not stop; no data was moved, the old data is in $T/old, the manifests in $HELD."
    sleep 1; waited=$((waited + 1))
  done
  n=1; while [ -e "$T/undone.$n" ]; do n=$((n + 1)); done; flush "$MANIFESTS"
  [ ! -e "$LIVE" ] || rmdir "$LIVE" 2> /dev/null || mv -T "$LIVE" "$T/undone.$n" # never into what has come meanwhile
  flush "$T"; mv -T "$T/old" "$LIVE"; flush "$T"; back=yes; say "the old data is back in $LIVE"
fi
aside=""; for d in "$T/staged.unused${LIVE#"$DATA"}" "$T"/undone.*; do [ ! -d "$d" ] || aside=$d; done
! held || [ -f "$DATA/member/snap/db" ] || stop 6 "$DATA/member/snap/db is missing: the manifests stay in $HELD," \
  "or kubelet would start an empty cluster.${aside:+ Put the restored data there: mv -T $aside $LIVE.}"
systemctl start kubelet 2> /dev/null || : # one that died would start nothing; one that runs does not notice
for f in $FILES; do # etcd first; the API server would only crash and back off until etcd answers
  [ -e "$HELD/$f" ] || [ -L "$HELD/$f" ] || { [ -e "$MANIFESTS/$f" ] && continue; stop 8 "$f is missing, and not in $HELD: put it in $MANIFESTS by hand."; }
  if [ -e "$MANIFESTS/$f" ]; then say "$MANIFESTS/$f exists already; the other one stays in $HELD"; continue; fi
  mv "$HELD/$f" "$MANIFESTS/$f"; flush "$MANIFESTS"
  [ "$f" != @ETCD@ ] || ! systemctl restart kubelet 2> /dev/null || again=done # it knows of no stopped Pod to wait for, and lists again
  [ "$f" = @ETCD@ ] && [ -n "$HEALTH" ] && command -v curl > /dev/null || continue
  waited=0; until curl -gks @CURL@ --noproxy '*' -m 2 "$HEALTH" | grep -q true || [ $waited -ge 60 ]; do sleep 1; waited=$((waited + 1)); done
done
rm -f "$HELD"/*.new; rmdir "$HELD" 2> /dev/null || :
# After new data the revision has gone backwards: kubelet has to list again.
[ -n "${again-}" ] || { [ -z "${back-}" ] && [ ! -e "$T/undone.1" ]; } || systemctl restart kubelet 2> /dev/null || say "now run: systemctl restart kubelet"
rm -rf "$T/staged.unused" "$T/staged.partial" "$T"/snapshot.db*
state rolled-back
disarm; say "done: the cluster has its old data and its manifests; kubelet starts it now"
"""


def rollback_script(values):
    """The script for one transaction.

    `values`: host, id, path, live, data_dir, served (what etcd's command line calls that), manifests_dir, held, files (etcd's first), health_url, unit
    (path of the timer's units without their suffix), kind.
    """
    text = SCRIPT
    for name, value in (
        ("T", values["path"]),
        ("LIVE", values["live"]),
        ("DATA", values["data_dir"]),
        ("SERVED", values.get("served", values["data_dir"])),
        ("MANIFESTS", values["manifests_dir"]),
        ("HELD", values["held"]),
        ("FILES", " ".join(values["files"])),
        ("HEALTH", values["health_url"]),
        ("ETCD", values["files"][0]),
        ("UNIT", values["unit"]),
        ("KIND", values.get("kind", "restore")),
    ):
        text = text.replace("@%s@" % name, shlex.quote(value))
    # of its own node, whose answer is only waited for: a server is asked whoever it is, but not without what it may want to see
    tls = values.get("tls") or {}
    curl = ["--%s %s" % (name, shlex.quote(tls[name])) for name in ("cert", "key") if tls.get(name) and values["health_url"].startswith("https")]
    text = text.replace("@CURL@", " ".join(curl))
    return text.replace("@HOST@", values["host"]).replace("@ID@", values["id"])
