# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A plan for people, and for the module's result.  Private to this collection."""

from __future__ import annotations

import collections
import hashlib
import json

from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover import volumes
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.differences import shown
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.plan import BLOCKED, DIFFERENT, LEFT_OUT, MISSING, SAME
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.record import undo_command

# Lines that one part of the plan may take.
_MOST = 50
_FIELDS = 10


def described(plan):
    """The plan as data."""
    cautions = [{"object": str(item), "reason": item.caution} for item in plan.of(MISSING, DIFFERENT, SAME) if item.caution]
    claims = [item for item in plan.of(MISSING) if item.rebind]
    return {
        "missing": [str(item) for item in plan.of(MISSING)],
        "different": [{"object": str(item), "differences": item.differences} for item in plan.of(DIFFERENT)],
        "same": len(plan.of(SAME)),
        "blocked": plan.unreadable + [{"object": str(item), "reason": item.reason} for item in plan.of(BLOCKED)],
        "left_out": [{"object": str(item), "reason": item.reason} for item in plan.of(LEFT_OUT)],
        "rebound": [{"object": "PersistentVolume %s" % item.volume, "claim": "%s/%s" % (item.namespace, item.name)} for item in claims],
        "warnings": plan.warnings + list(problems(cautions)),
    }


def fingerprint(plan, overwrite):
    """One text for plans that would change the same.  What the API server would refuse does not count: it is tried again."""
    # the sentences have nothing of the values of Secrets, and only the beginning of others
    different = [(item.key, item.differences, item.live_digest) for item in plan.of(DIFFERENT)] if overwrite else []
    return checksum([(item.key, item.rebind) for item in plan.of(MISSING)], different)


def checksum(*what):
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()


def problems(found):
    """[{"object", "reason"}, ...] as sentences, one for each reason."""
    objects = {}
    for one in found:
        objects.setdefault(one["reason"], []).append(one["object"])
    for reason, names in objects.items():
        more = "" if len(names) == 1 else " and %d others:" % (len(names) - 1) if len(names) > 2 else " and %s:" % names[1]
        yield "%s%s %s" % (names[0], more, reason)


def lines(found, overwrite):
    """The plan as text.  found: of described()."""
    text = list(found["warnings"])
    text += _part("Missing, would be recovered", found["missing"])
    text += _part("Volumes that would wait for the claim that is recovered", ["%(object)s for %(claim)s" % one for one in found["rebound"]])
    different = []
    for one in found["different"]:
        different += [one["object"]] + ["  " + sentence for sentence in shortened(one["differences"])]
    text += _part("Different, would be %s" % ("overwritten" if overwrite else "left as they are"), different, len(found["different"]))
    text += _part("Cannot be recovered", problems(found["blocked"]), len(found["blocked"]))
    reasons = collections.Counter((one["object"].partition(" ")[0], one["reason"]) for one in found["left_out"])
    text += _part("Not recovered", ["%d %s: each %s" % (number, kind, reason) for (kind, reason), number in sorted(reasons.items())], len(found["left_out"]))
    text.append("The same in the snapshot and live: %d" % found["same"])
    return text


def shortened(differences):
    """The first fields of one object, and how many more there are."""
    more = len(differences) - _FIELDS
    return differences[:_FIELDS] + (["and %d more fields" % more] if more > 0 else [])


def change_lines(found):
    """What a restore would do to objects, as text.  found: of Changes.described()."""
    text = list(found["warnings"])
    text += _counted("Re-created", [[one] for one in found["recreated"]["objects"]], found["recreated"]["count"])
    text += _counted("Deleted", [[one] for one in found["deleted"]["objects"]], found["deleted"]["count"])
    modified = [[one["object"]] + ["  " + sentence for sentence in one["differences"]] for one in found["modified"]["objects"]]
    text += _counted("Modified", modified, found["modified"]["count"])
    text += _part("Cannot be compared", problems(found["unreadable"]), len(found["unreadable"]))
    made = ["%(count)d %(kind)s: each %(reason)s" % one for one in found["made"]]
    return text + _part("Not compared", made, sum(one["count"] for one in found["made"]))


def _counted(title, blocks, count):
    """As many objects, with their lines, as one part may take."""
    text, shown = [], 0
    for block in blocks:
        if text and len(text) + len(block) > _MOST:
            break
        text, shown = text + ["  " + line for line in block], shown + 1
    return ["%s (%d):" % (title, count), *text] + (["  and %d more" % (count - shown)] if count > shown else []) if count else []


def undo_lines(run):
    """What an Undo undoes, as text."""
    return _part("Would be undone", run.undone) + _part("Stays", problems(run.left), len(run.left)) or ["There is nothing left to undo"]


def summary(report, identifier, ended_early=False):
    """What a run has done, as text.  ended_early: whether the last change may have been made although the report does not have it."""
    words = (("created", "created"), ("overwritten", "overwritten"), ("rebound", "given to recovered claims"), ("undone", "undone"))
    done = ["%d objects %s" % (len(report[key]), what) for key, what in words if report[key]]
    nothing = "No change is known to have been made" if ended_early and identifier else "Nothing was changed"
    text = report["warnings"] + [", ".join(done) if done else nothing]
    if done and not report["undone"]:
        text.append("To undo this: %s" % undo_command(identifier))
    return text


def _part(title, found, number=None):
    found = list(found)
    if not found:
        return []
    more = ["  and %d more" % (len(found) - _MOST)] if len(found) > _MOST else []
    return ["%s (%d):" % (title, len(found) if number is None else number)] + ["  " + one for one in found[:_MOST]] + more


def diffs(plan, overwrite, most=200):
    """What --diff shows: objects that would be made or overwritten, without the values of Secrets."""
    found = []
    for item in plan.of(*([MISSING, DIFFERENT] if overwrite else [MISSING]))[:most]:
        snapshot = plan.snapshot.get(item.there.path(item.namespace, item.name))
        live = plan.live.get(item.here.path(item.namespace, item.name)) if item.action == DIFFERENT else None
        before, after = plan.cleaned(live, item.here) if live else None, plan.cleaned(snapshot, item.there) if snapshot else None
        if after and item.there.id == volumes.VOLUMES:
            volumes.keep_binding(after, before) if before else volumes.recovered(after, None)
        found.append(
            {
                "before": shown(before, item.there.id),
                "after": shown(after, item.there.id),
                "before_header": "%s (live)" % item,
                "after_header": "%s (snapshot)" % item,
            }
        )
    return found
