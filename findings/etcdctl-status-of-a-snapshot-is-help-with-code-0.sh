#!/usr/bin/env bash
# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# etcdctl 3.6.16 and 3.7.3: `etcdctl snapshot status FILE`, which every guide to etcd backups ends with, no longer exists, but it is
# no error either. It prints the help of `etcdctl snapshot` and ends with code 0, for a file that is there and for one that is not.
# So a script that checks a backup by the exit code calls every backup good after an upgrade of etcdctl. A flag that the command
# used to have (--write-out=json) changes nothing; `etcdctl snapshot restore FILE` behaves the same.
#
# Needs Go and its module proxy. Seen on 2026-11-29, for both versions:
#   snapshot status /dev/null                    code 0, prints its usage
#   snapshot status /nonexistent/a.db            code 0, prints its usage
#   snapshot status --write-out=json /dev/null   code 0, prints its usage
#   snapshot restore /nonexistent/a.db           code 0, prints its usage
set -euo pipefail

place=$(mktemp -d)
trap 'chmod -R u+w "$place"; rm -rf "$place"' EXIT

for version in v3.6.16 v3.7.3; do
  mkdir "$place/$version"
  cd "$place/$version"
  go mod init example.com/finding >/dev/null 2>&1
  go get "go.etcd.io/etcd/etcdctl/v3@$version" >/dev/null 2>&1
  go build -o etcdctl "go.etcd.io/etcd/etcdctl/v3"
  ./etcdctl version | head -1
  for arguments in "status /dev/null" "status /nonexistent/a.db" "status --write-out=json /dev/null" "restore /nonexistent/a.db"; do
    code=0
    # shellcheck disable=SC2086
    words=$(./etcdctl snapshot $arguments 2>&1) || code=$?
    first=$(grep -m 1 -oiE "usage|error" <<<"$words" | tr "[:upper:]" "[:lower:]" || true)
    printf '  snapshot %-36s code %d, prints its %s\n' "$arguments" "$code" "$first"
    [ "$code" = 0 ] && grep -qiE 'save' <<<"$words"
  done
done
