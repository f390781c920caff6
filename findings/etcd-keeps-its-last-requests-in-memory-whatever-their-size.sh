#!/usr/bin/env bash
# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# etcd 3.7.3: how much memory it needs does not follow the size of its database. It keeps between 5,000 and 15,000 of the last requests
# in memory, counted, not measured. After 500 puts of 1 MB to one key, compaction and defragmentation leave a database of 1 MB, and a
# process with 0.9 GB of memory of its own. That stays so until 15,000 more requests have come, however small, and for some two
# minutes after them. A benchmark that fills 8 GB in large values and then measures measures an etcd with 9.5 GB of memory.
#
# Needs Go and its module proxy, and curl. Seen on 2026-11-30:
#   500 puts of 1 MB to one key   database 547 MB, memory 899 MB
#   compacted, defragmented       database 1 MB, memory 899 MB
#   5000 small puts later         database 1 MB, memory 937 MB
#   15000 small puts later        database 1 MB, memory 35 MB
set -euo pipefail

version=v3.7.3
place=$(mktemp -d)
server=
cleanup() {
  [ -z "$server" ] || kill "$server" 2>/dev/null || true
  chmod -R u+w "$place"
  rm -rf "$place"
}
trap cleanup EXIT
cd "$place"

go mod init example.com/finding >/dev/null 2>&1
go get "go.etcd.io/etcd/server/v3@$version" "go.etcd.io/etcd/etcdctl/v3@$version" >/dev/null 2>&1
for program in server etcdctl; do
  go build -o "$program" "go.etcd.io/etcd/$program/v3"
done

port=$((20000 + RANDOM % 10000))
url=http://127.0.0.1:$port
ctl() { ./etcdctl --endpoints "$url" "$@"; }
./server --data-dir data --listen-client-urls "$url" --advertise-client-urls "$url" \
  --listen-peer-urls "http://127.0.0.1:$((port + 1))" --unsafe-no-fsync >etcd.log 2>&1 &
server=$!
for _ in $(seq 100); do
  ctl endpoint health >/dev/null 2>&1 && break
  sleep 0.2
done

memory() { awk '/^RssAnon/ {print int($2 / 1024)}' "/proc/$server/status"; }
show() { printf '%-29s database %d MB, memory %d MB\n' "$1" "$(($(stat -c %s data/member/snap/db) >> 20))" "$(memory)"; }
# all over one connection
small_puts() {
  seq "$1" | awk -v url="$url/v3/kv/put" '{printf "%surl=%s\ndata={\"key\":\"c21hbGw=\"}\noutput=/dev/null\nsilent\n", (NR > 1 ? "next\n" : ""), url}' | curl --config -
}

head -c 750000 /dev/urandom | base64 --wrap 0 >value
for _ in $(seq 500); do
  ctl put key <value >/dev/null
done
show "500 puts of 1 MB to one key"
revision=$(ctl --write-out=json get key --keys-only | sed -E 's/.*"revision":([0-9]+).*/\1/')
ctl compact --physical "$revision" >/dev/null
ctl defrag >/dev/null
sleep 5
show "compacted, defragmented"
[ "$(($(stat -c %s data/member/snap/db) >> 20))" -lt 20 ] && [ "$(memory)" -gt 450 ] || { echo "its memory follows the database: this has changed"; exit 1; }
small_puts 5000
show "5000 small puts later"
[ "$(memory)" -gt 450 ] || { echo "5000 requests are enough: this has changed"; exit 1; }
small_puts 10000
# its garbage goes back to the kernel little by little
for _ in $(seq 30); do
  [ "$(memory)" -gt 200 ] || break
  sleep 10
done
show "15000 small puts later"
[ "$(memory)" -lt 200 ] || { echo "15000 requests are not enough: this has changed"; exit 1; }
