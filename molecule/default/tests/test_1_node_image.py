# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which node image this run uses: kind's own where it can be pulled."""

from __future__ import annotations

import os
import re
import subprocess

import pytest
from cluster import ROOT

SANDBOX = ROOT / "tests" / "sandbox"


def kinds_own(cluster, version):
    """The node image that the sandbox's kind was released with, '' when that is of another Kubernetes."""
    script = '. "$0/lib.sh"; . "$0/cluster.sh"; stock_image "$1"'
    environment = dict(os.environ, SANDBOX_NAME=cluster.name)
    return subprocess.run(["bash", "-c", script, SANDBOX, version], env=environment, capture_output=True, text=True, check=True).stdout.strip()


def test_the_nodes_are_kinds_own(cluster, cp1):
    inspected = [cluster.engine, "inspect", "-f", "{{.Config.Image}}", cluster.nodes["cp1"]]
    image = subprocess.run(inspected, capture_output=True, text=True, check=True).stdout.strip()
    if "kindest/node" not in image:
        wanted = os.environ.get("KUBERNETES", "")
        stock = kinds_own(cluster, cluster.run("cp1", "cat", "/kind/version").strip().lstrip("v"))
        if not stock or not re.fullmatch(r"(1\.\d+)?", wanted):
            pytest.skip("kind has no image of its own of KUBERNETES=%s, so all of this ran on one that the sandbox made" % wanted)
        pulled = ["timeout", "20", cluster.engine, "manifest", "inspect", stock]
        pull = subprocess.run(pulled, capture_output=True, text=True, check=False)
        assert pull.returncode != 0, "%s can be pulled, and yet the nodes are of %s" % (stock, image)
        why = " ".join(pull.stderr.split())[-150:] or "no answer in 20 s"
        pytest.skip(
            "%s cannot be pulled here (%s), so all of this ran on an image that the sandbox made; "
            "the workflow in .github runs it on kind's own of three versions of Kubernetes" % (stock, why)
        )
    # Neither is there by itself: Python was installed by prepare.yml, and the connection is the engine's.
    assert not cp1.file("/usr/sbin/sshd").exists
    assert cp1.file("/usr/bin/python3").exists
