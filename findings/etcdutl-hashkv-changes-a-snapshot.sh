#!/usr/bin/env bash
# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# etcdutl 3.6.16: `etcdutl hashkv FILE`, which is documented as a way to print the hash of a database, opens the file for writing.
# A snapshot that etcdctl saved is another file afterwards, one that `etcdutl snapshot restore` refuses, because the SHA-256 that
# etcd appends to every snapshot no longer fits. Nothing warns of it, and the command ends with code 0.
#
# Needs Go and its module proxy. Seen on 2026-11-29:
#   before hashkv  restore ends with code 0
#   hashkv         code 0, and the file has changed
#   after hashkv   restore ends with code 1: Error: expected sha256 [...], got [...]
set -euo pipefail

version=v3.6.16
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
go get "go.etcd.io/etcd/server/v3@$version" "go.etcd.io/etcd/etcdctl/v3@$version" "go.etcd.io/etcd/etcdutl/v3@$version" >/dev/null 2>&1
for program in server etcdctl etcdutl; do
  go build -o "$program" "go.etcd.io/etcd/$program/v3"
done
./etcdutl version

port=$((20000 + RANDOM % 10000))
url=http://127.0.0.1:$port
peer=http://127.0.0.1:$((port + 1))
./server --data-dir data --listen-client-urls "$url" --advertise-client-urls "$url" \
  --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" --initial-cluster "default=$peer" >server.log 2>&1 &
server=$!
for _ in $(seq 100); do
  ./etcdctl --endpoints "$url" endpoint health >/dev/null 2>&1 && break
  sleep 0.2
done
for number in 1 2 3; do
  ./etcdctl --endpoints "$url" put "key$number" "value$number" >/dev/null
done
./etcdctl --endpoints "$url" snapshot save snapshot.db >/dev/null 2>&1

code=0
./etcdutl snapshot restore snapshot.db --data-dir first >/dev/null 2>&1 || code=$?
echo "before hashkv  restore ends with code $code"
[ "$code" = 0 ] || exit 1

before=$(sha256sum <snapshot.db)
code=0
./etcdutl hashkv snapshot.db >/dev/null 2>&1 || code=$?
after=$(sha256sum <snapshot.db)
[ "$code" = 0 ] && [ "$before" != "$after" ] || { echo "hashkv ended with code $code and left the file as it was: this has changed"; exit 1; }
echo "hashkv         code 0, and the file has changed"

code=0
words=$(./etcdutl snapshot restore snapshot.db --data-dir second 2>&1) || code=$?
echo "after hashkv   restore ends with code $code: $(grep -o 'Error: expected sha256' <<<"$words" || tail -1 <<<"$words") ..."
[ "$code" != 0 ] && grep -q "expected sha256" <<<"$words"
