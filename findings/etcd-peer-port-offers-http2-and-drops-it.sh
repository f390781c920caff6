#!/usr/bin/env bash
# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# etcd 3.7.3: over TLS, a peer URL offers HTTP/2 (ALPN h2) and closes the connection at the first request by it, so that curl, which
# takes what is offered, gets no answer from /version and /members there: it looks as if no etcd served. With --http1.1 both answer, also
# without a quorum, while the client URL answers neither then. The client URL offers h2 as well, and serves it.
#
# Needs Go and its module proxy, curl and openssl. Seen on 2026-12-01, with one of two members started and then both:
#   alone     peer URL: h2 offered, /members by HTTP/2 no answer, by HTTP/1.1 200; client URL: /version no answer
#   together  peer URL: h2 offered, /members by HTTP/2 no answer, by HTTP/1.1 200; client URL: /version 200 by HTTP/2
set -euo pipefail

version=v3.7.3
place=$(mktemp -d)
servers=()
cleanup() {
  [ ${#servers[@]} = 0 ] || kill "${servers[@]}" 2>/dev/null || true
  chmod -R u+w "$place"
  rm -rf "$place"
}
trap cleanup EXIT
cd "$place"

go mod init example.com/finding >/dev/null 2>&1
go get "go.etcd.io/etcd/server/v3@$version" >/dev/null 2>&1
go build -o etcd go.etcd.io/etcd/server/v3

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=example -addext subjectAltName=IP:127.0.0.1 \
  -keyout key.pem -out cert.pem 2>/dev/null

port=$((20000 + RANDOM % 10000))
url() { echo "https://127.0.0.1:$((port + $1))"; }

start() { # number of the member
  ./etcd --name "m$1" --data-dir "data$1" --listen-client-urls "$(url "$1")" --advertise-client-urls "$(url "$1")" \
    --listen-peer-urls "$(url 1"$1")" --initial-advertise-peer-urls "$(url 1"$1")" --initial-cluster "m1=$(url 11),m2=$(url 12)" \
    --cert-file cert.pem --key-file key.pem --peer-cert-file cert.pem --peer-key-file key.pem --peer-trusted-ca-file cert.pem \
    >"log$1" 2>&1 &
  servers+=($!)
}

get() { # the status, or "no answer"
  curl --silent --max-time 4 --cacert cert.pem --cert cert.pem --key key.pem --output /dev/null --write-out '%{http_code} by HTTP/%{http_version}' "$@" ||
    true
}

offered() {
  echo | openssl s_client -connect "127.0.0.1:$((port + 11))" -alpn h2,http/1.1 -cert cert.pem -key key.pem 2>/dev/null |
    sed -n 's/^ALPN protocol: /offers /p'
}

seen() {
  echo "peer $(offered), $(get "$(url 11)/members"), $(get --http1.1 "$(url 11)/members"); client $(get "$(url 1)/version")"
}

expect() {
  for _ in $(seq 60); do
    found=$(seen)
    [ "$found" != "$2" ] || { echo "$1  $found"; return; }
    sleep 0.5
  done
  echo "$1: it is '$found', and was '$2': this has changed"
  exit 1
}

start 1
expect alone "peer offers h2, 000 by HTTP/0, 200 by HTTP/1.1; client 000 by HTTP/0"
start 2
expect together "peer offers h2, 000 by HTTP/0, 200 by HTTP/1.1; client 200 by HTTP/2"
