#!/usr/bin/python
# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: kube_api_probe
short_description: Measures the downtime of API servers
version_added: 0.1.0
author:
  - The k8s_dr founders (@k8s-dr)
description:
  - Asks API servers again and again, each time over a new TLS connection, until O(stop_file) appears or O(max_seconds) have passed, and returns
    from when to when each of them was away.
  - Meant to run asynchronously on the controller during a change to the control plane.
  - Sends no credentials. A good answer is HTTP 200 to C(/readyz), which Kubernetes lets everybody ask by default (its ClusterRole
    C(system:public-info-viewer)). Where that is forbidden (401, 403), any HTTP answer is good, and RV(probe.apis.how) says so.
extends_documentation_fragment:
  - k8s_dr.etcd.attributes
attributes:
  check_mode:
    support: full
    details:
      - In check mode no server is asked, and RV(probe.apis) is empty.
  diff_mode:
    support: N/A
    details:
      - This module changes nothing.
  platform:
    support: full
  idempotent:
    description: When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
    support: full
options:
  urls:
    description: API servers to ask, all at once, as V(https://192.0.2.11:6443).
    type: list
    elements: str
    required: true
  ca:
    description:
      - Certificates in PEM, of CAs or of the API servers themselves. An answer is good only from a server that has one of these, or one that such a CA
        signed.
      - The name in the certificate is not looked at, because a server may be reached at an address that it does not know of.
      - Without it the server is not verified.
    type: str
  interval:
    description: Seconds from the beginning of one question to the beginning of the next one. A question that takes longer delays the next.
    type: float
    default: 0.2
  timeout:
    description: Seconds to wait for one answer.
    type: float
    default: 2
  max_seconds:
    description: Seconds after which it ends in any case. With V(0) it ends as soon as each API server was asked once.
    type: float
    default: 900
  stop_file:
    description: It ends when this file exists, or when the directory that it would be in does not.
    type: path
  while_process:
    description: >-
      Id of a process on the host that asks. It ends when there is no such process any more, so that nothing is left of a controller that was killed.
      Then it also removes O(ready_file), and the directory that O(stop_file) would be in if that is empty, since no other process would.
    type: int
  ready_file:
    description: >-
      File to write as soon as each API server was asked once: JSON with V(true) for each URL that answered. The play that started this
      asynchronously can wait for it.
    type: path
"""

EXAMPLES = r"""
- name: Check whether the API server can be reached from here
  k8s_dr.etcd.kube_api_probe:
    urls: [https://192.0.2.11:6443]
    max_seconds: 0
  delegate_to: localhost
  become: false

- name: Measure while the next tasks run
  k8s_dr.etcd.kube_api_probe:
    urls: [https://192.0.2.11:6443, https://192.0.2.12:6443]
    stop_file: /tmp/ansible.k2x/stop
  delegate_to: localhost
  become: false
  async: 1000
  poll: 0
  register: watching
"""

RETURN = r"""
probe:
  description: The measurement. All times are in UTC, by the clock of the host that asked.
  returned: success
  type: dict
  contains:
    from:
      description: When the first question was asked. V(null) in check mode.
      type: str
      sample: "2026-11-22T17:05:01.123Z"
    to:
      description: When the last question was answered. V(null) in check mode.
      type: str
      sample: "2026-11-22T17:05:43.007Z"
    interval:
      description: The O(interval) in seconds.
      type: float
      sample: 0.2
    ended_by:
      description: One of V(stop_file), V(while_process) and V(max_seconds). V(null) in check mode.
      type: str
      sample: stop_file
    apis:
      description: The measurement by URL.
      type: dict
      contains:
        how:
          description: What counted as a good answer, as text.
          type: str
          sample: HTTP 200 from /readyz
        answering_at_start:
          description: Whether the very first answer was good.
          type: bool
        answering_at_end:
          description: Whether the very last answer was good.
          type: bool
        first_good:
          description: When the first good answer was asked for. V(null) when there was none.
          type: str
          sample: "2026-11-22T17:05:01.123Z"
        last_good:
          description: When the last good answer had come. V(null) when there was none.
          type: str
          sample: "2026-11-22T17:05:42.995Z"
        samples:
          description: How often it was asked.
          type: int
          sample: 209
        failures:
          description: How many of these had no good answer.
          type: int
          sample: 23
        gaps:
          description:
            - The times without a good answer, oldest first, each with V(from), V(to) and V(seconds).
            - V(from) is the beginning of the last good answer before, V(null) when there was none. V(to) is the end of the next good one, V(null) when
              there was none. V(seconds) counts from the first question or to the last one then.
            - No more than 200 are kept.
          type: list
          elements: dict
          sample: [{"from": "2026-11-22T17:05:04.330Z", "to": "2026-11-22T17:05:09.851Z", "seconds": 5.521}]
        gaps_left_out:
          description: How many gaps came after these. The longest gap is among them all.
          type: int
          sample: 0
        longest_gap:
          description: The longest gap, like one of RV(probe.apis.gaps). V(null) when there was none.
          type: dict
          sample: {"from": "2026-11-22T17:05:04.330Z", "to": "2026-11-22T17:05:09.851Z", "seconds": 5.521}
        latency_median:
          description: Median time of a good answer in milliseconds. V(null) when there was none.
          type: int
          sample: 9
        last_error:
          description: What the last failure was. Empty when there was none.
          type: str
          sample: "[Errno 111] Connection refused"
"""

import contextlib
import http.client
import json
import os
import ssl
import threading
import time
from urllib.parse import urlsplit

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.tls import tls_context

_GAPS = 200
_POLL = 0.05
_READYZ = "HTTP 200 from /readyz"


def iso(seconds):
    """Unix time as text, with milliseconds."""
    milliseconds = round(seconds * 1000)
    return "%s.%03dZ" % (time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(milliseconds // 1000)), milliseconds % 1000)


def make_context(ca):
    """How to speak TLS.  Nothing secret is sent, so without a CA an unverified server is better than none."""
    if ca:
        return tls_context(cadata=ca, pinned=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Seen:
    """What is known of one API server.  It stays small however long it is watched.

    Times are pairs (monotonic, wall clock): durations come from the first, so that a clock that is set does not lengthen a gap.
    """

    def __init__(self):
        self.how = _READYZ
        self.samples = self.failures = self.gaps_left_out = 0
        self.gaps = []
        self.longest = None
        self.last_error = ""
        self.answering_at_start = None
        self.answering_at_end = False
        self._began = self._ended = self._first_good = self._good_begun = self._good_ended = None
        self._failing = False
        self._latencies = {}  # milliseconds: how often
        self._knows_readyz = False

    def is_good(self, status):
        """Judge an answer's HTTP status."""
        if status == 200:
            self._knows_readyz, self.how = True, _READYZ
            return True
        if not self._knows_readyz and status in (401, 403):
            # An API server that just starts says 403 as well, hence only where 200 was never seen.
            self.how = "any HTTP answer (%d: /readyz is not for everybody there)" % status
        return self.how != _READYZ

    def add(self, begun, ended, error):
        """One question, with an empty error when the answer was good."""
        self.samples += 1
        good = not error
        if self.answering_at_start is None:
            self._began, self.answering_at_start = begun, good
        self.answering_at_end, self._ended = good, ended
        if not good:
            self.failures += 1
            self.last_error = error
            self._failing = True
            return
        if self._failing:
            self._remember(self._gap(ended))
        self._failing = False
        self._first_good = self._first_good or begun
        self._good_begun, self._good_ended = begun, ended
        milliseconds = int((ended[0] - begun[0]) * 1000)
        self._latencies[milliseconds] = self._latencies.get(milliseconds, 0) + 1

    def _gap(self, to):
        start = self._good_begun or self._began
        return {
            "from": iso(self._good_begun[1]) if self._good_begun else None,
            "to": iso(to[1]) if to else None,
            "seconds": round((to or self._ended)[0] - start[0], 3),
        }

    def _remember(self, gap):
        if self.longest is None or gap["seconds"] > self.longest["seconds"]:
            self.longest = gap
        if len(self.gaps) < _GAPS:
            self.gaps.append(gap)
        else:
            self.gaps_left_out += 1

    def _median(self):
        left = sum(self._latencies.values()) / 2.0
        for milliseconds in sorted(self._latencies):
            left -= self._latencies[milliseconds]
            if left <= 0:
                return milliseconds
        return None

    def result(self):
        """As documented; nothing may be added afterwards."""
        if self._failing:  # it did not come back
            self._remember(self._gap(None))
        return {
            "how": self.how,
            "answering_at_start": bool(self.answering_at_start),
            "answering_at_end": self.answering_at_end,
            "first_good": iso(self._first_good[1]) if self._first_good else None,
            "last_good": iso(self._good_ended[1]) if self._good_ended else None,
            "samples": self.samples,
            "failures": self.failures,
            "gaps": self.gaps,
            "gaps_left_out": self.gaps_left_out,
            "longest_gap": self.longest,
            "latency_median": self._median(),
            "last_error": self.last_error if self.samples else "not a single question came to an end",
        }


class Asker(threading.Thread):
    """Asks one API server until it is told to stop."""

    def __init__(self, url, context, interval, timeout, stop):
        super().__init__(daemon=True)
        parts = urlsplit(url)
        self.host, self.port = parts.hostname, parts.port or 443
        self.context, self.interval, self.timeout = context, interval, timeout
        self.stop = stop
        self.seen = Seen()
        self.lock = threading.Lock()
        self.asked = threading.Event()

    def ask(self):
        """Ask once; an empty text when the answer was good, else what was wrong."""
        connection = http.client.HTTPSConnection(self.host, self.port, timeout=self.timeout, context=self.context)
        try:
            connection.request("GET", "/readyz", headers={"Connection": "close"})
            response = connection.getresponse()
            # enough to see that it ends
            response.read(65536)
            return "" if self.seen.is_good(response.status) else "HTTP %d" % response.status
        except (OSError, http.client.HTTPException, ValueError) as exc:
            return str(exc)[:200] or type(exc).__name__
        finally:
            connection.close()

    def run(self):
        due = time.monotonic()
        while True:
            begun = (time.monotonic(), time.time())
            error = self.ask()
            ended = (time.monotonic(), time.time())
            with self.lock:
                self.seen.add(begun, ended, error)
            self.asked.set()
            due = max(due + self.interval, time.monotonic())
            if self.stop.wait(due - time.monotonic()):
                return


def write_ready(path, askers):
    """All at once, since a play waits for the file."""
    with open(path + ".new", "w", encoding="utf-8") as stream:
        json.dump({url: bool(asker.seen.answering_at_start) for url, asker in askers.items()}, stream)
    os.rename(path + ".new", path)


def stopped(path):
    return bool(path) and (os.path.exists(path) or not os.path.isdir(os.path.dirname(path) or "."))


def gone(process):
    if not process:
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:  # somebody else's
        pass
    return False


def tidy(params):
    """Files of a controller that is gone."""
    with contextlib.suppress(OSError, TypeError):
        os.unlink(params["ready_file"])
    with contextlib.suppress(OSError, TypeError):
        os.rmdir(os.path.dirname(params["stop_file"]))


def watch(params):
    """Ask until it ends; what the module returns."""
    stop = threading.Event()
    context = make_context(params["ca"])
    askers = {url: Asker(url, context, params["interval"], params["timeout"], stop) for url in params["urls"]}
    began, start = time.time(), time.monotonic()
    for asker in askers.values():
        asker.start()
    ready_file, ended_by = params["ready_file"], "max_seconds"
    # A name server that does not answer knows nothing of our timeout, so the wait has an end of its own.
    patience = 2 * params["timeout"] + 1
    while True:
        elapsed = time.monotonic() - start
        everybody = all(asker.asked.is_set() for asker in askers.values())
        if ready_file and (everybody or elapsed >= patience):
            write_ready(ready_file, askers)
            ready_file = None
        if stopped(params["stop_file"]):
            ended_by = "stop_file"
            break
        if gone(params["while_process"]):
            ended_by = "while_process"
            tidy(params)
            break
        if elapsed >= params["max_seconds"] and (everybody or elapsed >= params["max_seconds"] + patience):
            break
        time.sleep(_POLL)
    stop.set()
    deadline = time.monotonic() + params["timeout"] + 1
    for asker in askers.values():
        asker.join(max(0, deadline - time.monotonic()))
    apis = {}
    for url, asker in askers.items():
        with asker.lock:
            apis[url] = asker.seen.result()
            # one that still hangs must not change what is returned
            asker.seen = Seen()
    return {"from": iso(began), "to": iso(began + time.monotonic() - start), "interval": params["interval"], "ended_by": ended_by, "apis": apis}


def complaint(params):
    """What is wrong with the parameters; empty when nothing is."""
    for url in params["urls"]:
        try:
            parts = urlsplit(url)
            good = parts.scheme == "https" and bool(parts.hostname) and (parts.port is None or parts.port > 0)
        except ValueError:
            good = False
        if not good:
            return "urls: '%s' is not the address of an API server, such as https://192.0.2.11:6443" % url
    for name, least in (("interval", 0.01), ("timeout", 0.1), ("max_seconds", 0), ("while_process", 1)):
        if params[name] is not None and not params[name] >= least:
            return "%s is %s, and should be %s or more" % (name, params[name], least)
    return ""


def main():
    module = AnsibleModule(
        argument_spec={
            "urls": {"type": "list", "elements": "str", "required": True},
            "ca": {"type": "str"},
            "interval": {"type": "float", "default": 0.2},
            "timeout": {"type": "float", "default": 2},
            "max_seconds": {"type": "float", "default": 900},
            "stop_file": {"type": "path"},
            "while_process": {"type": "int"},
            "ready_file": {"type": "path"},
        },
        supports_check_mode=True,
    )
    params = module.params
    wrong = complaint(params)
    if wrong:
        module.fail_json(msg=wrong)
    if module.check_mode:
        module.exit_json(changed=False, probe={"from": None, "to": None, "interval": params["interval"], "ended_by": None, "apis": {}})
    try:
        probe = watch(params)
    except ssl.SSLError as exc:
        module.fail_json(msg="`ca` is not a usable certificate in PEM: %s" % exc)
    except OSError as exc:
        module.fail_json(msg="The API servers were not watched: %s" % exc)
    module.exit_json(changed=False, probe=probe)


if __name__ == "__main__":
    main()
