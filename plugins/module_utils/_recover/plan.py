# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a run would recover: each selected object of the snapshot beside the live one.  Private to this collection.

Only names, UIDs and checksums of objects are kept, so that memory grows little with what is selected.
"""

from __future__ import annotations

from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.api import KubeError
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover import left_out, volumes, workloads
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.clean import clean, digest, keep_finalizers
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.differences import fields, sentences
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.order import CRDS, EARLY, ordered, rank
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.record import SECRETS
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.resources import Resources, common, is_away, pairs
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.selection import check_kinds, check_namespaces
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.volumes import CLAIMS, VOLUMES
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import Refused

MISSING, DIFFERENT, SAME, BLOCKED, LEFT_OUT = "missing", "different", "same", "blocked", "left out"
_ALONE = "; run this again when that is solved, or select this object alone, by its kind and name, to recover it all the same"


def unreadable(exc, snapshot):
    """What a KubeError says of the kind that was asked for, to follow its name."""
    return "cannot be read in the %s: %s" % ("snapshot" if snapshot.name in str(exc) else "live cluster", exc)


class Item:
    """One object of the snapshot, and what would be done with it."""

    def __init__(self, there, here, found):
        """there, here: its Resource in the snapshot and in the live cluster; here is None where it is not served."""
        metadata = found["metadata"]
        self.there, self.here = there, here
        self.namespace, self.name = metadata.get("namespace", ""), metadata["name"]
        self.uid = metadata.get("uid", "")
        self.references = metadata.get("ownerReferences") or []
        self.owners = [owner.get("uid") for owner in self.references]
        self.rank = 0
        self.needs = []
        self.action, self.reason, self.differences = MISSING, "", []
        # digest of the live object that differs; of a Secret its resourceVersion
        self.live_digest = ""
        # what to know before, to follow its name
        self.caution = ""
        # of a claim: its volume; and whether that still belongs to the claim that was deleted
        self.volume, self.rebind = "", False
        # of a workload: the claims that its Pods mount
        self.claims = ()
        # of a volume: what storage it is
        self.source = ""

    @property
    def key(self):
        return (self.there.id, self.namespace, self.name)

    def __str__(self):
        return "%s %s" % (self.there.kind, self.namespace + "/" + self.name if self.namespace else self.name)


class Plan:
    """The items of a selection, in the order in which they are recovered."""

    def __init__(self, snapshot, live, entries):
        """snapshot, live: Sessions.  entries: of selection.parse()."""
        self.snapshot, self.live, self.entries = snapshot, live, entries
        self.there, self.here = Resources(snapshot), Resources(live)
        self.items, self.warnings = {}, []
        # resources that the snapshot's API server cannot read, as Secrets whose key is not there
        self.unreadable = []
        self._left_out = left_out.LeftOut(snapshot, self.there)
        self._live_objects, self._owners, self._sources = {}, {}, None

    def make(self):
        """Fill it; Refused for a selection that cannot be meant."""
        check_kinds(self.entries, self.there)
        check_namespaces(self.entries, self.snapshot)
        for entry in self.entries:
            before = len(self.items)
            for there in self.there:
                if not entry.takes(there):
                    continue
                if there.id not in left_out.NEVER:
                    self._list_readable(entry, there)
                elif entry.kind:
                    raise Refused("objects of kind %s are not recovered: %s" % (there.kind, left_out.NEVER[there.id]))
            if len(self.items) == before and not self.unreadable and not any(self._is_selected_by(entry, item) for item in self.items.values()):
                self.warnings.append("The snapshot has nothing that the selection (%s) means" % entry)
        self._add_needed()
        # until none is left out any more, as that of an owner that has just been left out
        while sum(self._check_owners(item) for item in self.of(MISSING)):
            pass
        for item in self.of(MISSING):
            self._check_missing(item)
        for item in self.of(BLOCKED):
            self.block_users(item)
            self.block_owned(item)
        return self

    @property
    def ordered(self):
        return ordered(list(self.items.values()))

    def of(self, *actions):
        return [item for item in self.ordered if item.action in actions]

    def block_users(self, blocked):
        """Block what would start with new, empty storage, or wait, without the storage of this item, which is blocked; [what was blocked for that]."""
        found, todo = [], [blocked] if blocked.there.id in (CLAIMS, VOLUMES) else []
        while todo:
            one = todo.pop()
            for item in self.items.values():
                reason = _lacks(item, one) if item.action == MISSING else ""
                if reason:
                    item.action, item.reason = BLOCKED, reason
                    found.append(item)
                    todo.append(item)
        return found

    def block_owned(self, blocked):
        """Block what only this item owns, which is blocked: it would get no owner any more, and in the way of what that makes; [what was blocked for that]."""
        found, todo = [], [blocked]
        while todo:
            one = todo.pop()
            for item in self.items.values():
                if item.action != MISSING or item.there.id in EARLY or not one.uid or one.uid not in item.owners:
                    continue
                others = [reference for reference in item.references if reference.get("uid") != one.uid]
                missing = [self.items.get(self._key_of_owner(reference, item.namespace)) for reference in others]
                if not any(other and other.action == MISSING for other in missing) and not any(self._may_be_live(other, item.namespace) for other in others):
                    item.action, item.reason = BLOCKED, "cannot be recovered: it belongs to %s, which cannot%s" % (one, _ALONE)
                    found.append(item)
                    todo.append(item)
        return found

    def live_object(self, resource, namespace, name):
        """A live object, asked for once; None where there is none."""
        key = (resource.id, namespace, name)
        if key not in self._live_objects:
            self._live_objects[key] = self.live.get(resource.path(namespace, name))
        return self._live_objects[key]

    def owner_uid(self, reference, namespace, remember=True):
        """The live UID of what an ownerReference names; None where it is not there."""
        resource = self.here.of_owner(reference)
        if resource is None:
            return None
        namespace = namespace if resource.namespaced else ""
        name = reference.get("name", "")
        found = self._first_readable(resource, lambda one: self.live_object(one, namespace, name) if remember else self.live.get(one.path(namespace, name)))
        return found["metadata"]["uid"] if found and not found["metadata"].get("deletionTimestamp") else None

    def _first_readable(self, resource, read):
        """What read() returns for the first version that can be read: a conversion webhook may be out of reach."""
        problem = None
        for one in self.here.versions(resource.id):
            try:
                return read(one)
            except KubeError as exc:
                if is_away(exc, self.snapshot):
                    raise
                problem = problem or exc
        raise problem

    def _may_be_live(self, reference, namespace):
        """Whether an owner is there; also where the live cluster cannot read it, as without its conversion webhook."""
        try:
            return bool(self.owner_uid(reference, namespace))
        except KubeError as exc:
            if is_away(exc, self.snapshot):
                raise
            return True

    def cleaned(self, found, resource):
        return clean(found, resource.id, resource.has_status)

    def _is_selected_by(self, entry, item):
        return entry.takes(item.there) and entry.namespace in ("", item.namespace, item.name) and entry.name in ("", item.name)

    def _list_readable(self, entry, resource):
        """Add what the entry means, in the first version in which both can be read: a conversion webhook may be out of reach."""
        problem = None
        for there, here in pairs(self.there.versions(resource.id), self.here.versions(resource.id)):
            try:
                return self._list(entry, there, here)
            except KubeError as exc:
                if is_away(exc, self.snapshot):
                    raise
                problem = problem or unreadable(exc, self.snapshot)
        return self.unreadable.append({"object": "%s of the selection (%s)" % (resource.kind, entry), "reason": problem})

    def _list(self, entry, there, here):
        seen = None
        path, query = entry.query(there)
        for found in self.snapshot.items(path, **query):
            if seen is None:
                seen = {one["metadata"]["name"] + "/" + one["metadata"].get("namespace", ""): self._mark(one, here) for one in self._alive(entry, here)}
            metadata = found["metadata"]
            mark = seen.get(metadata["name"] + "/" + metadata.get("namespace", ""))
            if mark is None and here and entry.labels:
                # the live one may have other labels
                live = self.live.get(here.path(metadata.get("namespace", ""), metadata["name"]))
                mark = self._mark(live, here) if live else None
            self._add(there, here, found, mark)

    def _alive(self, entry, here):
        path, query = entry.query(here) if here else ("", {})
        return self.live.items(path, **query) if here else ()

    def _mark(self, found, here):
        return digest(self.cleaned(found, here)), bool(found["metadata"].get("deletionTimestamp"))

    def _add(self, there, here, found, mark):
        """An item of an object of the snapshot.  mark: of the live one, None where there is none."""
        item = Item(there, here, found)
        if item.key in self.items:
            return self.items[item.key]
        self.items[item.key] = item
        item.rank = rank(there.id, self._left_out.is_custom(there))
        item.reason = self._left_out.reason(there, found)
        if item.reason:
            # without its namespace nothing that is selected can be recovered, and without its claim a workload would start with a new, empty one
            item.action = BLOCKED if there.id in ("namespaces", CLAIMS) and mark is None else LEFT_OUT
        elif mark is None:
            item.caution = left_out.caution(there.id, found, self._left_out.loses_status(there))
            item.needs = list(_needs(found, item, self._left_out.is_custom(there) and here is None))
            item.volume = (found.get("spec") or {}).get("volumeName", "") if there.id == CLAIMS else ""
            item.claims = workloads.Claims(there.id, found)
            if there.id == VOLUMES:
                item.source = volumes.source(found)
                if volumes.policy(found) != volumes.RETAIN:
                    words = "had the reclaim policy %s: if its claim was deleted, so was the data; look at the storage first. It is recovered with %s"
                    item.caution = words % (volumes.policy(found), volumes.RETAIN)
            if here is None:
                self._not_served(item)
        elif mark[1]:
            item.action, item.reason = BLOCKED, "is still being deleted; run this again when it is gone"
        else:
            self._compare(item, found, mark[0])
        return item

    def _not_served(self, item):
        other = self.here.versions(item.there.id)
        silent = self.here.silent_of(item.there.group)
        if silent:
            item.action, item.reason = BLOCKED, "cannot be recovered: the API server does not serve %s now" % silent[0]
        elif other:
            served = ", ".join(one.version for one in other)
            item.action, item.reason = BLOCKED, "cannot be recovered: it is served as %s only, and in the snapshot as %s" % (served, item.there.version)
        elif not self._left_out.is_custom(item.there):
            item.action, item.reason = BLOCKED, "cannot be recovered: the live cluster does not serve %s" % item.there.id

    def _compare(self, item, found, live_digest):
        wanted = self.cleaned(found, item.there)
        item.action = SAME
        if digest(wanted) == live_digest:
            return
        live = self.live_object(item.here, item.namespace, item.name)
        live = self.cleaned(live, item.here) if live else {}
        if live and item.there.id == VOLUMES and volumes.keep_binding(wanted, live):
            item.caution = "keeps its claimRef and its reclaim policy, which differ from the snapshot: with others its data could be deleted"
        if live:
            keep_finalizers(wanted, live)
        found = fields(live, self.with_live_owners(wanted, item.namespace))
        item.differences = list(sentences(found, item.there.id))
        item.action, item.live_digest = DIFFERENT if found else SAME, live_digest
        if live and item.there.id == SECRETS:
            # it goes into the module's result, and a checksum would let short values be guessed
            item.live_digest = self.live_object(item.here, item.namespace, item.name)["metadata"]["resourceVersion"]

    def with_live_owners(self, wanted, namespace):
        """Without ownerReferences to what is not there: they are not recovered."""
        owners = wanted["metadata"].get("ownerReferences")
        if owners:
            wanted["metadata"]["ownerReferences"] = [one for one in owners if self._may_be_live(one, namespace)]
            if not wanted["metadata"]["ownerReferences"]:
                del wanted["metadata"]["ownerReferences"]
        return wanted

    def _add_needed(self):
        """What an object cannot do without, where that is missing as well."""
        todo = [item for item in self.items.values() if item.action == MISSING]
        while todo:
            for identifier, namespace, name in todo.pop().needs:
                there, here = common(self.there.versions(identifier), self.here.versions(identifier)) if self.there.find(identifier) else (None, None)
                if there is None or (identifier, namespace, name) in self.items:
                    continue
                live = self.live_object(here, namespace, name) if here else None
                if live and not live["metadata"].get("deletionTimestamp"):
                    continue
                found = self.snapshot.get(there.path(namespace, name))
                if found:
                    item = self._add(there, here, found, self._mark(live, here) if live else None)
                    todo += [item] if item.action == MISSING else []

    def _check_owners(self, item):
        """Leave out an object of an owner that is left out: it would stay as an orphan, and in the way of a new one.  Whether it was."""
        if any(self._may_be_live(one, item.namespace) for one in item.references):
            return False
        owners = [self._owner(one, item.namespace) for one in item.references]
        gone = next((owner for owner in owners if owner and owner.action == LEFT_OUT), None)
        if gone is None or any(owner and owner.action == MISSING and owner.key in self.items for owner in owners):
            return False
        item.action, item.reason = LEFT_OUT, "belongs to %s, which is not recovered" % gone
        return True

    def _owner(self, reference, namespace):
        """What would be done with an owner: an Item, also of one that is not selected; None where the snapshot does not have it."""
        there = self.there.of_owner(reference)
        namespace = namespace if there and there.namespaced else ""
        key = self._key_of_owner(reference, namespace)
        if key in self.items or there is None:
            return self.items.get(key)
        if key not in self._owners:
            known = self._left_out.owner(reference, namespace)
            owner = self._owners[key] = Item(there, None, known[1]) if known else None
            if known and known[2]:
                owner.action = LEFT_OUT
            elif owner:
                self._check_owners(owner)
        return self._owners[key]

    def _key_of_owner(self, reference, namespace):
        there = self.there.of_owner(reference)
        return (there.id, namespace if there.namespaced else "", reference.get("name", "")) if there else None

    def _check_missing(self, item):
        """Whether something that is live stands in its way."""
        space = self.live_object(self.here.find("namespaces"), "", item.namespace) if item.namespace else None
        if space and space["metadata"].get("deletionTimestamp"):
            item.action, item.reason = BLOCKED, "cannot be recovered: its namespace is still being deleted; run this again when it is gone"
        needed = self.items.get(("namespaces", "", item.namespace))
        if needed and needed.action == BLOCKED and item.namespace and space is None:
            item.action, item.reason = BLOCKED, "cannot be recovered: its namespace " + needed.reason
        definition = self.items.get((CRDS, "", item.there.id))
        if item.here is None and (definition is None or definition.action != MISSING):
            why = "its definition %s" % (definition.reason if definition and definition.reason else "is not in the snapshot")
            item.action, item.reason = BLOCKED, item.reason or "cannot be recovered: %s" % why
        if item.volume and item.action == MISSING:
            self._check_volume(item)
        if item.source and item.action == MISSING:
            self._check_source(item)

    def _check_volume(self, item):
        """A volume that is still there may still belong to the claim that was deleted; the recovered claim must find it."""
        live = self.live_object(self.here.find(VOLUMES), "", item.volume)
        if live is None:
            known = self.items.get((VOLUMES, "", item.volume))
            if known is None or known.action == LEFT_OUT:
                item.caution = "will wait for its volume %s, which is neither live nor recovered" % item.volume
            return
        reason = volumes.problem(live, item.namespace, item.name)
        if reason:
            item.action, item.reason = BLOCKED, reason
        item.rebind = not reason and bool(volumes.claim_of(live).get("uid"))

    def _check_source(self, item):
        """Two volumes that are one storage would be mounted, or deleted, together, unless they were two in the snapshot as well."""
        if self._sources is None:
            self._sources = {}
            for one in self.live.items(self.here.find(VOLUMES).path()):
                self._sources.setdefault(volumes.source(one), []).append(one["metadata"]["name"])
        for name in self._sources.get(item.source, ()) if item.source else ():
            before = self.snapshot.get(item.there.path("", name))
            if before is None or volumes.source(before) != item.source:
                item.action, item.reason = BLOCKED, "cannot be recovered: its storage is that of the live volume %s now" % name


def _needs(found, item, undefined):
    """(resource, namespace, name) of what this object is refused without, or does not work without: definitions, namespaces, volumes and classes."""
    spec = found.get("spec") or {}
    if undefined:
        yield CRDS, "", item.there.id
    if item.namespace:
        yield "namespaces", "", item.namespace
    if item.there.id == CLAIMS and spec.get("volumeName"):
        yield VOLUMES, "", spec["volumeName"]
    if item.there.id in (CLAIMS, VOLUMES) and spec.get("storageClassName"):
        yield "storageclasses.storage.k8s.io", "", spec["storageClassName"]
    if item.there.id == "ingresses.networking.k8s.io" and spec.get("ingressClassName"):
        yield "ingressclasses.networking.k8s.io", "", spec["ingressClassName"]
    role = found.get("roleRef") or {}
    if item.there.group == "rbac.authorization.k8s.io" and role.get("kind") in ("Role", "ClusterRole"):
        yield role["kind"].lower() + "s.rbac.authorization.k8s.io", item.namespace if role["kind"] == "Role" else "", role.get("name", "")
    pod = workloads.pod_spec(item.there.id, found)
    if pod.get("priorityClassName"):
        yield "priorityclasses.scheduling.k8s.io", "", pod["priorityClassName"]
    if pod.get("runtimeClassName"):
        yield "runtimeclasses.node.k8s.io", "", pod["runtimeClassName"]


def _lacks(item, blocked):
    """Why this item is not recovered without the blocked one, which is storage or was blocked for that; "" where it may be."""
    if item.there.id in EARLY:
        is_volume = item.there.id == CLAIMS and blocked.key == (VOLUMES, "", item.volume)
        return "cannot be recovered: its volume %s cannot" % item.volume if is_volume else ""
    if blocked.key == (CLAIMS, item.namespace, blocked.name) and blocked.name in item.claims:
        return "cannot be recovered: its claim %s cannot, and it must not start without its data%s" % (blocked.name, _ALONE)
    if blocked.there.id != VOLUMES and item.uid in blocked.owners:
        return "cannot be recovered: it owns %s, which cannot, and would make that anew without its data%s" % (blocked, _ALONE)
    return ""
