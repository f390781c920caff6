# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The `decide` script of a restore of several nodes.  Private to this collection.

All nodes keep the restored data, or none does, also when their controller and the network between them are gone.  Each node votes
once it was validated; the decision is one transaction on one key of the restored etcd, taken by whoever comes first: the play, or a node's
rollback timer.  What makes it safe:

- A node that has not voted may go back on its own: without its vote nobody can decide to keep the data.
- A node that has voted does what the restored etcd says, and asks again for as long as that has no quorum.
- A node that serves another cluster's data has gone back; it would not have after a decision to keep the data, so there was none.  Alone it may have no
  quorum, and up to etcd 3.5 answers no client then (3.5.35: embed/serve.go waits for ReadyNotify; etcd-io/etcd#13524), so its peer URL is asked as well,
  which says the cluster's id in any case (run with 3.4.23 to 3.7.3; etcdserver/api/etcdhttp/peer.go, peerMembersHandler).
- A node that was retired does not go back while a restored one serves: they would be two clusters.
"""

from __future__ import annotations

import shlex

PREFIX = "k8s-dr.etcd/restore/"

SCRIPT = r"""#!/bin/sh
# Whether all nodes keep restore @ID@: the restored etcd knows, and nobody else. Ends with 1 while it cannot be asked.
#   ./decide          only prints what was decided: `committed`, `rolled-back` or `undecided`
#   ./decide --timer  decides, unless that was done: for `committed` when all nodes have voted for it, else for `rolled-back`
#   ./decide abort    decides for `rolled-back`, unless that was done
#   ./decide vote     this node was validated and would keep the data
#   ./decide serving  prints `serving` if a restored node answers, as the cluster of the restore
set -uf # an address in brackets is no pattern
T=@T@ KEY=@KEY@ ENDPOINTS=@ENDPOINTS@ PEERS=@PEERS@ VOTERS=@VOTERS@ TOOL=@TOOL@
BEFORE=@BEFORE@ BEFORE_HEX=@BEFORE_HEX@ # ids of the cluster before, as etcdctl prints them and as etcd's header has them; empty if not known
export ETCDCTL_API=3; unset http_proxy https_proxy all_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY
unset ETCDCTL_ENDPOINTS ETCDCTL_CACERT ETCDCTL_CERT ETCDCTL_KEY ETCDCTL_USER ETCDCTL_DISCOVERY_SRV
ask() { at=$1; shift; "$TOOL" --endpoints="$at" @TLS@ --dial-timeout=2s --command-timeout=5s "$@" 2> /dev/null; }
cluster() { ask "$1" endpoint status -w json | sed -n 's/.*"cluster_id":\([0-9]*\).*/\1/p'; }
peer() { # the same of a peer URL, in hexadecimal; it offers HTTP/2 and serves nothing but gRPC by it
  curl -gs --http1.1 --connect-timeout 2 -m 5 @CURL@ -D - -o /dev/null "$1/members" 2> /dev/null |
    tr -d '\r' | sed -n 's/^[Xx]-[Ee]tcd-[Cc]luster-[Ii][Dd]: *//p'
}
decision() { ask "$1" get --print-value-only "$KEY/decision"; }
decide_for() { # unless there is a decision; with the compares on standard input
  { cat; printf 'version("%s/decision") = "0"\n\nput %s/decision %s\n\n\n' "$KEY" "$KEY" "$2"; } | ask "$1" txn > /dev/null
}
if [ "${1-}" = serving ]; then
  for e in $ENDPOINTS; do
    is=$(cluster "$e"); [ -z "$is" ] || case " $BEFORE " in *" $is "*) ;; *) echo serving; exit 0 ;; esac
  done
  # without an id before, the answer of a peer says nothing: it needs no quorum
  [ -z "$BEFORE" ] || for e in $PEERS; do
    is=$(peer "$e"); [ -z "$is" ] || case " $BEFORE_HEX " in *" $is "*) ;; *) echo serving; exit 0 ;; esac
  done
  exit 1
fi
# it ended before it voted
[ -e "$T/restored-cluster" ] || [ $# = 0 ] || [ "$1" = vote ] || { echo rolled-back; exit 0; }
read -r restored < "$T/restored-cluster" || exit 1
elsewhere=
for e in $ENDPOINTS; do
  is=$(cluster "$e")
  [ -n "$is" ] || continue
  if [ "$is" != "$restored" ]; then elsewhere=$e; continue; fi
  if [ "${1-}" = vote ]; then
    # a vote that comes after the decision changes nothing
    if ask "$e" put "$KEY/votes/"@VOTER@ yes > /dev/null; then echo voted; exit 0; fi
    continue
  fi
  found=$(decision "$e") || continue
  if [ -z "$found" ] && [ $# = 0 ]; then found=undecided; fi
  if [ -z "$found" ] && [ "$1" = --timer ]; then
    for voter in $VOTERS; do printf 'version("%s/votes/%s") > "0"\n' "$KEY" "$voter"; done | decide_for "$e" committed
    found=$(decision "$e") || continue
  fi
  if [ -z "$found" ]; then
    decide_for "$e" rolled-back < /dev/null
    found=$(decision "$e") || continue
  fi
  [ -z "$found" ] || { echo "$found"; exit 0; }
done
[ "${1-}" != vote ] || exit 1
hex=$(sed -n 2p "$T/restored-cluster")
[ -n "$elsewhere" ] || [ -z "$hex" ] || for e in $PEERS; do
  is=$(peer "$e"); [ "${is:-$hex}" = "$hex" ] || { elsewhere=$e; break; }
done
if [ -n "$elsewhere" ]; then echo rolled-back; exit 0; fi
exit 1
"""


def decide_script(values):
    """The script for one node.

    `values`: id, path, voter (this node's name), voters (all nodes' names), endpoints and peers (client and peer URLs of the restored members), tls (cacert,
    cert, key), etcdctl, cluster_ids (all that the nodes had before the restore, in hexadecimal).
    """
    text = SCRIPT
    given = [(name, shlex.quote(values["tls"][name])) for name in ("cacert", "cert", "key") if values["tls"].get(name)]
    before = [int(one, 16) for one in values.get("cluster_ids", [])]
    for name, value in (
        ("T", shlex.quote(values["path"])),
        ("KEY", shlex.quote(PREFIX + values["id"])),
        ("ENDPOINTS", shlex.quote(" ".join(values["endpoints"]))),
        ("PEERS", shlex.quote(" ".join(values.get("peers", [])))),
        ("VOTERS", shlex.quote(" ".join(values["voters"]))),
        ("VOTER", shlex.quote(values["voter"])),
        ("TOOL", shlex.quote(values["etcdctl"])),
        ("TLS", " ".join("--%s=%s" % one for one in given)),
        ("CURL", " ".join("--%s %s" % one for one in given)),
        ("BEFORE", shlex.quote(" ".join("%d" % one for one in before))),
        ("BEFORE_HEX", shlex.quote(" ".join("%x" % one for one in before))),
    ):
        text = text.replace("@%s@" % name, value)
    return text.replace("@ID@", values["id"])
