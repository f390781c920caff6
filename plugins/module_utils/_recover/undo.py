# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Takes back what a run did, in reverse, where it is still as that run left it.  Private to this collection."""

from __future__ import annotations

import contextlib
import time

from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.api import KubeError
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover import left_out, volumes
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.apply import CREATE, OVERWRITE, REBIND, with_own_finalizers, with_uids
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.change import MANAGER, ChangeRefused, Writer, is_ours
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.clean import clean, digest, is_own_finalizer, without_replicas
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.differences import patch
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.order import CRDS, rank
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.plan import CLAIMS, VOLUMES
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.record import SECRETS
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.resources import Resources, is_away
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.workloads import Claims

# Others wait for these to be gone: claims for Pods, volumes for claims, a run after this one for namespaces and definitions.
_AWAITED = (CLAIMS, VOLUMES, "namespaces", CRDS)
# What every namespace gets, or what has no meaning without its namespace.
_ALWAYS_THERE = ("events", "events.events.k8s.io", "leases.coordination.k8s.io", "leasecandidates.coordination.k8s.io")
# Seconds for which an API group that does not answer is asked again.
_PATIENCE = 5
_ATTEMPTS = 5
# Owners of owners: a Pod, its ReplicaSet, its Deployment, the custom resource that made that.
_DEEPEST = 10


class Undo:
    """The undo of one Record."""

    def __init__(self, live, record, wait_timeout, check=False):
        """live: a Session.  wait_timeout: seconds until a deleted claim, volume, namespace or definition must be gone.  check: change nothing."""
        self.live, self.record, self.wait_timeout, self.check = live, record, wait_timeout, check
        self.here = Resources(live)
        end = time.monotonic() + _PATIENCE
        while self.here.silent and time.monotonic() < end:
            time.sleep(0.5)
            self.here.ask()
        if not self.here.find(CLAIMS):
            raise KubeError("%s does not serve /api/v1 now" % live.name)
        self.writer = Writer(live)
        self.undone, self.left = [], []
        self._made = {_key(one): one for one in record.changes if one["action"] == CREATE and _counts(one)}
        # UIDs of what is deleted, and of what the garbage collector deletes with it
        self._going = set()
        # by namespace: what stays there and may need others
        self._staying = {}
        # {UID of an owner: what stays, and would be deleted with it}
        self._kept = {}

    def run(self):
        self._foresee()
        for change in reversed(self.record.changes):
            if not _counts(change):
                continue
            try:
                done = _readable({CREATE: self._delete, OVERWRITE: self._put_back, REBIND: self._give_back}[change["action"]], change)
            except ChangeRefused as exc:
                self._note_staying(change)
                self.left.append({"object": _name(change), "reason": str(exc)})
                continue
            if not self.check:
                self.record.write({"n": change["n"], "undone": True})
            if done:
                self.undone.append(_name(change))
        if not self.check:
            self.record.forget()

    def _foresee(self):
        """What stays must be known before the first deletion: what it needs stays with it, and some of that comes first in this order."""
        for change in self._made.values():
            if _may_need_others(change["resource"]):
                try:
                    _readable(self._check_delete, change)
                except ChangeRefused:
                    self._note_staying(change)

    def _note_staying(self, change):
        with contextlib.suppress(ChangeRefused):
            live = _readable(self._found, change)[1]
            for owner in live["metadata"].get("ownerReferences") or [] if live else []:
                self._kept.setdefault(owner["uid"], _name(change))
        if change["action"] == CREATE and _may_need_others(change["resource"]):
            self._staying.setdefault(change["namespace"], _name(change))

    def _found(self, change):
        """(resource, live object, the same cleaned); the object is None where it is gone."""
        resource = next((one for one in self.here.versions(change["resource"]) if one.version == change["version"]), None)
        if resource is None and not self._is_definition_gone(change["resource"]):
            words = "stays: the API server does not serve %s in version %s now; run the undo again when it does"
            raise ChangeRefused(words % (change["resource"], change["version"]))
        live = self.live.get(resource.path(change["namespace"], change["name"])) if resource else None
        return resource, live, clean(live, resource.id, resource.has_status) if live else None

    def _is_definition_gone(self, identifier):
        """Whether that run recovered the definition of this resource, and it was deleted since, and all objects with it."""
        recovered = any(one["resource"] == CRDS and one["name"] == identifier for one in self.record.changes)
        definitions = self.here.find(CRDS)
        return bool(recovered and definitions and self.live.get(definitions.path("", identifier)) is None)

    def _check_unchanged(self, change, live, cleaned):
        if change.get("uid", live["metadata"]["uid"]) != live["metadata"]["uid"]:
            raise ChangeRefused("stays: it was deleted and made again since")
        if change["resource"] == SECRETS:
            # the record has nothing of its values; where it has no version either, or the version is that of before its finalizers went, another run counts
            # as this one
            same = {one.get("manager") for one in live["metadata"].get("managedFields") or []} == {MANAGER}
            same = same and ("stripped" in change or change.get("live") in (None, live["metadata"]["resourceVersion"]))
        else:
            stripped = change.get("stripped")
            if stripped and not cleaned["metadata"].get("finalizers"):
                cleaned = dict(cleaned, metadata=dict(cleaned["metadata"], finalizers=stripped))
            known, now = [change[name] for name in ("done", "wanted") if name in change], digest(cleaned)
            same = now in known or (_is_autoscaled(live) and without_replicas(now) in [without_replicas(one) for one in known])
        if not same:
            # of an interrupted run it is known what was sent, and not what the API server made of it
            raise ChangeRefused("stays: it was changed since" if "done" in change else "stays: it is not as it was sent, so something else may have changed it")

    # -- deleting ---------------------------------------------------------------------------------------------------------

    def _check_delete(self, change):
        """(resource, live object) of what may be deleted, None where it is gone; changes nothing."""
        resource, live, cleaned = self._found(change)
        if live is None or ("uid" not in change and not is_ours(live)):
            return None
        if left_out.is_default_account(resource.id, live) and ("namespaces", "", change["namespace"]) in self._made:
            # a controller keeps it; it goes with the namespace
            return None
        self._check_unchanged(change, live, cleaned)
        if live["metadata"]["uid"] in self._kept:
            raise ChangeRefused("stays: %s would be deleted with it, and stays" % self._kept[live["metadata"]["uid"]])
        self._check_needed(change)
        if not change["namespace"]:
            self._check_holders_of(live)
        # what is in a namespace or of a definition is looked at by itself
        if resource.id not in ("namespaces", CRDS):
            self._check_claims_of(live)
        return resource, live

    def _delete(self, change):
        found = self._check_delete(change)
        if found is None:
            return False
        resource, live = found
        if resource.id == "namespaces":
            self._check_namespace(change["name"])
        elif resource.id == CRDS:
            self._check_definition(change["name"])
        elif resource.id == CLAIMS:
            self._check_unused(change)
            self._check_retained(live)
        elif resource.id == VOLUMES:
            self._check_unbound(live)
        if not self.check:
            self._remove(resource, change)
        self._going.add(live["metadata"]["uid"])
        if resource.id in _AWAITED and not self.check:
            self._await(resource, change)
        return True

    def _remove(self, resource, change):
        """Delete it without the finalizers of others: they came with it, and their controllers would clean up outside the cluster, where nothing was made."""
        try:
            self._strip_and_delete(resource, change)
        except ChangeRefused:
            self._restore_finalizers(resource, change)
            raise

    def _strip_and_delete(self, resource, change):
        is_stripped = False
        for dummy in range(_ATTEMPTS):
            # its status may change all the time
            dummy, live, cleaned = self._found(change)
            if live is None:
                return
            self._check_unchanged(change, live, cleaned)
            others = [name for name in live["metadata"].get("finalizers") or [] if not is_own_finalizer(name)]
            if others and is_stripped:
                raise ChangeRefused(
                    "stays: its controller has put the finalizer %s back, and would clean up outside the cluster; stop it and run the undo again"
                    % ", ".join(others)
                )
            try:
                if others:
                    self.record.write({"n": change["n"], "stripped": others})
                    own = with_own_finalizers({"metadata": {"finalizers": []}}, live)
                    live = self.writer.merge(resource, change["namespace"], change["name"], own, live["metadata"]["resourceVersion"])
                    is_stripped = True
                self.writer.delete(resource, change["namespace"], change["name"], live["metadata"])
                return
            except ChangeRefused as exc:
                if exc.answer.get("code") != 409:
                    raise
        raise ChangeRefused("stays: it is changed all the time; run the undo again")

    def _restore_finalizers(self, resource, change):
        """Where it stays after all, it keeps its guard."""
        live = self.live.get(resource.path(change["namespace"], change["name"])) if change.get("stripped") else None
        if live is None or change.get("uid", live["metadata"]["uid"]) != live["metadata"]["uid"]:
            return
        found = live["metadata"].get("finalizers") or []
        lost = [name for name in change["stripped"] if name not in found]
        if lost and not live["metadata"].get("deletionTimestamp"):
            with contextlib.suppress(ChangeRefused):
                whole = {"metadata": {"finalizers": found + lost}}
                self.writer.merge(resource, change["namespace"], change["name"], whole, live["metadata"]["resourceVersion"])

    def _await(self, resource, change):
        end = time.monotonic() + self.wait_timeout
        while self.live.get(resource.path(change["namespace"], change["name"])):
            if time.monotonic() > end:
                raise ChangeRefused("was deleted, and is still there after %d s; see its finalizers, and run the undo again" % self.wait_timeout)
            time.sleep(0.3)

    # -- what would go with it --------------------------------------------------------------------------------------------

    def _check_needed(self, change):
        """What a staying workload needs stays, too."""
        if _may_need_others(change["resource"]) or change["resource"] in ("namespaces", CRDS, VOLUMES):
            return
        user = self._staying.get(change["namespace"]) or self._staying.get("")
        if not user and not change["namespace"]:
            user = next(iter(self._staying.values()), None)
        if user:
            raise ChangeRefused("stays: %s stays and may need it" % user)

    def _owners(self, found):
        """(ownerReference, whether its kind is served, the live object or None) of each owner."""
        for owner in found["metadata"].get("ownerReferences") or []:
            resource = self.here.of_owner(owner)
            above = self.live.get(resource.path(found["metadata"].get("namespace", ""), owner["name"])) if resource else None
            yield owner, resource is not None, above if above and above["metadata"]["uid"] == owner["uid"] else None

    def _is_going(self, found, depth=_DEEPEST):
        """Whether it is being deleted, or goes without this run's help once the objects are deleted that this run deletes: all its owners go."""
        metadata = found["metadata"]
        if metadata["uid"] in self._going or metadata.get("deletionTimestamp"):
            return True
        owners = metadata.get("ownerReferences")
        if not owners or depth == 0:
            return False
        for owner, is_served, above in self._owners(found):
            if owner["uid"] not in self._going and (not is_served or (above and not self._is_going(above, depth - 1))):
                return False
        self._going.add(metadata["uid"])
        return True

    def _is_below(self, found, uid, depth=_DEEPEST):
        """Whether the object with this UID is its owner, or an owner of its owner; ChangeRefused where the API server does not tell now."""
        for owner, is_served, above in self._owners(found):
            # a chain that is longer than any is not followed, and may lead there
            if owner["uid"] == uid or (above and (depth == 0 or self._is_below(above, uid, depth - 1))):
                return True
            silent = [] if is_served else self.here.silent_of(owner["apiVersion"].rpartition("/")[0])
            if silent:
                name = "/".join(filter(None, (found["metadata"].get("namespace"), found["metadata"]["name"])))
                words = "stays: whether %s %s would be deleted with it is not known, since the API server does not serve %s now; %s"
                raise ChangeRefused(words % (found["kind"], name, silent[0], "run the undo again when it does"))
        return False

    def _check_holders_of(self, live):
        """Refuse to delete what the garbage collector deletes a Namespace, a definition or a volume with: nobody has looked at what these hold."""
        for identifier in ("namespaces", CRDS, VOLUMES):
            resource = self.here.find(identifier)
            for found in self.live.items(resource.path()) if resource else ():
                if not found["metadata"].get("deletionTimestamp") and self._is_below(found, live["metadata"]["uid"]):
                    words = "stays: %s %s would be deleted with it; run the undo again when that is gone"
                    raise ChangeRefused(words % (found.get("kind") or resource.kind, found["metadata"]["name"]))

    def _check_claims_of(self, live):
        """Refuse to delete what the garbage collector deletes claims with, other than those that the run recovered and whose volumes are kept."""
        resource = self.here.find(CLAIMS)
        for claim in self.live.items(resource.path(live["metadata"].get("namespace", ""))):
            metadata = claim["metadata"]
            owners = metadata.get("ownerReferences") or []
            # the claim of an ephemeral volume ends with its Pod
            if metadata.get("deletionTimestamp") or any(owner.get("kind") == "Pod" for owner in owners) or not self._is_below(claim, live["metadata"]["uid"]):
                continue
            name = "%s/%s" % (metadata["namespace"], metadata["name"])
            made = self._made.get((CLAIMS, metadata["namespace"], metadata["name"]))
            if made is None:
                raise ChangeRefused("stays: the claim %s and its data would be deleted with it, and this run did not recover that claim" % name)
            try:
                self._check_unchanged(made, claim, clean(claim, resource.id, resource.has_status))
                self._check_retained(claim)
                self._check_needed(made)
            except ChangeRefused as exc:
                raise ChangeRefused("stays: the claim %s would be deleted with it, which %s" % (name, exc)) from exc

    def _check_namespace(self, name):
        if self.here.silent:
            raise ChangeRefused("stays: what it holds is not known, since the API server does not serve %s now" % ", ".join(self.here.silent))
        for resource in self.here:
            if not resource.namespaced or resource.id in _ALWAYS_THERE:
                continue
            for found in self.live.items(resource.path(name)):
                if not self._is_going(found) and not _is_made_everywhere(resource.id, found):
                    raise ChangeRefused("stays: it holds %s %s, which this run did not recover or did not undo" % (found["kind"], found["metadata"]["name"]))

    def _check_definition(self, name):
        """It takes all objects of it along, in every namespace."""
        resource = self.here.find(name)
        if resource is None or self.here.silent_of(name.partition(".")[2]):
            raise ChangeRefused("stays: its objects cannot be listed, since the API server does not serve it now")
        end = time.monotonic() + self.wait_timeout
        while True:
            found = list(self.live.items(resource.path()))
            stays = next((one for one in found if not self._is_going(one)), None)
            if not stays and (self.check or not found):
                return
            if stays or time.monotonic() > end:
                one = stays or found[0]
                where = "/".join(filter(None, (one["metadata"].get("namespace"), one["metadata"]["name"])))
                raise ChangeRefused("stays: there are objects of it: %s %s, which this run did not recover or did not undo" % (one["kind"], where))
            time.sleep(0.3)

    def _check_unused(self, change):
        """A claim in use would be deleted once its Pod ends; Pods of an undone workload end soon."""
        end = time.monotonic() + self.wait_timeout
        while True:
            pods = [one for one in self.live.items(self.here.find("pods").path(change["namespace"])) if _mounts(one, change["name"])]
            stays = next((one for one in pods if not self._is_going(one)), None)
            if not stays and (self.check or not pods):
                return
            if stays or time.monotonic() > end:
                raise ChangeRefused("stays: Pod %s uses it" % (stays or pods[0])["metadata"]["name"])
            time.sleep(0.3)

    def _check_unbound(self, live):
        reference = (live.get("spec") or {}).get("claimRef") or {}
        claim = self.live.get(self.here.find(CLAIMS).path(reference.get("namespace", ""), reference["name"])) if reference.get("name") else None
        if claim and not (self.check and self._is_going(claim)) and (claim.get("spec") or {}).get("volumeName") in (None, "", live["metadata"]["name"]):
            raise ChangeRefused("stays: the claim %s/%s uses it" % (reference["namespace"], reference["name"]))

    def _check_retained(self, live):
        """With any reclaim policy but Retain, which recovered volumes have, the data of a volume would be deleted with its claim."""
        name = (live.get("spec") or {}).get("volumeName")
        volume = self.live.get(self.here.find(VOLUMES).path("", name)) if name else None
        if volume and volumes.policy(volume) != volumes.RETAIN:
            claim = "%s/%s" % (live["metadata"]["namespace"], live["metadata"]["name"])
            words = "stays: the volume %s of the claim %s has the reclaim policy %s, so the data would be deleted"
            raise ChangeRefused(words % (name, claim, volumes.policy(volume)))

    # -- other changes ------------------------------------------------------------------------------------------------------

    def _put_back(self, change):
        resource, live, cleaned = self._found(change)
        if live is None:
            raise ChangeRefused("was deleted since")
        if "before" not in change:
            raise ChangeRefused("stays: the record has no values of Secrets; recover the earlier ones with overwrite from a snapshot that has them")
        if digest(cleaned) == digest(clean(change["before"], resource.id, resource.has_status)):
            return False
        self._check_unchanged(change, live, cleaned)
        back = with_own_finalizers(patch(with_uids(cleaned, live), change["before"]), live)
        self.writer.merge(resource, change["namespace"], change["name"], back, live["metadata"]["resourceVersion"], dry_run=self.check)
        return True

    def _give_back(self, change):
        """The volume belongs to the deleted claim again, as before."""
        resource, live, dummy = self._found(change)
        claim = ((live or {}).get("spec") or {}).get("claimRef")
        if not claim or claim.get("uid") == change["before"]["uid"]:
            return False
        found = self.live.get(self.here.find(CLAIMS).path(claim["namespace"], claim["name"])) if claim.get("uid") else None
        if found and not (self.check and self._is_going(found)):
            raise ChangeRefused("stays as it is: the claim %s/%s uses it" % (claim["namespace"], claim["name"]))
        before = change["before"]
        if change.get("uid", live["metadata"]["uid"]) != live["metadata"]["uid"]:
            raise ChangeRefused("stays as it is: it was deleted and made again since")
        if (claim.get("namespace"), claim.get("name")) != (before["namespace"], before["name"]):
            raise ChangeRefused("stays as it is: it belongs to the claim %s/%s now" % (claim.get("namespace"), claim.get("name")))
        if volumes.policy(live) != volumes.RETAIN:
            words = "stays as it is: with its reclaim policy %s, the data of a volume without its claim would be deleted"
            raise ChangeRefused(words % volumes.policy(live))
        if not self.check:
            self.writer.merge(resource, "", change["name"], {"spec": {"claimRef": change["before"]}}, live["metadata"]["resourceVersion"])
        return True


def _readable(do, change):
    """What do() returns of the change; what cannot be read, as without a conversion webhook, keeps this object, and no other one."""
    try:
        return do(change)
    except KubeError as exc:
        if is_away(exc):
            raise
        raise ChangeRefused("stays: what depends on it is not known, since %s; run the undo again when it can be read" % exc) from exc


def _counts(change):
    return "undone" not in change and "failed" not in change


def _key(change):
    return change["resource"], change["namespace"], change["name"]


def _name(change):
    return "%s %s" % (change["kind"], "/".join(filter(None, (change["namespace"], change["name"]))))


def _may_need_others(identifier):
    """Whether it is a workload, or comes after workloads and may refer to what comes before them."""
    return rank(identifier) >= rank("pods")


def _is_autoscaled(live):
    """Whether the controller of HorizontalPodAutoscalers has set its number of replicas last; kubectl scale has another manager."""
    entries = live["metadata"].get("managedFields") or []
    return any(one.get("subresource") == "scale" and one.get("manager") == "kube-controller-manager" for one in entries)


def _is_made_everywhere(identifier, found):
    """Whether a controller makes it by itself in the namespace."""
    if identifier in ("configmaps", "endpoints"):
        return bool(left_out.reason(identifier, found))
    return left_out.is_default_account(identifier, found)


def _mounts(pod, claim):
    ended = (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
    return not ended and claim in Claims("pods", pod)
