from __future__ import annotations

import copy

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.api import KubeError
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.health import SCOPES, judge, mark_alive, observe, seconds

NOW = 1_800_000_000
WELL = {
    "nodes": {"cp1": {"ready": True, "renewed": NOW + 5, "control_plane": True}},
    "leases": {"kube-controller-manager": {"renewed": NOW + 2}, "kube-scheduler": {"renewed": NOW + 2}},
    "workloads": {
        "deployments shop/web": {"wanted": 2, "ready": 2, "version": "web.1"},
        "daemonsets kube-system/kube-proxy": {"wanted": 1, "ready": 1, "version": "proxy.1"},
    },
    "secret_read": True,
}


def judged(seen, names=None, baseline=None, scope="all", first=None, silent=()):
    """As the module does it: an observation says who is alive, and so does one of before."""
    baseline = baseline and mark_alive(copy.deepcopy(baseline), NOW)
    return judge(mark_alive(copy.deepcopy(seen), NOW, first), names, baseline, scope, silent)


def pending(found):
    return {layer: found[layer]["pending"] for layer in found if found[layer]["pending"]}


def problems(found):
    return {layer: found[layer]["problems"] for layer in found if found[layer]["problems"]}


def warnings(found):
    return {layer: found[layer]["warnings"] for layer in found if found[layer]["warnings"]}


@pytest.fixture
def seen():
    return copy.deepcopy(WELL)


def test_a_healthy_cluster(seen):
    found = judged(seen, {"nodes": ["cp1"], "deployments": ["shop/web"]})
    assert not problems(found) and not warnings(found)


def test_a_ready_node_whose_lease_is_old(seen):
    """What etcd held when the snapshot was taken says Ready; only a renewed lease shows a living kubelet."""
    seen["nodes"]["cp1"]["renewed"] = NOW - 1
    assert "does not renew its lease" in problems(judged(seen))["nodes"][0]


def test_controllers_that_do_not_work(seen):
    seen["leases"] = {"kube-scheduler": {"renewed": NOW - 100}}
    assert len(problems(judged(seen))["system"]) == 2


def test_an_empty_cluster_fails():
    empty = {"nodes": {}, "leases": {}, "workloads": {}, "secret_read": False}
    assert "it is empty" in problems(judged(empty))["nodes"][0]


@pytest.mark.parametrize(
    ("names", "layer"),
    [({"nodes": ["cp9"]}, "nodes"), ({"deployments": ["shop/gone"]}, "workloads"), ({"daemonsets": ["kube-system/gone"]}, "system")],
)
def test_what_the_snapshot_holds_must_be_there(seen, names, layer):
    assert "in the snapshot but not in the cluster" in problems(judged(seen, names))[layer][0]


def test_what_was_healthy_before_must_be_healthy_again(seen):
    seen["workloads"]["deployments shop/web"]["ready"] = 1
    assert problems(judged(seen, baseline=WELL))["workloads"] == ["deployment shop/web has 1 of 2 Pods ready"]


def test_what_was_unhealthy_before_is_a_warning(seen):
    seen["workloads"]["deployments shop/web"]["ready"] = 0
    before = copy.deepcopy(seen)
    found = judged(seen, baseline=before)
    assert not problems(found)
    assert warnings(found)["workloads"] == ["deployment shop/web has 0 of 2 Pods ready, and was unhealthy before"]


def test_what_was_not_seen_healthy_fails_only_when_all_must_be_healthy(seen):
    """After a restore of a cluster that was down, it is not known whether it was healthy; one that is merely looked at should be."""
    seen["workloads"]["deployments shop/back-again"] = {"wanted": 1, "ready": 0}
    seen["nodes"]["worker"] = {"ready": False, "renewed": 0, "control_plane": False}
    for baseline in (None, WELL):
        lenient = judged(seen, baseline=baseline, scope="known")
        assert not problems(lenient) and set(pending(lenient)) | set(warnings(lenient)) == {"nodes", "workloads"}
        assert set(problems(judged(seen, baseline=baseline))) == {"nodes", "workloads"}


def test_the_control_plane_must_always_be_healthy(seen):
    seen["nodes"]["cp1"]["ready"] = False
    assert problems(judged(seen, scope="known"))["nodes"] == ["node cp1 is not Ready"]


def test_a_node_that_was_down_before_does_not_fail_the_restore(seen):
    before = copy.deepcopy(WELL)
    before["nodes"]["worker"] = {"ready": False, "renewed": 0, "control_plane": False}
    seen["nodes"]["worker"] = {"ready": True, "renewed": 0, "control_plane": False}
    found = judged(seen, baseline=before)
    assert not problems(found) and "worker" in warnings(found)["nodes"][0]


def test_a_workload_may_have_had_pods_on_a_node_that_was_down_before(seen):
    """Its Pods were moved since; what the snapshot has of them is bound to that node again."""
    before = copy.deepcopy(WELL)
    before["nodes"]["worker"] = {"ready": False, "renewed": 0, "control_plane": False}
    seen["nodes"]["worker"] = {"ready": True, "renewed": 0, "control_plane": False}
    seen["workloads"]["deployments shop/web"]["ready"] = 1
    found = judged(seen, baseline=before, scope="known")
    assert not problems(found) and "1 of 2 Pods ready; it may have had some on worker" in warnings(found)["workloads"][0]
    assert set(problems(judged(seen, baseline=before))) == {"workloads"}
    seen["nodes"]["worker"]["renewed"] = NOW + 1
    assert set(problems(judged(seen, baseline=before, scope="known"))) == {"workloads"}


def test_a_lease_that_changes_is_renewed_whatever_the_clock_of_its_node(seen):
    """Kubernetes itself goes by changes, so a node whose clock is behind is Ready."""
    before = copy.deepcopy(WELL)
    before["nodes"]["worker"] = {"ready": True, "renewed": NOW, "control_plane": False}
    seen["nodes"]["worker"] = {"ready": True, "renewed": NOW - 300, "control_plane": False}
    first = copy.deepcopy(seen)
    assert "worker does not renew" in problems(judged(seen, baseline=before, first=first))["nodes"][0]
    seen["nodes"]["worker"]["renewed"] += 10
    assert not problems(judged(seen, baseline=before, first=first))
    for when in (first, seen):
        when["leases"]["kube-scheduler"] = {"renewed": NOW - 100}
    assert "kube-scheduler" in problems(judged(seen, first=first))["system"][0]
    seen["leases"]["kube-scheduler"]["renewed"] += 2
    assert not problems(judged(seen, first=first))


def test_a_node_that_only_the_snapshot_has_fails_no_restore(seen):
    """cp3 was replaced since: its Node exists again, its lease is not renewed, and what ran there is not ready."""
    seen["nodes"]["cp3"] = {"ready": True, "renewed": NOW - 5000, "control_plane": True}
    seen["workloads"]["daemonsets kube-system/kube-proxy"] = {"wanted": 2, "ready": 1}
    found = judged(seen, baseline=WELL, scope="known")
    assert not problems(found)
    assert "cp3 does not renew its lease, and was not seen in the cluster before" in warnings(found)["nodes"][0]
    assert "kube-proxy has 1 of 2 Pods ready; it may have had some on cp3" in warnings(found)["system"][0]
    # without a baseline that is not known, and a mere look reports it
    assert set(problems(judged(seen, scope="known"))) == {"nodes"}
    assert set(problems(judged(seen, baseline=WELL))) == {"nodes", "system"}


def test_a_controller_that_elects_no_leader_has_no_lease(seen):
    del seen["leases"]["kube-scheduler"]
    assert "kube-scheduler does not renew" in problems(judged(seen))["system"][0]
    found = judged(seen, silent=["kube-scheduler"])
    assert not problems(found) and "kube-scheduler elects no leader" in warnings(found)["system"][0]


def test_time_of_a_lease():
    assert seconds("2027-01-15T08:00:00.123456Z") == NOW + 0.123456
    assert seconds("2027-01-15T08:00:00Z") == NOW
    assert seconds(None) == 0


def test_observation_holds_no_secret():
    class Api:
        def items(self, path):
            if path.endswith("/nodes"):
                yield {"metadata": {"name": "cp1"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}
            elif "kube-node-lease" in path:
                yield {"metadata": {"name": "cp1", "resourceVersion": "77"}, "spec": {"renewTime": "2027-01-15T08:00:00.000000Z"}}
            elif path.endswith("deployments"):
                metadata = {"name": "web", "namespace": "shop", "uid": "u", "generation": 3}
                yield {"metadata": metadata, "spec": {"replicas": 2}, "status": {"observedGeneration": 2}}

        def get(self, path):
            if path == "/apis/coordination.k8s.io/v1/namespaces/system/leases/batch-scheduler":
                return {"metadata": {"resourceVersion": "78"}, "spec": {"renewTime": "2027-01-15T08:00:00.000000Z"}}
            if "/leases/" in path:
                raise KubeError("there is none", 404)
            assert path == "/api/v1/secrets?limit=1"
            return {"items": [{"data": {"password": "c2VjcmV0"}}]}

    seen = observe(Api(), {"kube-scheduler": "system/batch-scheduler", "kube-controller-manager": "kube-system/kube-controller-manager"})
    assert "c2VjcmV0" not in repr(seen)
    assert seen["secret_read"] and seen["nodes"] == {"cp1": {"ready": True, "renewed": NOW, "written": 77, "control_plane": False}}
    assert seen["workloads"] == {"deployments shop/web": {"wanted": 2, "ready": 0, "version": "u.3", "counted": False}}
    assert seen["leases"] == {"kube-scheduler": {"renewed": NOW, "written": 78}, "kube-controller-manager": {"renewed": 0, "written": 0}}


# What an operator's cluster has that is no fault of a restore: (change of what is seen, change of what was seen before, names of the snapshot).
DEAD_SCHEDULER = {"leases": {"kube-controller-manager": {"renewed": NOW + 2}, "kube-scheduler": {"renewed": NOW - 9000}}}
VIRTUAL = {"virtual": {"ready": True, "renewed": 0, "control_plane": False}}
WORKER = {"worker": {"ready": False, "renewed": NOW + 1, "control_plane": False}}
WORKER_WELL = {"worker": {"ready": True, "renewed": NOW + 1, "control_plane": False}}
NO_FAULT = {
    "an image that is gone": ({"workloads": {"deployments shop/web": {"wanted": 2, "ready": 0, "version": "web.1"}}}, {}, {}),
    "an autoscaler, or a scale-down since the snapshot": ({"workloads": {"deployments shop/web": {"wanted": 9, "ready": 2, "version": "web.0"}}}, {}, {}),
    "a kube-system workload": ({"workloads": {"deployments kube-system/coredns": {"wanted": 2, "ready": 0, "version": "dns.1"}}}, {}, {}),
    "a worker that does not come back": ({"nodes": dict(WELL["nodes"], **WORKER)}, {"nodes": dict(WELL["nodes"], **WORKER_WELL)}, {}),
    "a node that a cloud controller removed": ({}, {}, {"nodes": ["cp1", "gone"]}),
    "a worker that was removed meanwhile": ({}, {"nodes": dict(WELL["nodes"], **WORKER_WELL)}, {"nodes": ["cp1", "worker"]}),
    "a workload that GitOps removed": ({}, {}, {"deployments": ["shop/web", "shop/gone"], "daemonsets": ["kube-system/gone"]}),
    "a node that never renewed a lease": ({"nodes": dict(WELL["nodes"], **VIRTUAL)}, {"nodes": dict(WELL["nodes"], **VIRTUAL)}, {}),
    "a scheduler that was broken before": (DEAD_SCHEDULER, DEAD_SCHEDULER, {}),
    "a status that its controller has not written": ({"workloads": {"deployments shop/web": {"wanted": 2, "ready": 2, "counted": False}}}, {}, {}),
}


@pytest.mark.parametrize("case", list(NO_FAULT))
def test_a_good_restore_is_not_rolled_back_for(seen, case):
    now, then, names = NO_FAULT[case]
    found = judged(dict(seen, **now), names, dict(copy.deepcopy(WELL), **then), scope="control_plane")
    assert not problems(found)
    assert pending(found) or warnings(found), "it is told of nevertheless"


CONTROL_PLANE = {
    "no nodes": ({"nodes": {}}, {}),
    "its kubelet": ({"nodes": {"cp1": {"ready": True, "renewed": NOW - 1, "control_plane": True}}}, {}),
    "a node that is a control plane by what is restored": (
        {"nodes": {"cp1": {"ready": False, "renewed": NOW + 5, "control_plane": False}}},
        {"nodes": {"cp1": {"ready": True, "renewed": NOW, "control_plane": True}}},
    ),
    "a scheduler": (DEAD_SCHEDULER, {}),
}


@pytest.mark.parametrize("case", list(CONTROL_PLANE))
@pytest.mark.parametrize("scope", SCOPES)
def test_the_control_plane_fails_in_every_scope(seen, case, scope):
    now, then = CONTROL_PLANE[case]
    assert problems(judged(dict(seen, **now), baseline=dict(copy.deepcopy(WELL), **then), scope=scope))


def test_scopes_differ_by_what_was_healthy_before(seen):
    seen["workloads"]["deployments shop/web"]["ready"] = 1
    seen["nodes"].update(copy.deepcopy(WORKER))
    before = copy.deepcopy(WELL)
    before["nodes"].update(copy.deepcopy(WORKER_WELL))
    fails = {scope: set(problems(judged(seen, baseline=before, scope=scope))) for scope in SCOPES}
    assert fails == {"control_plane": set(), "known": {"nodes", "workloads"}, "all": {"nodes", "workloads"}}
    # another specification, or another object of that name, is not what was healthy before
    seen["workloads"]["deployments shop/web"]["version"] = "web.2"
    assert set(problems(judged(seen, baseline=before, scope="known"))) == {"nodes"}
