# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""playbooks/recover.yml and export.yml, after a namespace and a definition were deleted by accident."""

from __future__ import annotations

import base64
import json
import os
import random
import re
import time
import types

import pytest
import yaml
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.clean import clean
from cluster import changes, wait_for

SPACE = "lost"
DATA = "/var/lost-data"
KUBECONFIG = "/run/k8s-dr-browse/kubeconfig"
SELECT = ("-l", "cp1", "-e", "etcd_recover_namespace=" + SPACE)
CONFIRM = ("-e", "etcd_recover_confirm=true")
SERVED = ("-e", "etcd_recover_kubeconfig=" + KUBECONFIG)
MANIFEST, PLAIN = "/etc/kubernetes/manifests/kube-apiserver.yaml", "/etc/kubernetes/kube-apiserver.plain"
# The API server's Pod mounts that directory.
KEYS, OTHER_KEYS = "/etc/kubernetes/pki/encryption.yaml", "/root/other-encryption.yaml"
ENCRYPTION = """
apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
  - resources: [secrets]
    providers:
      - secretbox:
          keys:
            - name: key1
              secret: %s
      - identity: {}
"""
ENCRYPT = """
set -e
[ -e %(plain)s ] || cp -p %(manifest)s %(plain)s
sed 's|^    - kube-apiserver$|&\\n    - --encryption-provider-config=%(keys)s|' %(plain)s >/etc/kubernetes/kube-apiserver.new
mv /etc/kubernetes/kube-apiserver.new %(manifest)s
"""
# (resource, whether its status is a subresource) of all that must come back
KINDS = (
    *(("serviceaccounts", False), ("secrets", False), ("configmaps", False), ("roles.rbac.authorization.k8s.io", False)),
    *(("rolebindings.rbac.authorization.k8s.io", False), ("deployments.apps", True), ("statefulsets.apps", True), ("persistentvolumeclaims", True)),
    *(("services", True), ("ingresses.networking.k8s.io", True), ("cronjobs.batch", True), ("horizontalpodautoscalers.autoscaling", True)),
    *(("networkpolicies.networking.k8s.io", False), ("widgets.example.com", True)),
)
DEFINITION = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  names: {kind: Widget, plural: widgets, singular: widget}
  scope: Namespaced
  versions:
    - &version
      name: v1
      served: true
      storage: true
      schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
      subresources: {status: {}}
    - <<: *version
      name: v1beta1
      storage: false
"""
OBJECTS = """
- {apiVersion: v1, kind: Namespace, metadata: {name: lost, labels: {team: a}}}
- apiVersion: v1
  kind: PersistentVolume
  metadata: {name: lost-data}
  spec:
    capacity: {storage: 1Mi}
    accessModes: [ReadWriteOnce]
    storageClassName: manual
    persistentVolumeReclaimPolicy: Retain
    hostPath: {path: /var/lost-data, type: DirectoryOrCreate}
- {apiVersion: v1, kind: ServiceAccount, metadata: {name: worker, namespace: lost}}
- {apiVersion: v1, kind: Secret, metadata: {name: key, namespace: lost}, stringData: {password: s3cr3t-value}}
- {apiVersion: v1, kind: ConfigMap, metadata: {name: settings, namespace: lost}, data: {color: blue, lines: "a\\nb\\n"}}
- apiVersion: rbac.authorization.k8s.io/v1
  kind: Role
  metadata: {name: reader, namespace: lost}
  rules: [{apiGroups: [""], resources: [pods], verbs: [get]}]
- apiVersion: rbac.authorization.k8s.io/v1
  kind: RoleBinding
  metadata: {name: reader, namespace: lost}
  roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}
  subjects: [{kind: ServiceAccount, name: worker, namespace: lost}]
- apiVersion: v1
  kind: Service
  metadata: {name: web, namespace: lost}
  spec: {type: NodePort, selector: {app: web}, ports: [{port: 80, nodePort: 30123}]}
- apiVersion: networking.k8s.io/v1
  kind: Ingress
  metadata: {name: web, namespace: lost}
  spec: {defaultBackend: {service: {name: web, port: {number: 80}}}}
- apiVersion: batch/v1
  kind: CronJob
  metadata: {name: nightly, namespace: lost}
  spec:
    schedule: "0 3 1 1 *"
    jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: a, image: none}]}}}}
- apiVersion: autoscaling/v2
  kind: HorizontalPodAutoscaler
  metadata: {name: web, namespace: lost}
  spec:
    minReplicas: 1
    maxReplicas: 3
    scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
    metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 80}}}]
- apiVersion: networking.k8s.io/v1
  kind: NetworkPolicy
  metadata: {name: closed, namespace: lost}
  spec: {podSelector: {}, policyTypes: [Ingress]}
"""
PARENT = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "parent", "namespace": SPACE, "finalizers": ["example.com/guard"]}}


def workloads(cluster):
    """A Deployment, and a StatefulSet on the volume."""
    web = cluster.workload("web", SPACE, "marker-lost-web")
    web["spec"]["template"]["spec"]["serviceAccountName"] = "worker"
    db = cluster.workload("db", SPACE, "marker-lost-db")
    db["kind"] = "StatefulSet"
    claim = {"accessModes": ["ReadWriteOnce"], "storageClassName": "manual", "resources": {"requests": {"storage": "1Mi"}}}
    db["spec"].update(serviceName="db", volumeClaimTemplates=[{"metadata": {"name": "data"}, "spec": claim}])
    db["spec"]["template"]["spec"]["containers"][0]["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
    return [web, db]


def make(cluster):
    """All objects of the namespace, and wait until they work."""
    cluster.apply(yaml.safe_load(DEFINITION))
    cluster.kubectl("wait", "--for=condition=Established", "crd/widgets.example.com")
    cluster.apply(*yaml.safe_load(OBJECTS), *workloads(cluster), dict(PARENT, spec={"size": 1}))
    cluster.run("cp1", "sh", "-c", "mkdir -p %s && echo the same volume >%s/id" % (DATA, DATA))
    owner = {"apiVersion": "example.com/v1", "kind": "Widget", "name": "parent"}
    owner["uid"] = cluster.get("-n", SPACE, "widgets/parent")["metadata"]["uid"]
    owned = {"namespace": SPACE, "ownerReferences": [owner]}
    cluster.apply(
        {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": dict(owned, name="child"), "spec": {"size": 2}},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": dict(owned, name="of-parent"), "data": {"a": "b"}},
    )
    wait_works(cluster)


def wait_works(cluster):
    """Both workloads run, the second one on its volume."""

    def works():
        counts = [(cluster.get("-n", SPACE, name) or {}).get("status", {}).get("availableReplicas") for name in ("deployment/web", "statefulset/db")]
        return counts == [1, 1] and cluster.processes("cp1", "marker-lost-db")

    wait_for(works, 180, "the workloads of the namespace work")
    script = "for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline 2>/dev/null | grep -q marker-lost-db && cat $p/root/data/id 2>/dev/null; done; :"
    wait_for(lambda: "the same volume" in cluster.run("cp1", "sh", "-c", script), 60, "the volume is mounted")


def delete(cluster, definition=True):
    """The accident."""
    cluster.kubectl("-n", SPACE, "patch", "widget", "parent", "--type=merge", "-p", '{"metadata": {"finalizers": null}}', check=False)
    cluster.kubectl("delete", "namespace", SPACE, "--ignore-not-found", "--wait", timeout=180)
    if definition:
        cluster.kubectl("delete", "crd", "widgets.example.com", "--ignore-not-found", "--wait", timeout=60)


def content(cluster):
    """Each object of the namespace without what is not recovered: {(resource, name): object}."""
    found = {}
    for resource, has_status in KINDS:
        # the resource may be gone with its definition
        text = cluster.kubectl("-n", SPACE, "get", resource, "-o", "json", check=False)
        for one in json.loads(text)["items"] if text.strip() else []:
            if one["metadata"]["name"] not in ("kube-root-ca.crt", "default"):
                found[resource, one["metadata"]["name"]] = clean(one, resource, has_status)
    return found


# What changes by itself, or with the objects of the namespace: counters of addresses, what the API server makes of a definition.
MOVES = re.compile(
    r"^/registry/(leases|events|masterleases|minions|ranges|ipaddresses|endpointslices|services/endpoints|pods|volumeattachments|csinodes|peerserverleases)/"
    r"|^/registry/(apiregistration.k8s.io/apiservices/v1(beta1)?\.example\.com|apiextensions.k8s.io/customresourcedefinitions/widgets)"
    r"|/lost(/|$|-)|^/registry/example\.com/|^/registry/replicasets/kube-system|^/registry/deployments/kube-system"
)


def others(cluster):
    """{key: revision} of all other objects in etcd."""
    import base64

    keys = {base64.b64decode(one["key"]).decode(): one["mod_revision"] for one in cluster.etcdctl("get", "--prefix", "--keys-only", "/registry/")["kvs"]}
    return {key: revision for key, revision in keys.items() if not MOVES.search(key)}


def records(cluster):
    return cluster.run("cp1", "sh", "-c", "cd /var/lib/k8s-dr-recover 2>/dev/null && ls -d *Z-* || :").split()


def recover(cluster, *args, **how):
    return cluster.playbook("recover.yml", *SELECT, *args, **how)


def again(cluster, *args, **how):
    """From the snapshot that is served already."""
    return recover(cluster, *SERVED, *CONFIRM, *args, **how)


def undo(cluster, identifier, *args, **how):
    return cluster.playbook("recover.yml", "-l", "cp1", "-e", "etcd_recover_undo=" + identifier, *CONFIRM, *args, **how)


def stored_secret(cluster):
    """What etcd holds of the Secret."""
    return base64.b64decode(cluster.etcdctl("get", "/registry/secrets/%s/key" % SPACE)["kvs"][0]["value"])


@pytest.fixture(scope="module")
def encrypted(cluster):
    """The API server encrypts the Secrets that are written from now on, until these tests end."""
    for path in (KEYS, OTHER_KEYS):
        text = ENCRYPTION % base64.b64encode(os.urandom(32)).decode()
        cluster.run("cp1", "sh", "-c", "umask 077; [ -e %s ] || cat >%s" % (path, path), stdin=text)
    flag = "--encryption-provider-config=" + KEYS
    cluster.run("cp1", "sh", "-c", ENCRYPT % {"plain": PLAIN, "manifest": MANIFEST, "keys": KEYS})
    wait_for(lambda: cluster.processes("cp1", flag), 120, "the API server with encryption at rest")
    cluster.wait_ready()
    yield
    # the API server would not start to serve Secrets that it cannot decrypt
    delete(cluster)
    cluster.run("cp1", "mv", PLAIN, MANIFEST)
    wait_for(lambda: cluster.processes("cp1", "kube-apiserver --") and not cluster.processes("cp1", flag), 120, "the API server without encryption at rest")
    cluster.wait_ready()
    cluster.run("cp1", "rm", KEYS, OTHER_KEYS)


@pytest.fixture(scope="module")
def recovered(cluster, encrypted):
    """The namespace after the accident and the recovery; what it was like before."""
    delete(cluster)
    cluster.kubectl("delete", "pv", "lost-data", "--ignore-not-found", "--wait")
    make(cluster)
    report = types.SimpleNamespace(before=content(cluster))
    report.addresses = cluster.get("-n", SPACE, "service/web")["spec"]
    report.stored = stored_secret(cluster)
    report.snapshot = cluster.snapshot()
    delete(cluster)
    report.wrong_key = recover(cluster, "--check", "-e", "etcd_browse_encryption_config=" + OTHER_KEYS, check=False)
    report.deleted = records(cluster)
    report.planned = recover(cluster, "--check", "--diff").stdout
    report.planned_records = records(cluster)
    report.refused = recover(cluster, check=False)
    report.refused_left = content(cluster)
    report.others = others(cluster)
    with cluster.probe("/api/v1/namespaces/shop/configmaps/prices") as probe:
        report.process = recover(cluster, *CONFIRM)
    report.gaps = probe.gaps()
    report.others_after = others(cluster)
    report.id = records(cluster)[-1]
    wait_works(cluster)
    cluster.playbook("browse.yml", "-l", "cp1", "-e", "etcd_browse_snapshot=" + report.snapshot)
    yield report
    delete(cluster)
    cluster.kubectl("delete", "pv", "lost-data", "--ignore-not-found", "--wait=false")
    cluster.playbook("browse.yml", "-l", "cp1", "-e", "etcd_browse_state=absent", check=False)
    # the API server does not decrypt its Secret any more
    cluster.run("cp1", "rm", report.snapshot, report.snapshot + ".json")


def test_the_plan_changes_nothing_and_shows_no_secret(recovered):
    assert "Missing, would be recovered (18)" in recovered.planned
    assert "PersistentVolume lost-data for lost/data-db-0" in recovered.planned
    assert "(hidden)" in recovered.planned
    assert "s3cr3t" not in recovered.planned and "czNjcjN0" not in recovered.planned
    assert recovered.planned_records == recovered.deleted


def test_nothing_is_done_unless_the_question_is_answered(recovered):
    assert recovered.refused.returncode != 0 and "This was not confirmed, so nothing was changed" in recovered.refused.stdout
    assert recovered.refused_left == {}


def test_all_objects_are_as_they_were(cluster, recovered):
    after = content(cluster)
    assert set(after) == set(recovered.before)
    assert {key: after[key] for key in after if after[key] != recovered.before[key]} == {}
    service = cluster.get("-n", SPACE, "service/web")["spec"]
    assert (service["clusterIP"], service["ports"]) == (recovered.addresses["clusterIP"], recovered.addresses["ports"])


def test_secrets_are_encrypted_in_etcd(cluster, recovered):
    stored = stored_secret(cluster)
    assert all(value.startswith(b"k8s:enc:secretbox:v1:key1:") and b"s3cr3t" not in value for value in (recovered.stored, stored))


def test_without_the_key_the_secrets_are_named_and_the_rest_is_planned(recovered):
    output = recovered.wrong_key.stdout
    assert recovered.wrong_key.returncode == 0 and "Missing, would be recovered (17)" in output
    assert "Give the EncryptionConfiguration that the snapshot was written with: -e etcd_browse_encryption_config=PATH" in output
    assert "Secret of the selection (namespace lost) cannot be read in the snapshot: the API server at " in output


def test_owners_have_their_new_uids(cluster, recovered):
    uid = cluster.get("-n", SPACE, "widgets/parent")["metadata"]["uid"]
    for name in ("widgets/child", "configmaps/of-parent"):
        assert [owner["uid"] for owner in cluster.get("-n", SPACE, name)["metadata"]["ownerReferences"]] == [uid]


def test_both_versions_of_the_definition_are_served(cluster, recovered):
    for version in ("v1", "v1beta1"):
        assert json.loads(cluster.kubectl("get", "--raw", "/apis/example.com/%s/namespaces/%s/widgets/child" % (version, SPACE)))["spec"] == {"size": 2}


def test_the_api_was_never_away(recovered):
    assert [gap for gap in recovered.gaps if gap.failures] == []


def test_no_other_object_was_changed(recovered):
    assert recovered.others_after == recovered.others


def test_the_record_is_private(cluster, recovered):
    text = cluster.run("cp1", "sh", "-c", "cd /var/lib/k8s-dr-recover && stat -c '%%a %%U' . %s %s/journal && cat %s/journal" % ((recovered.id,) * 3))
    assert text.split("\n")[:3] == ["700 root", "700 root", "600 root"]
    assert "czNjcjN0" not in text


def test_a_second_run_changes_nothing(cluster, recovered):
    before = records(cluster)
    process = again(cluster)
    assert "Nothing was changed" in process.stdout and records(cluster) == before


def test_an_object_that_differs_stays_unless_it_is_to_be_overwritten(cluster, recovered):
    cluster.kubectl("-n", SPACE, "patch", "configmap", "settings", "--type=merge", "-p", '{"data": {"color": "red", "new": "x"}}')
    cluster.kubectl("-n", SPACE, "patch", "secret", "key", "--type=merge", "-p", '{"stringData": {"password": "an0ther-s3cr3t"}}')
    changed = content(cluster)
    process = again(cluster)
    assert 'data.color: \\"red\\", in the snapshot \\"blue\\"' in process.stdout and "s3cr3t" not in process.stdout
    assert content(cluster) == changed
    assert "2 objects overwritten" in again(cluster, "-e", "etcd_recover_overwrite=true").stdout
    assert content(cluster) == recovered.before
    process = undo(cluster, records(cluster)[-1], check=False)
    assert process.returncode != 0 and "1 objects undone" in process.stdout
    assert "Secret lost/key stays: the record has no values of Secrets" in process.stdout and "s3cr3t" not in process.stdout
    assert content(cluster) == {**changed, ("secrets", "key"): recovered.before["secrets", "key"]}
    again(cluster, "-e", "etcd_recover_overwrite=true")


REFUSALS = {
    "quota": (
        {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few", "namespace": SPACE}, "spec": {"hard": {"count/configmaps": "1"}}},
        "ConfigMap lost/settings is refused by a quota",
    ),
    "webhook": (
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": "lost-away"},
            "webhooks": [
                {
                    "name": "away.example.com",
                    "sideEffects": "None",
                    "admissionReviewVersions": ["v1"],
                    "timeoutSeconds": 2,
                    "clientConfig": {"url": "https://127.0.0.1:1/"},
                    "namespaceSelector": {"matchLabels": {"team": "a"}},
                    "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}],
                }
            ],
        },
        "ConfigMap lost/settings is refused, since the webhook away.example.com does not answer",
    ),
}


@pytest.mark.parametrize("what", REFUSALS)
def test_a_refusal_is_one_sentence_and_the_rest_is_recovered(cluster, recovered, what):
    obstacle, sentence = REFUSALS[what]
    cluster.kubectl("-n", SPACE, "delete", "configmap/settings", "serviceaccount/worker")
    cluster.apply(obstacle)
    try:
        if what == "quota":
            wait_for(lambda: (cluster.get("-n", SPACE, "resourcequota/few")["status"].get("used") or {}), 60, "the quota has counted")
        process = again(cluster, check=False)
        assert process.returncode != 0 and sentence in process.stdout
        assert cluster.get("-n", SPACE, "serviceaccount/worker") is not None
        assert cluster.get("-n", SPACE, "configmap/settings") is None
    finally:
        cluster.kubectl("delete", "-f", "-", stdin=json.dumps(obstacle))
    again(cluster)
    assert content(cluster) == recovered.before


def test_an_immutable_field_is_named(cluster, recovered):
    cluster.kubectl("-n", SPACE, "delete", "rolebinding/reader")
    cluster.kubectl("-n", SPACE, "create", "rolebinding", "reader", "--role=other", "--serviceaccount=lost:worker")
    process = again(cluster, "-e", "etcd_recover_overwrite=true", check=False)
    assert process.returncode != 0 and "RoleBinding lost/reader cannot be overwritten, since roleRef cannot be changed" in process.stdout
    cluster.kubectl("-n", SPACE, "delete", "rolebinding/reader")
    again(cluster)


def test_what_is_not_a_selection_is_refused(cluster, recovered):
    process = cluster.playbook("recover.yml", "-l", "cp1", *SERVED, *CONFIRM, check=False)
    assert process.returncode != 0 and "entry 1 of the selection is empty, which would select everything" in process.stdout
    process = again(cluster, "-e", "etcd_recover_kind=Gadget", check=False)
    assert process.returncode != 0 and "the snapshot has no kind Gadget" in process.stdout


def test_a_namespace_that_is_being_deleted(cluster, recovered):
    cluster.kubectl("delete", "namespace", SPACE, "--wait=false")
    # its guard keeps it
    wait_for(lambda: (cluster.get("-n", SPACE, "widgets/parent") or {}).get("metadata", {}).get("deletionTimestamp"), 60, "the Widget is being deleted")
    process = again(cluster, check=False)
    assert process.returncode != 0 and "Namespace lost and Widget lost/parent: is still being deleted; run this again when it is gone" in process.stdout
    delete(cluster)


# SIGKILL for the module, whose id is in its lock, once it has recorded so many lines more, and so many seconds later.
KILL = """
cd /var/lib/k8s-dr-recover
lines() { cat */journal | wc -l; }
touch /root/kill
before=$(lines)
pid=
until [ -n "$pid" ] && [ -d /proc/$pid ]; do
  [ -e /root/kill ] || exit
  sleep 0.01
  # it has no newline
  read -r word pid <lock || :
done
until [ $(($(lines) - before)) -ge %d ]; do [ -d /proc/$pid ] || exit; done
sleep %.2f
kill -KILL $pid && echo killed
"""


def killed_run(cluster):
    """A run that gets SIGKILL at a random moment: (whether that hit its module, its exit code, its output)."""
    lines = random.randint(0, 4)
    # before the first line it compares
    killer = cluster.start("cp1", KILL % (lines, 0 if lines else random.uniform(0, 1)))
    process = again(cluster, background=True)
    output = process.communicate()[0]
    # where nothing was left to do, there was no module to kill
    cluster.run("cp1", "rm", "/root/kill")
    return "killed" in killer.communicate()[0] and process.returncode != 0, process.returncode, output


def test_a_run_that_is_killed_again_and_again_ends_the_same_and_is_undone_as_one(cluster, recovered):
    delete(cluster)
    volume = cluster.get("pv", "lost-data")["spec"]["claimRef"]
    kills, end = 0, time.monotonic() + 600
    while kills < 10 and time.monotonic() < end:
        known = records(cluster)
        hit, code, output = killed_run(cluster)
        while hit and time.monotonic() < end:
            kills += 1
            hit, code, output = killed_run(cluster)
        assert code == 0, output
        wait_works(cluster)
        assert content(cluster) == recovered.before
        made = [name for name in records(cluster) if name not in known]
        assert len(made) == 1
        undone = undo(cluster, made[0])
        assert "undone" in undone.stdout and changes(undone)["cp1"] >= 1
        assert cluster.get("namespace", SPACE) is None and cluster.get("crd", "widgets.example.com") is None
        assert cluster.get("pv", "lost-data")["spec"]["claimRef"] == volume
        assert cluster.run("cp1", "cat", DATA + "/id") == "the same volume\n"
    assert kills >= 10


def test_export(cluster, recovered, tmp_path):
    args = ("-l", "cp1", *SERVED, "-e", "etcd_recover_namespace=" + SPACE, "-e", "etcd_recover_export_dir=%s" % (tmp_path / "out"))
    cluster.playbook("export.yml", *args, "--check")
    assert not (tmp_path / "out").exists()
    assert "1 Secrets were not exported" in cluster.playbook("export.yml", *args).stdout
    assert changes(cluster.playbook("export.yml", *args))["cp1"] == 0
    files = sorted((tmp_path / "out").rglob("*.yaml"))
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in files)
    found = {"%s %s" % (one["kind"], one["metadata"]["name"]): one for one in (yaml.safe_load(path.read_text()) for path in files)}
    assert {"Namespace lost", "Deployment web", "StatefulSet db", "Widget child", "Service web"} <= set(found)
    assert not [name for name in found if name.startswith(("Secret ", "Pod "))]
    assert found["ConfigMap settings"]["data"] == {"color": "blue", "lines": "a\nb\n"}
    cluster.playbook("export.yml", *args, "-e", "etcd_recover_export_secrets=true")
    assert yaml.safe_load((tmp_path / "out/lost/Secret_key.yaml").read_text())["data"] == {"password": "czNjcjN0LXZhbHVl"}
    assert cluster.run("cp1", "sh", "-c", "ls -d /run/.k8s-dr-export-* 2>/dev/null || :") == ""
    # as an operator would use them
    for one in found.values():
        if one["kind"] == "Namespace":
            cluster.apply(one)
    cluster.apply(*[one for one in found.values() if one["kind"] in ("ConfigMap", "ServiceAccount", "Role", "Service", "Deployment")])
