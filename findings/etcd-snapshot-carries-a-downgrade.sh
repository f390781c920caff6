#!/usr/bin/env bash
# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# etcd 3.7.3: a snapshot that is taken while `etcdctl downgrade enable` is in force holds that job. `etcdutl snapshot restore` takes
# the members out of the data, and leaves the job: a new cluster of etcd 3.7.3 that is made of the snapshot, and that nobody has told
# anything, is being downgraded to 3.6, keeps its data in the format of 3.6, and stays so until `etcdctl downgrade cancel`. That the
# cluster of before has cancelled its downgrade long ago changes nothing.
# `etcdctl downgrade cancel` says "success" and ends with code 0 as well where there is nothing to cancel.
#
# Needs Go and its module proxy. Seen on 2026-11-30:
#   cluster after cancel    storage version 3.7.0, no downgrade
#   restored from snapshot  storage version 3.6.0, downgrade to 3.6.0
#   cancel                  code 0, and once more code 0
#   restored, after cancel  storage version 3.7.0, no downgrade
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
go get "go.etcd.io/etcd/server/v3@$version" "go.etcd.io/etcd/etcdctl/v3@$version" "go.etcd.io/etcd/etcdutl/v3@$version" >/dev/null 2>&1
for program in server etcdctl etcdutl; do
  go build -o "$program" "go.etcd.io/etcd/$program/v3"
done

port=$((20000 + RANDOM % 10000))
url=http://127.0.0.1:$port
peer=http://127.0.0.1:$((port + 1))
ctl() { ./etcdctl --endpoints "$url" "$@"; }

start() {
  ./server --data-dir "$1" --listen-client-urls "$url" --advertise-client-urls "$url" \
    --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" --initial-cluster "default=$peer" >"$1.log" 2>&1 &
  server=$!
  for _ in $(seq 100); do
    ctl endpoint health >/dev/null 2>&1 && return
    sleep 0.2
  done
  return 1
}

state() {
  ctl --write-out=json endpoint status | sed -E 's/.*"storageVersion":"([^"]*)".*"downgradeInfo":\{([^}]*)\}.*/storage version \1, \2/; s/, "enabled":true,"targetVersion":"([^"]*)"/, downgrade to \1/; s/, $/, no downgrade/'
}

# The leader looks every four seconds.
wait_for() {
  for _ in $(seq 60); do
    [ "$(state)" != "$1" ] || return 0
    sleep 0.5
  done
  echo "it is '$(state)', and was '$1': this has changed"
  return 1
}

newer="storage version 3.7.0, no downgrade"
older="storage version 3.6.0, downgrade to 3.6.0"
start data
ctl put key value >/dev/null
wait_for "$newer"
ctl downgrade enable 3.6 >/dev/null
wait_for "$older"
ctl snapshot save snapshot.db >/dev/null 2>&1
ctl downgrade cancel >/dev/null
wait_for "$newer"
echo "cluster after cancel    $(state)"
kill "$server"
wait "$server" || true

./etcdutl snapshot restore snapshot.db --data-dir restored --initial-cluster "default=$peer" \
  --initial-advertise-peer-urls "$peer" >/dev/null 2>&1
start restored
wait_for "$older"
# more than one look of the leader
sleep 10
wait_for "$older"
echo "restored from snapshot  $(state)"

first=0 second=0
ctl downgrade cancel | grep -q success || first=$?
wait_for "$newer"
ctl downgrade cancel | grep -q success || second=$?
[ "$first" = 0 ] && [ "$second" = 0 ] || { echo "cancel says something else: this has changed"; exit 1; }
echo "cancel                  code 0, and once more code 0"
echo "restored, after cancel  $(state)"
