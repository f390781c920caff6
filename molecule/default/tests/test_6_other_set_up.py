# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Clusters that are not set up as kubeadm does it."""

from __future__ import annotations

import pytest

DATA, ELSEWHERE = "/var/lib/etcd", "/var/lib/etcd-from-backup"

# $1: the directory that etcd's manifest mounts as its data now; $2: the one that it is to mount; $3: what is done to the manifests besides.
MOUNT = r"""
set -eu
cd /etc/kubernetes/manifests
mkdir ../aside
mv etcd.yaml kube-apiserver.yaml ../aside/
# Before it starts etcd, kubelet deletes the mirror Pod of the one before. An API server that lives without etcd lets it wait 34 s for that, again and again.
pkill -KILL -x kube-apiserver
pkill -KILL -x etcd
while pgrep -x etcd >/dev/null || crictl pods -q --name '^etcd-' | grep -q .; do sleep 0.2; done
rm -rf "$2"
cp -a "$1" "$2"
eval "$3"
sed -i "s#path: $1\$#path: $2#" ../aside/etcd.yaml
mv ../aside/etcd.yaml .
until curl -fs -o /dev/null http://127.0.0.1:2381/readyz; do sleep 0.2; done
mv ../aside/kube-apiserver.yaml .
rmdir ../aside
"""

# A sidecar as a KMS plugin is one, before the container that counts and with flags that are not its; an etcd whose client URL speaks gRPC alone.
EDIT = r"""
cp -p ../aside/*.yaml /etc/environment /root/
sidecar='  - name: kms\n    image: IMAGE\n    command: [/pause, --data-dir=/nowhere, --secure-port=9999, --listen-metrics-urls=none]'
for name in etcd kube-apiserver; do sed -i "s#^  containers:#&\n$sidecar#" ../aside/$name.yaml; done
sed -i 's#^    - --listen-client-urls=#    - --listen-client-http-urls=https://127.0.0.1:2382\n&#' ../aside/etcd.yaml
for name in http_proxy https_proxy all_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY; do echo "$name=http://127.0.0.1:9"; done >>/etc/environment
"""
BACK = "mv /root/etcd.yaml /root/kube-apiserver.yaml ../aside/; mv /root/environment /etc/"


@pytest.fixture
def elsewhere(cluster):
    """etcd's --data-dir is /var/lib/etcd, where it sees another directory of the host; what the host has under that name is stale."""
    pause = cluster.get("-n", "shop", "deployment/web")["spec"]["template"]["spec"]["containers"][0]["image"]
    cluster.run("cp1", "sh", "-c", MOUNT, "mount", DATA, ELSEWHERE, EDIT.replace("IMAGE", pause))
    cluster.wait_ready()
    yield ELSEWHERE
    cluster.run("cp1", "sh", "-c", MOUNT, "mount", ELSEWHERE, DATA, BACK)
    cluster.wait_ready()
    cluster.run("cp1", "rm", "-rf", ELSEWHERE, ELSEWHERE + ".restore")


def test_data_that_is_mounted_under_another_name_beside_a_sidecar_and_a_proxy(cluster, cp1, elsewhere):
    """It is restored, and rolled back; the directory that has its name is left alone, the sidecar's flags are not etcd's, and no proxy is asked."""
    stale = cp1.file(DATA + "/member/snap/db").sha256sum
    earlier = len(cluster.transactions())
    cluster.note("before")
    cluster.snapshot()
    cluster.note("after")
    cluster.restore()
    cluster.wait_ready()
    assert (cluster.noted("before"), cluster.noted("after")) == ("yes", None)
    found = cp1.check_output("ls %s.restore", elsewhere).split()
    (restore,) = [name for name in found if name != "cluster-ids"]
    assert cp1.file("%s.restore/%s/old/member/snap/db" % (elsewhere, restore)).exists
    cluster.playbook("rollback.yml", "-l", "cp1", "-e", "etcd_restore_undo=true")
    cluster.wait_ready()
    assert (cluster.noted("before"), cluster.noted("after")) == ("yes", "yes")
    assert len(cluster.transactions()) == earlier
    assert cp1.file(DATA + "/member/snap/db").sha256sum == stale
