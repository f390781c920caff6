# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Takes back what a run did, in reverse, where it is still as that run left it.  Private to this collection."""

from __future__ import annotations

import time

from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover import left_out
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.apply import CREATE, OVERWRITE, REBIND, is_ours, with_own_finalizers, with_uids
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.change import ChangeRefused, Writer
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.clean import clean, digest, is_own_finalizer
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.differences import patch
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.order import CRDS
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.plan import CLAIMS, VOLUMES
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.resources import Resources

# Others wait for these to be gone: claims for Pods, volumes for claims, a run after this one for namespaces and definitions.
_AWAITED = (CLAIMS, VOLUMES, "namespaces", CRDS)


class Undo:
    """The undo of one Record."""

    def __init__(self, live, record, wait_timeout, check=False):
        """live: a Session.  wait_timeout: seconds until a deleted claim, volume, namespace or definition must be gone.  check: change nothing."""
        self.live, self.record, self.wait_timeout, self.check = live, record, wait_timeout, check
        self.here = Resources(live)
        self.writer = Writer(live)
        self.undone, self.left = [], []
        self._made = {(one["resource"], one["namespace"], one["name"]): one for one in record.changes if one["action"] == CREATE and _counts(one)}

    def run(self):
        for change in reversed(self.record.changes):
            if not _counts(change):
                continue
            name = "%s %s" % (change["kind"], "/".join(filter(None, (change["namespace"], change["name"]))))
            try:
                done = {CREATE: self._delete, OVERWRITE: self._put_back, REBIND: self._give_back}[change["action"]](change)
            except ChangeRefused as exc:
                self.left.append({"object": name, "reason": str(exc)})
                continue
            if not self.check:
                self.record.write({"n": change["n"], "undone": True})
            if done:
                self.undone.append(name)

    def _found(self, change):
        """(resource, live object, the same cleaned); the object is None where it is gone."""
        resource = next((one for one in self.here.versions(change["resource"]) if one.version == change["version"]), None)
        live = self.live.get(resource.path(change["namespace"], change["name"])) if resource else None
        return resource, live, clean(live, resource.id, resource.has_status) if live else None

    def _check_unchanged(self, change, live, cleaned):
        if "done" in change and change.get("uid") != live["metadata"]["uid"]:
            raise ChangeRefused("stays: it was deleted and made again since")
        if digest(cleaned) not in (change.get("done"), change.get("wanted")):
            raise ChangeRefused("stays: it was changed since")

    def _delete(self, change):
        resource, live, cleaned = self._found(change)
        if live is None or ("done" not in change and not is_ours(live)):
            return False
        if left_out.is_default_account(resource.id, live) and ("namespaces", "", change["namespace"]) in self._made:
            # a controller keeps it; it goes with the namespace
            return False
        if change.get("existed"):
            raise ChangeRefused("stays: it was there already when it was to be recovered")
        self._check_unchanged(change, live, cleaned)
        if resource.id == "namespaces":
            self._check_empty(change["name"], [one for one in self.here if one.namespaced], "it holds")
        elif resource.id == CRDS:
            self._check_empty("", [one for one in self.here if one.id == change["name"]], "there are objects of it:")
        elif resource.id == CLAIMS:
            self._keep_data(change, live)
        if self.check:
            return True
        ours = [name for name in live["metadata"].get("finalizers") or [] if not is_own_finalizer(name)]
        if ours:
            # they came with the object; a controller that sees it deleted would clean up outside the cluster, where nothing was made
            own = with_own_finalizers({"metadata": {"finalizers": []}}, live)
            live = self.writer.merge(resource, change["namespace"], change["name"], own, live["metadata"]["resourceVersion"])
        while not self._try_to_delete(resource, change, live):
            # its status changes all the time
            live, cleaned = self._found(change)[1:]
            if live is None:
                break
            self._check_unchanged(change, live, cleaned)
        if resource.id in _AWAITED:
            self._await(resource, change)
        return True

    def _try_to_delete(self, resource, change, live):
        """False where it was changed since it was read."""
        try:
            self.writer.delete(resource, change["namespace"], change["name"], live["metadata"])
        except ChangeRefused as exc:
            if exc.answer.get("code") == 409:
                return False
            raise
        return True

    def _await(self, resource, change):
        end = time.monotonic() + self.wait_timeout
        while self.live.get(resource.path(change["namespace"], change["name"])):
            if time.monotonic() > end:
                raise ChangeRefused("was deleted, and is still there after %d s; see its finalizers, and run the undo again" % self.wait_timeout)
            time.sleep(0.3)

    def _check_empty(self, namespace, resources, words):
        """A namespace or a definition takes all that is in it along, also what others have made since."""
        for resource in resources:
            if resource.id in left_out.NEVER:
                continue
            for found in self.live.items(resource.path(namespace)):
                metadata = found["metadata"]
                key = (resource.id, metadata.get("namespace", ""), metadata["name"])
                made = left_out.reason(resource.id, found, {key[1:]} if resource.id == "endpoints" else ()) or metadata.get("ownerReferences")
                if made or left_out.is_default_account(resource.id, found) or (self.check and key in self._made):
                    continue
                raise ChangeRefused("stays: %s %s %s, which this run did not recover or did not undo" % (words, found["kind"], metadata["name"]))

    def _keep_data(self, change, live):
        """A volume with the reclaim policy Delete would be deleted with its claim, and the data in it."""
        name = (live.get("spec") or {}).get("volumeName")
        resource = self.here.find(VOLUMES)
        volume = self.live.get(resource.path("", name)) if name else None
        if volume is None or volume["spec"].get("persistentVolumeReclaimPolicy") != "Delete":
            return
        made = self._made.get((VOLUMES, "", name))
        if made is None:
            raise ChangeRefused("stays: its volume %s has the reclaim policy Delete, so the data would be deleted with it" % name)
        self._check_unchanged(made, volume, clean(volume, resource.id, resource.has_status))
        if not self.check:
            kept = self.writer.merge(resource, "", name, {"spec": {"persistentVolumeReclaimPolicy": "Retain"}}, volume["metadata"]["resourceVersion"])
            self.record.write({"n": made["n"], "done": digest(clean(kept, resource.id, resource.has_status))})

    def _put_back(self, change):
        resource, live, cleaned = self._found(change)
        if live is None:
            raise ChangeRefused("was deleted since")
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
        if claim.get("uid") and self.live.get(self.here.find(CLAIMS).path(claim["namespace"], claim["name"])) and not self.check:
            raise ChangeRefused("stays as it is: the claim %s/%s uses it" % (claim["namespace"], claim["name"]))
        if not self.check:
            self.writer.merge(resource, "", change["name"], {"spec": {"claimRef": change["before"]}}, live["metadata"]["resourceVersion"])
        return True


def _counts(change):
    return "undone" not in change and "failed" not in change
