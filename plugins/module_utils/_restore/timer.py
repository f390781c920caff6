# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rollback timer: two units of systemd that run the rollback script of an unfinished restore.  Private to this collection."""

from __future__ import annotations

import contextlib
import glob
import os

from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore.transaction import ORDER, TransactionError
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.durable import sync_directory, write_durably
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.process import ToolError, run_tool

# Nodes that serve the restored data go back first: one that is restored alone serves alone, beside whatever the others would serve.
_RETIRED_LATER = 180

# The timer counts from when it was armed.  A node that was rebooted runs the service at once: whoever was taking the restore
# further has lost it.  No Type=oneshot, which systemd before 244 does not restart (systemd#13754).
SERVICE = """[Unit]
Description=Rollback of the uncommitted etcd restore @ID@
RequiresMountsFor=@T@ @MANIFESTS@
StartLimitIntervalSec=0

[Service]
ExecStart=/bin/sh @T@/rollback @HOW@
Restart=on-failure
RestartSec=30
"""
TIMER = """[Unit]
Description=Rollback timer of etcd restore @ID@

[Timer]
OnActiveSec=@SECONDS@
AccuracySec=1s
"""


def continue_after_reboot(transaction):
    """Have a reboot go on with a rollback, as that of a finished restore, which has no timer any more.

    The script removes the unit at its end.  Never raises but for a disk that takes no file: who runs the rollback sees whether it ends.
    """
    unit = transaction.plan["unit"]
    _enable(unit, "multi-user", ".service", {".service": timer_units(transaction.plan, 0, "--undo")[0]})
    with contextlib.suppress(ToolError):
        run_tool(["systemctl", "daemon-reload"], 60)


def _enable(unit, target, wanted, texts):
    """Write units, and have systemd start `wanted` of them with a target.  Raises OSError."""
    wants = os.path.join(os.path.dirname(unit), target + ".target.wants")
    os.makedirs(wants, mode=0o755, exist_ok=True)
    for suffix, text in texts.items():
        write_durably(unit + suffix, text, 0o644)
    with contextlib.suppress(FileExistsError):
        os.symlink(unit + wanted, os.path.join(wants, os.path.basename(unit) + wanted))
    sync_directory(wants)


def timer_units(values, seconds, how="--timer"):
    """(text of the .service, text of the .timer); how: the script's argument."""
    texts = []
    for text in (SERVICE, TIMER):
        for name, value in (("T", _unit_quote(values["path"])), ("MANIFESTS", _unit_quote(values["manifests_dir"])), ("HOW", how)):
            text = text.replace("@%s@" % name, value)
        texts.append(text.replace("@ID@", values["id"]).replace("@SECONDS@", "%d" % seconds))
    return tuple(texts)


def _unit_quote(path):
    """A path as systemd reads it in a unit file, where a backslash, a blank, a quote and a per cent sign mean something."""
    return "".join("\\x%02x" % ord(c) if c in "\\ \"'" else "%%" if c == "%" else c for c in path)


def arm(transaction, seconds):
    """Have systemd run the rollback script in so many seconds, and at once after a reboot; arming again begins anew.

    Raises TransactionError when the restore is in no state that a timer is for, and when systemd refuses, which leaves no unit.
    """
    now = transaction.state()[0]
    retire = transaction.kind == "retire"
    if now not in ["begun"] * retire + transaction.order[0 if retire else ORDER.index("staged") : transaction.order.index("committing")]:
        raise TransactionError("restore %s is %s on this host, so there is nothing to arm its timer for" % (transaction.id, now))
    unit = transaction.plan["unit"]
    # After a reboot a node that was to be restored goes back at once, one that was to be retired still waits for the others.
    target, wanted = ("timers", ".timer") if retire else ("multi-user", ".service")
    seconds += _RETIRED_LATER * retire
    _enable(unit, target, wanted, dict(zip((".service", ".timer"), timer_units(transaction.plan, seconds))))
    for command in (["daemon-reload"], ["restart", os.path.basename(unit) + ".timer"]):
        result = run_tool(["systemctl"] + command, 60)
        if result.rc != 0:
            disarm(unit)
            raise TransactionError("the rollback timer cannot be armed: `systemctl %s` %s: %s" % (" ".join(command), result.how(), result.last_words()))


def disarm(unit):
    """Stop the timer and remove its units: `unit` is their path without suffix.

    Never raises: a timer that stays armed finds the restore committed and does nothing.
    """
    name = os.path.basename(unit)
    paths = [unit + ".timer", unit + ".service"] + glob.glob(os.path.join(glob.escape(os.path.dirname(unit)), "*.wants", glob.escape(name) + ".*"))
    if not any(os.path.lexists(path) for path in paths):
        return
    with contextlib.suppress(ToolError):
        run_tool(["systemctl", "stop", name + ".timer"], 60)
    for path in paths:
        with contextlib.suppress(OSError):
            os.unlink(path)
    with contextlib.suppress(ToolError):
        run_tool(["systemctl", "daemon-reload"], 60)
