from __future__ import annotations

import copy

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._validation import judge, observe, seconds

NOW = 1_800_000_000
WELL = {
    "nodes": {"cp1": {"ready": True, "renewed": NOW + 5, "control_plane": True}},
    "leases": {"kube-controller-manager": NOW + 2, "kube-scheduler": NOW + 2},
    "workloads": {"deployments shop/web": {"wanted": 2, "ready": 2}, "daemonsets kube-system/kube-proxy": {"wanted": 1, "ready": 1}},
    "secret_read": True,
}


def problems(found):
    return {layer: found[layer]["problems"] for layer in found if found[layer]["problems"]}


def warnings(found):
    return {layer: found[layer]["warnings"] for layer in found if found[layer]["warnings"]}


@pytest.fixture
def seen():
    return copy.deepcopy(WELL)


def test_well(seen):
    found = judge(seen, NOW, {"nodes": ["cp1"], "deployments": ["shop/web"]})
    assert not problems(found) and not warnings(found)


def test_a_node_that_is_ready_on_paper_only(seen):
    """What etcd held when the snapshot was taken says Ready; only a renewed lease shows a living kubelet."""
    seen["nodes"]["cp1"]["renewed"] = NOW - 1
    assert "does not renew its lease" in problems(judge(seen, NOW))["nodes"][0]


def test_controllers_that_do_not_work(seen):
    seen["leases"] = {"kube-scheduler": NOW - 100}
    assert len(problems(judge(seen, NOW))["system"]) == 2


def test_an_empty_cluster_is_not_well():
    empty = {"nodes": {}, "leases": {}, "workloads": {}, "secret_read": False}
    assert "it is empty" in problems(judge(empty, NOW))["nodes"][0]


@pytest.mark.parametrize(
    ("names", "layer"),
    [({"nodes": ["cp9"]}, "nodes"), ({"deployments": ["shop/gone"]}, "workloads"), ({"daemonsets": ["kube-system/gone"]}, "system")],
)
def test_what_the_snapshot_holds_must_be_there(seen, names, layer):
    assert "in the snapshot but not in the cluster" in problems(judge(seen, NOW, names))[layer][0]


def test_what_was_well_before_must_be_well_again(seen):
    seen["workloads"]["deployments shop/web"]["ready"] = 1
    assert problems(judge(seen, NOW, baseline=WELL))["workloads"] == ["deployment shop/web has 1 of 2 Pods ready"]


def test_what_was_not_well_before_is_a_warning(seen):
    seen["workloads"]["deployments shop/web"]["ready"] = 0
    before = copy.deepcopy(seen)
    found = judge(seen, NOW, baseline=before)
    assert not problems(found)
    assert warnings(found)["workloads"] == ["deployment shop/web has 0 of 2 Pods ready, and was not well before"]


def test_what_nobody_saw_well_is_held_against_a_cluster_only_when_strict(seen):
    """After a restore of a cluster that was down, nobody knows whether it was well; one that is merely looked at should be."""
    seen["workloads"]["deployments shop/back-again"] = {"wanted": 1, "ready": 0}
    seen["nodes"]["worker"] = {"ready": False, "renewed": 0, "control_plane": False}
    for baseline in (None, WELL):
        lenient = judge(seen, NOW, baseline=baseline, strict=False)
        assert not problems(lenient) and set(warnings(lenient)) == {"nodes", "workloads"}
        assert set(problems(judge(seen, NOW, baseline=baseline))) == {"nodes", "workloads"}


def test_the_control_plane_must_be_well_in_any_case(seen):
    seen["nodes"]["cp1"]["ready"] = False
    assert problems(judge(seen, NOW, strict=False))["nodes"] == ["node cp1 is not Ready"]


def test_a_node_that_was_down_before_does_not_fail_the_restore(seen):
    before = copy.deepcopy(WELL)
    before["nodes"]["worker"] = {"ready": False, "renewed": 0, "control_plane": False}
    seen["nodes"]["worker"] = {"ready": True, "renewed": 0, "control_plane": False}
    found = judge(seen, NOW, baseline=before)
    assert not problems(found) and "worker" in warnings(found)["nodes"][0]


def test_a_workload_may_have_had_pods_on_a_node_that_was_down_before(seen):
    """Its Pods were moved since; what the snapshot has of them is bound to that node again."""
    before = copy.deepcopy(WELL)
    before["nodes"]["worker"] = {"ready": False, "renewed": 0, "control_plane": False}
    seen["nodes"]["worker"] = {"ready": True, "renewed": 0, "control_plane": False}
    seen["workloads"]["deployments shop/web"]["ready"] = 1
    found = judge(seen, NOW, baseline=before, strict=False)
    assert not problems(found) and "1 of 2 Pods ready; it may have had some on worker" in warnings(found)["workloads"][0]
    assert set(problems(judge(seen, NOW, baseline=before))) == {"workloads"}
    seen["nodes"]["worker"]["renewed"] = NOW + 1
    assert set(problems(judge(seen, NOW, baseline=before, strict=False))) == {"workloads"}


def test_a_lease_that_changes_is_renewed_whatever_the_clock_of_its_node(seen):
    """Kubernetes itself goes by changes, so a node whose clock is behind is Ready."""
    before = copy.deepcopy(WELL)
    for when in (before, seen):
        when["nodes"]["worker"] = {"ready": True, "renewed": NOW - 300, "control_plane": False}
    first = copy.deepcopy(seen)
    assert "worker does not renew" in problems(judge(seen, NOW, baseline=before, first=first))["nodes"][0]
    seen["nodes"]["worker"]["renewed"] += 10
    assert not problems(judge(seen, NOW, baseline=before, first=first))
    first["leases"]["kube-scheduler"] = seen["leases"]["kube-scheduler"] = NOW - 100
    assert "kube-scheduler" in problems(judge(seen, NOW, first=first))["system"][0]
    seen["leases"]["kube-scheduler"] += 2
    assert not problems(judge(seen, NOW, first=first))


def test_a_node_that_only_the_snapshot_has_fails_no_restore(seen):
    """cp3 was replaced since: its Node is back, nobody renews its lease, and what ran there is not ready."""
    seen["nodes"]["cp3"] = {"ready": True, "renewed": NOW - 5000, "control_plane": True}
    seen["workloads"]["daemonsets kube-system/kube-proxy"] = {"wanted": 2, "ready": 1}
    found = judge(seen, NOW, baseline=WELL, strict=False)
    assert not problems(found)
    assert "cp3 does not renew its lease, and was not seen in the cluster before" in warnings(found)["nodes"][0]
    assert "kube-proxy has 1 of 2 Pods ready; it may have had some on cp3" in warnings(found)["system"][0]
    # nobody knows that where there is no baseline, and whoever only looks wants to hear of it
    assert set(problems(judge(seen, NOW, strict=False))) == {"nodes"}
    assert set(problems(judge(seen, NOW, baseline=WELL))) == {"nodes", "system"}


def test_a_controller_that_elects_no_leader_has_no_lease(seen):
    del seen["leases"]["kube-scheduler"]
    assert "kube-scheduler does not renew" in problems(judge(seen, NOW))["system"][0]
    found = judge(seen, NOW, silent=["kube-scheduler"])
    assert not problems(found) and "kube-scheduler elects no leader" in warnings(found)["system"][0]


def test_time_of_a_lease():
    assert seconds("2027-01-15T08:00:00.123456Z") == NOW
    assert seconds(None) == 0


def test_observation_holds_no_secret():
    class Api:
        def items(self, path):
            if path.endswith("/nodes"):
                yield {"metadata": {"name": "cp1"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}
            elif "kube-node-lease" in path:
                yield {"metadata": {"name": "cp1"}, "spec": {"renewTime": "2027-01-15T08:00:00.000000Z"}}
            elif path.endswith("deployments"):
                yield {"metadata": {"name": "web", "namespace": "shop"}, "spec": {"replicas": 2}, "status": {}}

        def get(self, path):
            assert path == "/api/v1/secrets?limit=1"
            return {"items": [{"data": {"password": "c2VjcmV0"}}]}

    seen = observe(Api())
    assert "c2VjcmV0" not in repr(seen)
    assert seen["secret_read"] and seen["nodes"] == {"cp1": {"ready": True, "renewed": NOW, "control_plane": False}}
    assert seen["workloads"] == {"deployments shop/web": {"wanted": 2, "ready": 0}}
