# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which node image this run is about: kind's own where it can be pulled."""

from __future__ import annotations

import subprocess

import pytest

STOCK = "docker.io/kindest/node"


def test_the_nodes_are_kinds_own(cluster, cp1):
    inspected = [cluster.engine, "inspect", "-f", "{{.Config.Image}}", cluster.nodes["cp1"]]
    image = subprocess.run(inspected, capture_output=True, text=True, check=True).stdout.strip()
    if "kindest/node" not in image:
        pulled = ["timeout", "20", cluster.engine, "manifest", "inspect", STOCK + ":v1.32.2"]
        pull = subprocess.run(pulled, capture_output=True, text=True, check=False)
        assert pull.returncode != 0, "%s can be pulled, and yet the nodes are of %s" % (STOCK, image)
        why = " ".join(pull.stderr.split())[-150:] or "no answer in 20 s"
        pytest.skip(
            "%s cannot be pulled here (%s), so all of this ran on an image made from Debian's packages; "
            "the workflow in .github runs it on kind's own of three versions of Kubernetes" % (STOCK, why)
        )
    # Neither is there by itself: Python was installed by prepare.yml, and the connection is the engine's.
    assert not cp1.file("/usr/sbin/sshd").exists
    assert cp1.file("/usr/bin/python3").exists
