# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Brings the items of a plan back, one after the other, each written down before.  Private to this collection."""

from __future__ import annotations

import time

from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.api import KubeError
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover import left_out, volumes
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.change import ChangeRefused, Writer, is_ours
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.clean import digest, is_own_finalizer, keep_finalizers
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.differences import patch
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.order import CRDS, EARLY
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.plan import BLOCKED, DIFFERENT, MISSING, Item
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.record import SECRETS
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.resources import common, is_away, pairs
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.volumes import CLAIMS, VOLUMES

_ATTEMPTS = 5
CREATE, OVERWRITE, REBIND = "create", "overwrite", "rebind"


class Recovery:
    """What a run does, and what came of it."""

    def __init__(self, plan, record, overwrite, wait_timeout):
        """record: a Record, None for a look at what the API server would refuse.  wait_timeout: seconds until a new CRD must be served."""
        self.plan, self.record, self.overwrite, self.wait_timeout = plan, record, overwrite, wait_timeout
        self.writer = Writer(plan.live)
        self.created, self.overwritten, self.rebound, self.failed = [], [], [], []
        self.warnings = []

    def rehearse(self):
        """Mark as blocked what the API server would refuse now.  What waits for a definition or a namespace cannot be tried."""
        for item in self.plan.of(MISSING, DIFFERENT):
            needed = {("namespaces", "", item.namespace), (CRDS, "", item.there.id)}
            if item.here is None or item.action == BLOCKED or any(key in self.plan.items and self.plan.items[key].action == MISSING for key in needed):
                continue
            try:
                if item.action == MISSING:
                    self._create(item, dry_run=True)
                elif self.overwrite:
                    self._overwrite(item, dry_run=True)
            except ChangeRefused as exc:
                if "does not support dry run" not in str(exc):
                    self._block(item, exc)

    def run(self):
        """Every item that is missing, or different and to be overwritten.  KubeError ends it; a refusal of one object does not."""
        self._settle()
        for item in self.plan.ordered:
            try:
                if item.action == MISSING:
                    self._create(item)
                elif item.action == DIFFERENT and self.overwrite:
                    self._overwrite(item)
            except ChangeRefused as exc:
                self.failed += [{"object": str(one), "reason": one.reason} for one in self._block(item, exc)]
        # after an error of the server it is not known whether the change was made
        self._settle()
        for change in self.record.changes:
            if change["action"] == CREATE and change["resource"] in EARLY and change.get("uid"):
                try:
                    self._adopt(change)
                except ChangeRefused as exc:
                    name = "%s %s" % (change["kind"], "/".join(filter(None, (change["namespace"], change["name"]))))
                    self.failed.append({"object": name, "reason": "got no owner: it %s" % exc})
        self.record.finish()

    def _block(self, item, refusal):
        """Mark an item that was refused, and what is not recovered without it; all of these.  A live one that was not overwritten is there all the same."""
        was_missing = item.action == MISSING
        item.action, item.reason = BLOCKED, str(refusal)
        return [item, *(self.plan.block_users(item) + self.plan.block_owned(item) if was_missing else [])]

    def _settle(self):
        """Changes of which it is not known whether they were made."""
        for change in self.record.changes:
            if change["action"] != CREATE or "uid" in change or "failed" in change:
                continue
            resource = self.plan.here.find(change["resource"])
            if resource is None:
                continue
            live = self.plan.live.get(resource.path(change["namespace"], change["name"]))
            if live and is_ours(live):
                self._note_made(change, resource, live)
            else:
                self.record.end(change["n"], failed=True)

    def _end(self, number, resource, found):
        metadata = found["metadata"]
        self.record.end(number, done=digest(self.plan.cleaned(found, resource)), uid=metadata["uid"], live=metadata["resourceVersion"])

    def _note_made(self, change, resource, live):
        """An object is ours, although no answer said so: `done` is only what was sent, since something else may have changed the object meanwhile."""
        found = {"uid": live["metadata"]["uid"]}
        made = digest(self.plan.cleaned(live, resource))
        if change["resource"] == SECRETS or made == change.get("wanted"):
            found["done"] = made
        self.record.end(change["n"], **found)

    def _wanted(self, item):
        """(resource, object) as it is sent to the live cluster."""
        if item.here is None:
            # in the version in which the snapshot was read, if its definition is served so now
            served = pairs(self.plan.there.versions(item.there.id), self.plan.here.versions(item.there.id))
            item.there, item.here = min(served, key=lambda one: one[0].version != item.there.version)
        found = self.plan.snapshot.get(item.there.path(item.namespace, item.name))
        if found is None or item.here is None:
            raise ChangeRefused("is not in the snapshot any more" if found is None else "cannot be recovered, since its definition is not served")
        wanted = self.plan.cleaned(found, item.there)
        wanted.update(apiVersion=item.here.api_version, kind=item.here.kind)
        self._own(wanted, item.namespace)
        return item.here, wanted

    def _own(self, wanted, namespace):
        """Fill the UIDs of live owners in, and leave references to others out."""
        owners = []
        for owner in wanted["metadata"].pop("ownerReferences", None) or []:
            try:
                uid = self.plan.owner_uid(owner, namespace, remember=False)
            except KubeError as exc:
                if is_away(exc, self.plan.snapshot):
                    raise
                raise ChangeRefused("cannot be recovered now: its owner %s %s cannot be read: %s" % (owner.get("kind"), owner.get("name"), exc)) from exc
            owners += [dict(owner, uid=uid)] if uid else []
        if owners:
            wanted["metadata"]["ownerReferences"] = owners

    def _adopt(self, change):
        """Give an object that was created before its owners the UIDs of those that are there now."""
        there, here = common(self.plan.there.versions(change["resource"]), self.plan.here.versions(change["resource"]))
        found = self.plan.snapshot.get(there.path(change["namespace"], change["name"])) if here else None
        if not found or not found["metadata"].get("ownerReferences"):
            return
        self._own(found, change["namespace"])
        for attempt in range(_ATTEMPTS):
            try:
                self._try_to_adopt(change, here, found["metadata"].get("ownerReferences") or [])
                break
            except ChangeRefused as exc:
                # a controller binds claims and volumes at the same time
                if exc.answer.get("code") != 409 or attempt == _ATTEMPTS - 1:
                    raise

    def _try_to_adopt(self, change, here, owners):
        live = self.plan.live.get(here.path(change["namespace"], change["name"]))
        has = (live or {"metadata": {}})["metadata"].get("ownerReferences") or []
        if live is None or live["metadata"]["uid"] != change.get("uid") or len(has) >= len(owners) or any(one not in owners for one in has):
            return
        is_secret = here.id == SECRETS
        is_unchanged = live["metadata"]["resourceVersion"] == change.get("live") if is_secret else digest(self.plan.cleaned(live, here)) == change.get("done")
        if is_unchanged:
            # undo knows the object with its owners and without
            after = dict(live, metadata=dict(live["metadata"], ownerReferences=owners))
            self.record.write(dict({"live": None} if is_secret else {"wanted": digest(self.plan.cleaned(after, here))}, n=change["n"]))
        live = self.writer.merge(here, change["namespace"], change["name"], {"metadata": {"ownerReferences": owners}}, live["metadata"]["resourceVersion"])
        if is_unchanged:
            self._end(change["n"], here, live)

    def _create(self, item, dry_run=False):
        resource, wanted = self._wanted(item)
        if left_out.is_default_account(resource.id, wanted) and self.plan.live.get(resource.path(item.namespace, item.name)):
            # a controller was faster: the namespace has just been made
            return self._overwrite(item, dry_run)
        if resource.id == VOLUMES:
            claim = volumes.claim_of(wanted)
            claims = self.plan.here.find(CLAIMS)
            volumes.recovered(wanted, self.plan.live.get(claims.path(claim["namespace"], claim["name"])) if claim else None)
        if dry_run:
            self._send(item, resource, wanted, dry_run)
            return None
        if item.rebind:
            self._rebind(item)
        sent = digest(self.plan.cleaned(wanted, resource))
        number = self.record.begin(CREATE, item, wanted=sent)
        try:
            found = self._send(item, resource, wanted)
            self._end(number, resource, found)
        except ChangeRefused as exc:
            exists = exc.answer.get("reason") == "AlreadyExists"
            live = self.plan.live.get(resource.path(item.namespace, item.name)) if exists else None
            if live and is_ours(live):
                # the session may send twice: the first answer was lost
                self._note_made(self.record.changes[-1], resource, live)
            else:
                if exc.is_certain:
                    self.record.end(number, failed=True)
                # a controller was faster: the namespace or the owner has just been made
                if exists and left_out.is_default_account(resource.id, wanted):
                    return self._overwrite(item)
                if live and digest(self.plan.cleaned(live, resource)) == sent:
                    return None
                raise
        self.created.append(str(item))
        if resource.id == CRDS:
            self._await_definition(item)
        return None

    def _send(self, item, resource, wanted, dry_run=False):
        """The new object; a Service gets other addresses and ports where its own are taken."""
        while True:
            try:
                return self.writer.create(resource, item.namespace, wanted, dry_run)
            except ChangeRefused as exc:
                taken = _without_taken(wanted, exc.fields(), str(exc)) if resource.id == "services" and "allocated" in str(exc) else []
                if not taken:
                    raise
                self.warnings.append("%s gets another %s: its own is taken" % (item, " and ".join(taken)))

    def _await_definition(self, item):
        end = time.monotonic() + self.wait_timeout
        while True:
            self.plan.here.ask()
            if self.plan.here.find(item.name):
                return
            if time.monotonic() > end:
                raise ChangeRefused("was recovered, and is not served after %d s; see its conditions, and run this again" % self.wait_timeout)
            time.sleep(0.3)

    def _overwrite(self, item, dry_run=False):
        resource, wanted = self._wanted(item)
        live = self.plan.live.get(resource.path(item.namespace, item.name))
        if live is None:
            raise ChangeRefused("was deleted meanwhile; run this again")
        before = with_uids(self.plan.cleaned(live, resource), live)
        if resource.id == VOLUMES:
            volumes.keep_binding(wanted, before)
        keep_finalizers(wanted, before)
        change = with_own_finalizers(patch(before, wanted), live)
        if not change:
            return
        number = None if dry_run else self.record.begin(OVERWRITE, item, wanted=digest(self.plan.cleaned(wanted, resource)), before=before)
        try:
            found = self.writer.merge(resource, item.namespace, item.name, change, live["metadata"]["resourceVersion"], dry_run)
        except ChangeRefused as exc:
            found = self.plan.live.get(resource.path(item.namespace, item.name)) if exc.answer.get("code") == 409 and not dry_run else None
            # the session may send twice: the first answer was lost, and the second one names a version that is not there any more
            if not found or not is_ours(found) or digest(self.plan.cleaned(found, resource)) != digest(self.plan.cleaned(wanted, resource)):
                if not dry_run and exc.is_certain:
                    self.record.end(number, failed=True)
                raise
        if not dry_run:
            self._end(number, resource, found)
            self.overwritten.append(str(item))

    def _rebind(self, item):
        """Have the volume of a claim wait for the one that is recovered, and no longer belong to the one that was deleted."""
        resource = self.plan.here.find(VOLUMES)
        if self.plan.live.get(item.here.path(item.namespace, item.name)):
            # it may be bound to the volume
            raise ChangeRefused("was made by something else meanwhile; run this again")
        live = self.plan.live.get(resource.path("", item.volume))
        reason = volumes.problem(live, item.namespace, item.name) if live else "cannot be recovered: its volume %s is gone; run this again" % item.volume
        if reason:
            raise ChangeRefused(reason)
        claim = volumes.claim_of(live)
        if not claim.get("uid"):
            return
        before, volume = {key: claim.get(key) for key in ("namespace", "name", "uid", "resourceVersion")}, Item(resource, resource, live)
        number = self.record.begin(REBIND, volume, before=before)
        free = {"spec": {"claimRef": {"uid": None, "resourceVersion": None}}}
        self.writer.merge(resource, "", volume.name, free, live["metadata"]["resourceVersion"])
        self.record.end(number, done="", uid=live["metadata"]["uid"])
        self.rebound.append(str(volume))


def with_uids(cleaned, live):
    """The cleaned object with the UIDs of its owners, as the API server wants them."""
    if live["metadata"].get("ownerReferences"):
        cleaned["metadata"]["ownerReferences"] = live["metadata"]["ownerReferences"]
    return cleaned


def with_own_finalizers(change, live):
    """The patch, with the finalizers that Kubernetes itself has put on the object: a list is replaced as a whole."""
    if "finalizers" in change.get("metadata", {}):
        own = [name for name in live["metadata"].get("finalizers") or [] if is_own_finalizer(name)]
        change["metadata"]["finalizers"] = own + (change["metadata"]["finalizers"] or [])
    return change


def _without_taken(service, fields, sentence):
    """Remove the addresses and ports that these fields, or the sentence of the API server, name; what they were."""
    spec, taken = service["spec"], []
    if any(field.startswith("spec.clusterIP") for field in fields) and "clusterIP" in spec:
        taken.append("ClusterIP (%s)" % spec.pop("clusterIP"))
        spec.pop("clusterIPs", None)
    # of this one there is no field (1.34.4 to 1.37.2: pkg/registry/core/service/storage/alloc.go, allocHealthCheckNodePort)
    if "healthCheckNodePort" in spec and ("spec.healthCheckNodePort" in fields or "HealthCheck NodePort" in sentence):
        taken.append("healthCheckNodePort (%s)" % spec.pop("healthCheckNodePort"))
    for number, port in enumerate(spec.get("ports") or []):
        if "spec.ports[%d].nodePort" % number in fields and "nodePort" in port:
            taken.append("nodePort (%s)" % port.pop("nodePort"))
    return taken
