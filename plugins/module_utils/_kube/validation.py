# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Looking at a cluster until it works.  Private to this collection."""

from __future__ import annotations

import contextlib
import time

from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.api import REFUSAL_IS_FINAL, KubeApi, KubeError, Refused, leader_lease
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.health import CONTROLLERS, LAYERS, judge, mark_alive, missing_roles, observe

_FRESH = 60
# a leader renews its lease every 2 s (component-base's config/v1alpha1/defaults.go, RetryPeriod, of 1.34.4 and 1.37.2)
_TWO_RENEWALS = 4
_PATIENCE_WITH_OTHERS = 60


# Of one look: what the options of k8s_dr.etcd.kube_validation are.
ONCE = {"names": None, "baseline": None, "scope": "all", "settle_time": 0, "since_revision": 0, "wait_timeout": 0}


def controller_leases(pods):
    """{controller: "namespace/name" of the lease that it renews}; a controller that elects no leader is left out."""
    leases = {name: leader_lease(pod) for name, pod in pods.items() if name in CONTROLLERS}
    leases.update({name: "kube-system/" + name for name in CONTROLLERS if name not in pods})
    return {name: lease for name, lease in leases.items() if lease}


def unseen(problem="", **what):
    """The validation as returned where nothing could be seen."""
    layers = {layer: {"problems": [], "warnings": []} for layer in LAYERS}
    layers["system"]["problems"] += [problem] if problem else []
    seen = {"ok": False, "reachable": False, "permitted": False, "identity": "", "lasting": "", "layers": layers, "observed": None, "seconds": 0.0}
    return dict(seen, **what)


def look(api, leases, since, params, first, restarted=None):
    """One look: the validation as returned, but that its layers still tell what is `pending`."""
    try:
        observed = observe(api, leases)
    except KubeError as exc:
        return unseen(str(exc), reachable=bool(exc.status), permitted=bool(exc.status) and not isinstance(exc, Refused))
    mark_alive(observed, since, first, params["since_revision"], restarted)
    layers = judge(observed, params["names"], params["baseline"], params["scope"], set(CONTROLLERS) - set(leases))
    ok = not any(layers[layer]["problems"] for layer in LAYERS)
    return unseen(ok=ok, reachable=True, permitted=True, identity=api.identity.name, layers=layers, observed=observed)


def wait(api, params, leases, restarted=None):
    """Look until all is well, the time is over, or it is certain that nobody here may look."""
    start, began, timeout = time.monotonic(), int(time.time()), params["wait_timeout"]
    first = well_since = None
    while True:
        validation = look(api, leases, began if timeout else began - _FRESH, params, first, restarted)
        elapsed = time.monotonic() - start
        if validation["reachable"] and not validation["permitted"]:
            pause, over = 1, api.refused_for() >= REFUSAL_IS_FINAL
        elif not timeout:
            pause, over = _TWO_RENEWALS, first or all(lease["alive"] for lease in (validation["observed"] or {"leases": {}})["leases"].values())
        else:
            well_since = (well_since or elapsed) if validation["ok"] else None
            pending = any(layer.get("pending") for layer in validation["layers"].values())
            waits = elapsed < params["settle_time"] or (pending and elapsed - (well_since or 0) < _PATIENCE_WITH_OTHERS)
            # not a whole second late when it has settled
            settling = params["settle_time"] - elapsed
            pause, over = min(1, settling) if settling > 0 else 1, elapsed >= timeout or (validation["ok"] and not waits)
        if over:
            break
        first = first or validation["observed"]
        time.sleep(pause)
    for layer in validation["layers"].values():
        layer["warnings"] += layer.pop("pending", [])
    if validation["permitted"]:
        # neither is a reason to call a cluster bad that works
        with contextlib.suppress(KubeError, ValueError):
            validation["layers"]["system"]["warnings"] += missing_roles(api)
            validation["lasting"] = getattr(api.lasting(), "name", "")
    validation["seconds"] = round(time.monotonic() - start, 1)
    return validation


def look_once(pods):
    """The validation of a cluster as it is now, by the static Pods of one of its control plane nodes; raises KubeError and ToolError."""
    if "kube-apiserver" not in pods:
        return dict(unseen(), layers={})
    return wait(KubeApi(pods["kube-apiserver"]), ONCE, controller_leases(pods))
