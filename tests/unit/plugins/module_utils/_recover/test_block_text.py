# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""YAML that is written without a library, read by one."""

from __future__ import annotations

import pytest
import yaml
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.block_text import dump
from hypothesis import given, strategies as st

TEXT = st.text(max_size=30) | st.sampled_from(["a\nb", "a\n\n b\n", "\n", " a\nb", "a: b", "# a", "yes", "1e3", "0x1", "12:30", "~", "=", "a\n\n\n", "x" * 200])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=10,
)


@given(VALUES)
def test_a_library_reads_what_was_written(value):
    value = without_surrogates(value)
    assert yaml.safe_load(dump(value)) == value


def without_surrogates(value):
    """JSON of an API server has no halves of characters."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, list):
        return [without_surrogates(one) for one in value]
    return {without_surrogates(key): without_surrogates(one) for key, one in value.items()} if isinstance(value, dict) else value


def test_it_looks_as_people_write_it():
    value = {"kind": "ConfigMap", "data": {"script": "#!/bin/sh\n\necho x\n", "port": "80"}, "list": [{"name": "a b", "size": 1}, [], {}, None]}
    assert dump(value) == (
        'kind: ConfigMap\ndata:\n  script: |\n    #!/bin/sh\n\n    echo x\n  port: "80"\nlist:\n- name: a b\n  size: 1\n- []\n- {}\n- null\n'
    )


@pytest.mark.parametrize("text", ["\x7f", "\u2028", "\ufeff", "😀", "\x00", "é", "\x85\n", "a\r\nb", "a\n\tb"])
def test_odd_characters(text):
    for value in (text, text + "a\nb", ["a\n" + text]):
        assert yaml.safe_load(dump(value)) == value
