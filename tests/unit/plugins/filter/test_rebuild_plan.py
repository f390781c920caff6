# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a cluster is rebuilt, decided of what is known."""

from __future__ import annotations

import copy
import pathlib

import pytest
import yaml
from ansible_collections.k8s_dr.etcd.plugins.filter.rebuild_plan import rebuild_plan
from ansible_collections.k8s_dr.etcd.plugins.module_utils._rebuild.manifests import described

KUBEADM = pathlib.Path(__file__).resolve().parents[2] / "fixtures" / "kubeadm-1.37.2"
CLUSTER = """
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
apiServer: {extraArgs: [{name: profiling, value: "false"}]}
kubernetesVersion: v1.37.1
%s
"""
PKI = ["ca.crt", "ca.key", "etcd/ca.crt", "etcd/ca.key", "front-proxy-ca.crt", "front-proxy-ca.key", "sa.key", "sa.pub"]
VOLUMES = [{"name": "pki", "hostPath": "/etc/kubernetes/pki", "mountPath": "/etc/kubernetes/pki", "readOnly": True, "pathType": "DirectoryOrCreate"}]


def manifest(component, flags=None, volumes=(), named=None, version="1.37.1"):
    found = {"component": component, "image": "x:v" + version, "version": version}
    return dict(found, flags=flags or {}, volumes=VOLUMES + list(volumes), named=named or {})


def source(endpoint="", **more):
    found = {
        "revision": 700,
        "sha256": "5" * 64,
        "created": "2026-01-02T03:04:05Z",
        "etcd_version": "3.6.10",
        "names": {"nodes": ["cp1", "cp2", "w1"], "deployments": ["shop/web"]},
        "cluster_configuration": CLUSTER % ("controlPlaneEndpoint: '%s'" % endpoint if endpoint else ""),
        "kubelet_configuration": "kind: KubeletConfiguration\n",
        "servers": ["https://%s%s" % (endpoint or "192.0.2.1", "" if ":" in endpoint else ":6443")],
        "nodes": [
            {"name": "cp1", "control_plane": True, "addresses": ["192.0.2.1"], "taints": []},
            {"name": "cp2", "control_plane": True, "addresses": ["192.0.2.2"], "taints": [{"key": "a", "effect": "NoSchedule"}]},
            {"name": "w1", "control_plane": False, "addresses": ["192.0.2.9"], "taints": []},
        ],
        "members": [{"name": "cp1", "peer_urls": ["https://192.0.2.1:2380"]}, {"name": "cp2", "peer_urls": ["https://192.0.2.2:2380"]}],
        "unreadable": [],
        "files": ["pki/" + name for name in PKI] + ["pki/apiserver.crt", "pki/apiserver.key", "pki/etcd/peer.key", "manifests/etcd.yaml"],
        "manifests": {},
        "other_pods": [],
        "foreign": [],
        "kms": False,
    }
    return dict(found, **more)


def machine(**more):
    found = {
        "hostname": "cp1",
        "address": "192.0.2.1",
        "versions": {"kubeadm": "v1.37.2", "kubelet": "v1.37.2"},
        "programs": {"kubeadm": "/usr/bin/kubeadm", "kubelet": "/usr/bin/kubelet"},
        "remains": [],
        "busy": [],
        "state": {},
        "existing": [],
        "endpoint_addresses": ["192.0.2.1"],
        "has_address": True,
        "manifests": {"etcd": manifest("etcd", version="3.7.3-0")},
        "preflight": [],
    }
    return dict(found, **more)


def options(**more):
    found = {
        "name": "",
        "address": "",
        "endpoint": "",
        "kubernetes_version": "",
        "init_configuration": {},
        "cluster_configuration": {},
        "remove_nodes": "control_plane",
        "state_dir": "/var/lib/k8s-dr-rebuild",
    }
    return dict(found, **more)


def documents(plan):
    return {one["kind"]: one for one in yaml.safe_load_all(plan["configuration"])}


def text(plan):
    return plan["refusal"] if isinstance(plan["refusal"], str) else " ".join(plan["refusal"])


def test_the_same_name_and_address():
    plan = rebuild_plan(source(), machine(), options())
    assert plan["refusal"] == ""
    found = documents(plan)
    assert found["InitConfiguration"] == {
        "apiVersion": "kubeadm.k8s.io/v1beta4",
        "kind": "InitConfiguration",
        "localAPIEndpoint": {"advertiseAddress": "192.0.2.1", "bindPort": 6443},
        # that of before, which had none
        "nodeRegistration": {"name": "cp1", "taints": []},
    }
    assert found["ClusterConfiguration"] == yaml.safe_load(CLUSTER % "")
    assert found["KubeletConfiguration"] == {"kind": "KubeletConfiguration"}
    assert (plan["server"], plan["moved"], plan["remove"], plan["stay"]) == ("https://192.0.2.1:6443", False, ["cp2"], ["w1"])
    assert plan["etcd"] == {"image": "x:v3.7.3-0", "version": "3.7.3-0", "initial_cluster": "cp1=https://192.0.2.1:2380", "peer_urls": "https://192.0.2.1:2380"}
    assert plan["names"] == {"nodes": ["cp1", "w1"], "deployments": ["shop/web"]}
    assert plan["record"] == {"snapshot": "5" * 64, "name": "cp1", "address": "192.0.2.1"}
    # its own address is no sign of another machine
    assert [(place["member"], place["host"], place["port"]) for place in plan["places"]] == [("cp2", "192.0.2.2", 6443), ("cp2", "192.0.2.2", 2380)]
    assert plan["follow"] == ["Nodes that still run find the API where it was: w1."]


def test_another_name_and_address_without_an_endpoint():
    plan = rebuild_plan(source(), machine(hostname="new", address="192.0.2.50"), options())
    assert (plan["server"], plan["moved"], plan["endpoint"], plan["remove"]) == ("https://192.0.2.50:6443", True, "", ["cp1", "cp2"])
    assert "controlPlaneEndpoint" not in documents(plan)["ClusterConfiguration"]
    assert documents(plan)["InitConfiguration"]["nodeRegistration"] == {"name": "new", "taints": []}
    assert "sed -i 's#server: https://.*#server: https://192.0.2.50:6443#'" in plan["follow"][0]


@pytest.mark.parametrize(
    ("endpoint", "given", "expected", "moved"),
    [
        # of a load balancer, which stays
        ("lb.example.com:443", {}, "lb.example.com:443", False),
        ("lb.example.com:443", {"endpoint": "new.example.com:6443"}, "new.example.com:6443", True),
        # of a machine that is gone
        ("cp2:6443", {}, "192.0.2.50:6443", True),
        ("192.0.2.2:8443", {}, "192.0.2.50:8443", True),
        ("[2001:db8::2]:6443", {"address": "2001:db8::50"}, "[2001:db8::2]:6443", False),
        ("lb.example.com", {}, "lb.example.com", False),
        # the operator points that name to the new machine
        ("cp2:6443", {"endpoint": "cp2:6443"}, "cp2:6443", False),
    ],
)
def test_the_endpoint(endpoint, given, expected, moved):
    plan = rebuild_plan(source(endpoint), machine(hostname="new", address="192.0.2.50"), options(**given))
    assert plan["refusal"] == ""
    assert (plan["endpoint"], plan["server"], plan["moved"]) == (expected, "https://" + expected + ("" if ":" in expected else ":6443"), moved)
    assert documents(plan)["ClusterConfiguration"]["controlPlaneEndpoint"] == expected


def test_an_endpoint_that_the_machine_does_not_find():
    plan = rebuild_plan(source("lb.example.com:443"), machine(endpoint_addresses=[]), options())
    assert "the machine does not find lb.example.com" in text(plan) and "Nothing was done" in text(plan)


def test_only_what_is_not_signed_for_a_machine_is_put_in_place():
    stored = source(
        files=["pki/" + name for name in PKI] + ["pki/apiserver.crt", "pki/mine.pem", "encryption-configuration.yaml", "files/etc/audit/policy.yaml"],
        manifests={
            "kube-apiserver": manifest(
                "kube-apiserver", {"encryption-provider-config": ["/enc/config.yaml"]}, named={"/enc/config.yaml": "/etc/kubernetes/enc/config.yaml"}
            )
        },
    )
    plan = rebuild_plan(stored, machine(manifests={}), options())
    files = {one["dest"]: (one["src"], one["mode"]) for one in plan["files"]}
    assert plan["refusal"] == ""
    assert files["/etc/kubernetes/pki/ca.key"] == ("pki/ca.key", "0600") and files["/etc/kubernetes/pki/ca.crt"] == ("pki/ca.crt", "0644")
    assert files["/etc/kubernetes/pki/mine.pem"] == ("pki/mine.pem", "0644") and "/etc/kubernetes/pki/apiserver.crt" not in files
    assert files["/etc/kubernetes/enc/config.yaml"] == ("encryption-configuration.yaml", "0600")
    assert not {one["dest"] for one in plan["files"]} & set(plan["signed"]) and "/etc/kubernetes/pki/etcd/peer.key" in plan["signed"]
    assert files["/etc/audit/policy.yaml"] == ("files/etc/audit/policy.yaml", "0600")


AUDIT = {"name": "audit", "hostPath": "/etc/audit", "mountPath": "/etc/audit", "readOnly": True, "pathType": ""}


def edited(**more):
    """A manifest that was edited by hand: kubeadm knows nothing of that."""
    flags = {"advertise-address": ["192.0.2.1"], "audit-policy-file": ["/etc/audit/policy.yaml"], "authorization-mode": ["Node,RBAC,Webhook"]}
    return source(manifests={"kube-apiserver": manifest("kube-apiserver", flags, [AUDIT], {"/etc/audit/policy.yaml": "/etc/audit/policy.yaml"})}, **more)


def previewed(**more):
    new = manifest("kube-apiserver", {"advertise-address": ["192.0.2.50"], "authorization-mode": ["Node,RBAC"]})
    return machine(manifests={"etcd": manifest("etcd", version="3.7.3-0"), "kube-apiserver": new}, **more)


def test_settings_of_the_manifests_that_kubeadm_does_not_know_are_kept():
    plan = rebuild_plan(edited(), previewed(existing=["/etc/audit/policy.yaml", "/etc/audit"]), options())
    assert plan["refusal"] == ""
    assert documents(plan)["ClusterConfiguration"]["apiServer"] == {
        "extraArgs": [
            {"name": "profiling", "value": "false"},
            {"name": "audit-policy-file", "value": "/etc/audit/policy.yaml"},
            {"name": "authorization-mode", "value": "Node,RBAC,Webhook"},
        ],
        "extraVolumes": [{"name": "audit", "hostPath": "/etc/audit", "mountPath": "/etc/audit", "readOnly": True}],
    }
    assert any("--audit-policy-file, --authorization-mode, /etc/audit" in line for line in plan["lines"])


def test_a_default_of_another_minor_version_is_no_setting():
    newer = previewed(existing=["/etc/audit/policy.yaml", "/etc/audit"], versions={"kubeadm": "v1.38.0", "kubelet": "v1.38.0"})
    plan = rebuild_plan(edited(), newer, options(kubernetes_version="v1.38.0"))
    assert [one["name"] for one in documents(plan)["ClusterConfiguration"]["apiServer"]["extraArgs"]] == ["profiling", "audit-policy-file"]
    assert documents(plan)["ClusterConfiguration"]["kubernetesVersion"] == "v1.38.0"


def test_files_that_are_nowhere():
    plan = rebuild_plan(edited(), previewed(), options())
    assert plan["paths"] == ["/etc/audit", "/etc/audit/policy.yaml"]
    assert "the control plane needs /etc/audit, /etc/audit/policy.yaml, which are neither stored with the snapshot nor on the machine" in text(plan)
    delivered = edited(files=["pki/" + name for name in PKI] + ["files/etc/audit/policy.yaml"])
    assert rebuild_plan(delivered, previewed(), options())["refusal"] == ""


def test_settings_with_the_address_of_another_machine_are_a_warning():
    given = source(cluster_configuration=CLUSTER % "etcd: {local: {extraArgs: [{name: listen-metrics-urls, value: 'http://192.0.2.2:2381'}]}}")
    new = previewed()
    assert any("--listen-metrics-urls=http://192.0.2.2:2381" in line for line in rebuild_plan(given, new, options())["lines"])


def test_a_kms_is_a_warning():
    assert any("has a KMS, so its plugin has to run" in line for line in rebuild_plan(source(kms=True), machine(), options())["lines"])


def test_more_for_kubeadm():
    given = options(
        init_configuration={"nodeRegistration": {"kubeletExtraArgs": [{"name": "node-ip", "value": "192.0.2.1"}], "taints": [{"key": "b"}]}},
        cluster_configuration={"etcd": {"local": {"imageTag": "3.7.3-0"}}},
    )
    found = documents(rebuild_plan(source(), machine(), given))
    assert found["InitConfiguration"]["nodeRegistration"] == {
        "name": "cp1",
        "taints": [{"key": "b"}],
        "kubeletExtraArgs": [{"name": "node-ip", "value": "192.0.2.1"}],
    }
    assert found["ClusterConfiguration"]["etcd"] == {"local": {"imageTag": "3.7.3-0"}}


@pytest.mark.parametrize(
    ("kubeadm", "kubelet", "wanted", "words"),
    [
        ("v1.37.0", "v1.37.9", "", ""),
        ("v1.38.1", "v1.37.9", "", ""),
        ("v1.38.1", "v1.34.0", "", ""),
        ("v1.38.1", "v1.38.1", "v1.38.1", ""),
        ("v1.38.1", "v1.38.1", "", "kubelet v1.38.1 is newer than the API server would be (v1.37.1)"),
        ("v1.38.1", "v1.38.1", "", "set cluster_rebuild_kubernetes_version=v1.38.1 to upgrade the cluster with the rebuild"),
        ("v1.39.0", "v1.37.1", "", "kubeadm v1.39.0 cannot set up Kubernetes v1.37.1"),
        ("v1.36.9", "v1.36.9", "", "kubeadm v1.36.9 cannot set up Kubernetes v1.37.1"),
        ("v1.37.2", "v1.33.9", "", "kubelet v1.33.9 is too old"),
        ("v1.39.0", "v1.39.0", "v1.39.0", "can be served by 1.37 or 1.38, not by v1.39.0"),
        ("v1.36.0", "v1.36.0", "v1.36.0", "can be served by 1.37 or 1.38, not by v1.36.0"),
        ("", "", "", "there is no kubeadm and no kubelet on the machine"),
    ],
)
def test_versions(kubeadm, kubelet, wanted, words):
    plan = rebuild_plan(source(), machine(versions={"kubeadm": kubeadm, "kubelet": kubelet}), options(kubernetes_version=wanted))
    assert words in text(plan) if words else plan["refusal"] == ""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cluster_configuration": "", "unreadable": ["configmaps/kube-system/kubeadm-config"]}, "ConfigMaps are encrypted in it"),
        ({"cluster_configuration": "{{{"}, "no ClusterConfiguration of kubeadm that can be read"),
        ({"cluster_configuration": CLUSTER % "etcd: {external: {endpoints: []}}"}, "has its etcd on other hosts"),
        ({"foreign": ["the cluster's CA (pki/ca.crt)"]}, "the cluster's CA (pki/ca.crt) is of another cluster than the snapshot"),
        ({"files": ["pki/ca.crt"]}, "lack pki/ca.key, pki/etcd/ca.crt"),
        ({"etcd_version": "3.8.0"}, "the snapshot is of etcd 3.8.0, and an older one, 3.7.3-0"),
    ],
)
def test_snapshots_that_are_refused(change, words):
    assert words in text(rebuild_plan(source(**change), machine(), options()))


@pytest.mark.parametrize(
    ("change", "given", "words"),
    [
        ({"remains": ["/etc/kubernetes/admin.conf exists"]}, {}, "the machine is or was part of a cluster: /etc/kubernetes/admin.conf exists"),
        ({"busy": ["kubeadm init runs (process 7, for 3 s)"]}, {}, "kubeadm init runs (process 7, for 3 s) on the machine"),
        ({"address": ""}, {}, "Set cluster_rebuild_address"),
        ({"has_address": False}, {"address": "192.0.2.77"}, "192.0.2.77 is no address of the machine"),
        ({"preflight": ["Swap]: swap is enabled"]}, {}, "kubeadm's preflight check Swap fails: swap is enabled"),
        ({"state": {"snapshot": "6" * 64, "name": "cp1", "address": "192.0.2.1"}}, {}, "another rebuild of this machine is unfinished (snapshot 666"),
        ({}, {"remove_nodes": "w1"}, "cluster_rebuild_remove_nodes is w1"),
        ({}, {"remove_nodes": ["cp9"]}, "cluster_rebuild_remove_nodes names cp9, and the other nodes in the snapshot are: cp2, w1"),
    ],
)
def test_machines_and_options_that_are_refused(change, given, words):
    assert words in text(rebuild_plan(source(), machine(**change), options(**given)))


def test_a_machine_with_this_very_rebuild_goes_on():
    begun = rebuild_plan(source(), machine(), options())["record"]
    assert rebuild_plan(source(), machine(state=begun, remains=["etcd runs (process 7)"]), options())["refusal"] == ""


def test_the_first_look_at_a_machine_asks_nothing_of_it():
    """Not even whether a rebuild is unfinished."""
    first = {name: value for name, value in machine(remains=["x"], state={"name": "x"}).items() if name not in ("manifests", "preflight", "has_address")}
    plan = rebuild_plan(source(), first, options())
    assert plan["refusal"] == "" and plan["configuration"]


@pytest.mark.parametrize(("wanted", "gone", "stay"), [("all", ["cp2", "w1"], []), (["w1"], ["w1"], ["cp2"]), ([], [], ["cp2", "w1"])])
def test_the_nodes_to_remove(wanted, gone, stay):
    plan = rebuild_plan(source(), machine(), options(remove_nodes=wanted))
    assert (plan["remove"], plan["stay"]) == (gone, stay)


def test_arguments_of_older_configurations_are_a_dictionary():
    given = edited()
    text = given["cluster_configuration"].replace("v1beta4", "v1beta3")
    given["cluster_configuration"] = text.replace('[{name: profiling, value: "false"}]', '{profiling: "false"}')
    plan = rebuild_plan(given, previewed(existing=["/etc/audit/policy.yaml", "/etc/audit"]), options())
    assert documents(plan)["ClusterConfiguration"]["apiServer"]["extraArgs"] == {
        "profiling": "false",
        "audit-policy-file": "/etc/audit/policy.yaml",
        "authorization-mode": "Node,RBAC,Webhook",
    }


def test_members_of_etcd_tell_of_nodes_that_cannot_be_read_or_were_deleted():
    given = source(
        nodes=[{"name": name, "control_plane": None, "addresses": [], "taints": None} for name in ("cp1", "w1")],
        members=[{"name": "cp1", "peer_urls": ["https://192.0.2.1:2380"]}, {"name": "cp3", "peer_urls": ["https://[2001:db8::3]:2380"]}],
        servers=[],
    )
    plan = rebuild_plan(given, machine(hostname="new", address="192.0.2.50"), options())
    assert plan["remove"] == ["cp1"] and plan["stay"] == ["w1"] and plan["moved"], "where the API was is not known"
    assert {(place["member"], place["host"]) for place in plan["places"]} == {("cp1", "192.0.2.1"), ("cp3", "2001:db8::3")}
    # nor which taints they had, so kubeadm sets its own
    assert documents(plan)["InitConfiguration"]["nodeRegistration"] == {"name": "new"}


def test_braces_in_a_snapshot_are_text():
    given = source(cluster_configuration=CLUSTER % "clusterName: '{{ lookup(1) }}'")
    plan = rebuild_plan(given, machine(), options())
    assert documents(plan)["ClusterConfiguration"]["clusterName"] == "{{ lookup(1) }}"


def test_what_is_known_is_not_changed():
    known = [edited(), previewed(), options()]
    before = copy.deepcopy(known)
    rebuild_plan(*known)
    assert known == before


def drill_machine(advertised="203.0.113.2", **more):
    previews = {"etcd": manifest("etcd", version="3.7.3-0"), "kube-apiserver": manifest("kube-apiserver", {"advertise-address": [advertised]})}
    return machine(**dict({"hostname": "drill1", "has_address": False, "manifests": previews}, **more))


def drilled(before=None, there=None, **more):
    return rebuild_plan(before or source("lb.example.com:6443"), there or drill_machine(), options(drill=True, **more))


def test_a_drill_is_where_nothing_of_the_living_cluster_is():
    plan = drilled()
    assert plan["refusal"] == "" and plan["places"] == [] and plan["address"] == "203.0.113.2"
    found = documents(plan)
    assert found["ClusterConfiguration"]["controlPlaneEndpoint"] == "203.0.113.2:6443", "kubeadm and kubelet would reach the living cluster"
    assert found["InitConfiguration"]["localAPIEndpoint"]["advertiseAddress"] == "203.0.113.2"
    assert found["InitConfiguration"]["nodeRegistration"]["kubeletExtraArgs"] == [{"name": "node-ip", "value": "203.0.113.2"}]
    assert plan["record"]["drill"] is True and "in a network of its own" in plan["lines"][0]


@pytest.mark.parametrize(
    ("version", "given", "kept"),
    [
        ("v1beta4", '[{name: profiling, value: "false"}, {name: advertise-address, value: 192.0.2.1}]', [{"name": "profiling", "value": "false"}]),
        ("v1beta3", '{profiling: "false", advertise-address: 192.0.2.1}', {"profiling": "false"}),
    ],
)
def test_a_drill_leaves_out_the_address_of_a_living_machine(version, given, kept):
    """kubeadm lets extraArgs win over localAPIEndpoint, and the modules ask the address in the manifest."""
    before = source("lb.example.com:6443")
    before["cluster_configuration"] = before["cluster_configuration"].replace('[{name: profiling, value: "false"}]', given).replace("v1beta4", version)
    plan = drilled(before, init_configuration={"localAPIEndpoint": {"advertiseAddress": "192.0.2.1", "bindPort": 7443}})
    assert plan["refusal"] == "" and any("--advertise-address=192.0.2.1, which a drill leaves out" in line for line in plan["lines"])
    assert documents(plan)["ClusterConfiguration"]["apiServer"]["extraArgs"] == kept
    assert documents(plan)["InitConfiguration"]["localAPIEndpoint"] == {"advertiseAddress": "203.0.113.2", "bindPort": 6443}
    again = rebuild_plan(before, machine(), options())
    assert "192.0.2.1" in str(documents(again)["ClusterConfiguration"]["apiServer"]["extraArgs"]), "a rebuild keeps it"


def test_a_drill_refuses_an_api_server_at_another_address():
    for advertised in ("192.0.2.1", "203.0.113.1"):
        words = "the API server of the drill would have --advertise-address=%s instead of 203.0.113.2" % advertised
        assert words in text(drilled(there=drill_machine(advertised)))
    assert "--advertise-address= instead of" in text(drilled(there=machine(hostname="drill1")))


def test_kubelet_of_a_drill_has_the_name_that_was_checked():
    for version, given in (("v1beta4", [{"name": "hostname-override", "value": "cp1"}]), ("v1beta3", {"hostname-override": "cp1"})):
        before = source("lb.example.com:6443")
        before["cluster_configuration"] = before["cluster_configuration"].replace("v1beta4", version)
        plan = drilled(before, init_configuration={"nodeRegistration": {"name": "cp1", "kubeletExtraArgs": given}})
        assert "cluster_rebuild_init_configuration sets --hostname-override of kubelet" in text(plan)
    plan = drilled(init_configuration={"nodeRegistration": {"name": "cp1"}})
    assert plan["refusal"] == "" and documents(plan)["InitConfiguration"]["nodeRegistration"]["name"] == "drill1" == plan["record"]["name"]
    assert drilled(init_configuration={"nodeRegistration": None})["refusal"] == ""


@pytest.mark.parametrize(
    ("subnets", "address"), [("10.96.0.0/12", "203.0.113.2"), ("fd00::/108,10.96.0.0/12", "2001:db8:6b38::2"), ("10.96.0.0/12,fd00::/108", "203.0.113.2")]
)
def test_the_network_of_a_drill_is_of_the_family_of_services(subnets, address):
    before = source(cluster_configuration=CLUSTER % ("networking: {serviceSubnet: '%s'}" % subnets))
    plan = drilled(before, drill_machine(address))
    assert plan["refusal"] == "" and plan["address"] == address and plan["server"] == "https://%s:6443" % ("[%s]" % address if ":" in address else address)


def test_arguments_of_kubelet_stay_in_a_drill():
    given = {"nodeRegistration": {"criSocket": "unix:///run/crio/crio.sock", "kubeletExtraArgs": [{"name": "v", "value": "2"}]}}
    plan = drilled(init_configuration=given)
    assert [one["name"] for one in documents(plan)["InitConfiguration"]["nodeRegistration"]["kubeletExtraArgs"]] == ["v", "node-ip"]
    assert plan["record"]["cri_socket"] == "unix:///run/crio/crio.sock"


def test_a_drill_neither_runs_pods_of_a_node_nor_replaces_files():
    before = source(files=["pki/" + name for name in PKI] + ["files/etc/audit/policy.yaml"])
    assert "cp1 is the name of a node in the snapshot" in text(drilled(before, drill_machine(hostname="cp1")))
    there = drill_machine(existing=["/etc/audit/policy.yaml"])
    assert "/etc/audit/policy.yaml is on the machine, and a drill would replace" in text(drilled(before, there))
    plan = drilled(before)
    assert plan["paths"] == ["/etc/audit/policy.yaml"] == plan["record"]["files"] and plan["refusal"] == ""


def test_a_drill_counts_no_file_that_only_its_machine_has():
    previews = dict(previewed()["manifests"], **{"kube-apiserver": manifest("kube-apiserver", {"advertise-address": ["203.0.113.2"]})})
    has = ["/etc/audit", "/etc/audit/policy.yaml", "/etc/localtime", "/usr/share/zoneinfo/UTC"]
    plan = drilled(edited(), drill_machine(manifests=previews, existing=has))
    assert "the files that came with the snapshot lack /etc/audit, /etc/audit/policy.yaml, which the control plane needs" in text(plan)
    assert "there" not in text(plan), "it must not be put on the machine"
    before = edited(files=["pki/" + name for name in PKI] + ["files/etc/audit/policy.yaml"])
    for path in ("/etc/localtime", "/usr/share/zoneinfo/UTC"):
        before["manifests"]["kube-apiserver"]["volumes"].append(dict(AUDIT, hostPath=path, mountPath=path))
    # of the system, and in no bundle
    assert drilled(before, drill_machine(manifests=previews, existing=has[2:]))["refusal"] == ""
    assert "lack /etc/localtime" in text(drilled(before, drill_machine(manifests=previews)))


def test_a_drill_and_a_rebuild_do_not_take_each_other_up():
    drill = drilled()["record"]
    rebuild = rebuild_plan(source(), machine(), options())["record"]
    assert "drill" not in rebuild
    there = machine(hostname="drill1", state=drill, remains=["etcd runs"])
    plan = rebuild_plan(source(), there, options())
    assert "a drill of a rebuild was interrupted on this machine" in text(plan) and "rebuild_drill" in text(plan)
    assert "another rebuild of this machine is unfinished" in text(drilled(there=drill_machine(state=rebuild)))
    assert "is or was part of a cluster" in text(drilled(there=drill_machine(remains=["etcd runs"])))


@pytest.mark.parametrize("version", ["v1beta4", "v1beta3"])
def test_a_drill_writes_no_audit_logs(version):
    """They would hold what is in Secrets."""
    flags = {"audit-log-path": ["/var/log/audit/audit.log"], "audit-webhook-config-file": ["/etc/audit/hook"], "authorization-mode": ["Node,RBAC,Webhook"]}
    given = "[{name: audit-log-path, value: /var/log/a}, {name: profiling, value: 'false'}]"
    if version == "v1beta3":
        given = "{audit-log-path: /var/log/a, profiling: 'false'}"
    before = source(manifests={"kube-apiserver": manifest("kube-apiserver", flags)})
    before["cluster_configuration"] = CLUSTER.replace('[{name: profiling, value: "false"}]', given).replace("v1beta4", version) % ""
    for drill, names in ((True, set()), (False, {"audit-log-path", "audit-webhook-config-file"})):
        there = previewed(hostname="drill1", address="192.0.2.50")
        found = documents(rebuild_plan(before, there, options(drill=drill)))["ClusterConfiguration"]["apiServer"]["extraArgs"]
        assert {one if isinstance(one, str) else one["name"] for one in found} == {"authorization-mode", "profiling"} | names


def test_a_bundle_of_kubeadms_own_manifests_lacks_nothing():
    """A drill refuses all that is lacking. The one file in them that is not kubeadm's own is named by a flag, and so in the bundle."""
    names = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
    pods = {name: described((KUBEADM / (name + ".yaml.txt")).read_text()) for name in names}
    files = source()["files"] + ["files/etc/kubernetes/authentication.yaml"]
    assert drilled(source("lb.example.com:6443", manifests=pods, files=files))["refusal"] == ""
    assert "lack /etc/kubernetes/authentication.yaml, which" in text(drilled(source("lb.example.com:6443", manifests=pods)))
