# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The probe, against a real HTTPS server that stops and starts."""

from __future__ import annotations

import contextlib
import datetime
import http.server
import json
import re
import socket
import ssl
import subprocess
import threading
import time

import pytest
from ansible_collections.k8s_dr.etcd.plugins.modules import kube_api_probe
from ansible_collections.k8s_dr.etcd.plugins.modules.kube_api_probe import Seen, complaint, iso, watch

ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    """Two self-signed certificates of an unused name: {name: (certificate, key)} as paths."""
    directory = tmp_path_factory.mktemp("pki")
    found = {}
    for name in ("cluster", "stranger"):
        cert, key = str(directory / (name + ".crt")), str(directory / (name + ".key"))
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
            + ["-subj", "/CN=" + name, "-keyout", key, "-out", cert],
            check=True,
            capture_output=True,
        )
        found[name] = (cert, key)
    return found


class Api:
    """An API server at one address that can be stopped and started again."""

    def __init__(self, pair):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = "https://127.0.0.1:%d" % self.port
        self.status = 200
        self.asked = 0
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(*pair)
        self.server = None

    def start(self):
        api = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                assert self.path == "/readyz"
                assert "Authorization" not in self.headers
                api.asked += 1
                self.send_response(api.status)
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, *args):
                pass

        class Server(http.server.ThreadingHTTPServer):
            # it has to come back at the same address at once
            allow_reuse_address = True
            daemon_threads = True

            def handle_error(self, *args):
                pass

        self.server = Server(("127.0.0.1", self.port), Handler)
        self.server.socket = self.context.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def api(pki):
    api = Api(pki["cluster"])
    api.start()
    yield api
    with contextlib.suppress(OSError):
        api.stop()


def params(url, **others):
    urls = url if isinstance(url, list) else [url]
    values = {"urls": urls, "ca": None, "interval": 0.05, "timeout": 1.0, "max_seconds": 20, "stop_file": None, "ready_file": None}
    values["while_process"] = None
    return dict(values, **others)


def text(path):
    with open(path, encoding="utf-8") as stream:
        return stream.read()


class Running:
    """The probe in a thread, as a task in the background would be."""

    def __init__(self, tmp_path, url, **others):
        self.stop_file, self.ready_file = tmp_path / "stop", tmp_path / "ready"
        self.answer = None
        arguments = params(url, stop_file=str(self.stop_file), ready_file=str(self.ready_file), **others)
        self.thread = threading.Thread(target=self._run, args=(arguments,))
        self.thread.start()
        wait_for(self.ready_file.exists)

    def _run(self, arguments):
        self.answer = watch(arguments)

    def end(self):
        self.stop_file.touch()
        self.thread.join(10)
        assert not self.thread.is_alive()
        return self.answer


def wait_for(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_an_outage_is_measured(api, pki, tmp_path):
    running = Running(tmp_path, api.url, ca=text(pki["cluster"][0]))
    assert json.loads(running.ready_file.read_text()) == {api.url: True}
    time.sleep(0.3)
    gone = time.monotonic()
    api.stop()
    time.sleep(1)
    api.start()
    back = time.monotonic()
    asked = api.asked
    wait_for(lambda: api.asked > asked + 2)
    probe = running.end()

    assert probe["ended_by"] == "stop_file"
    assert (probe["interval"], list(probe["apis"])) == (0.05, [api.url])
    seen = probe["apis"][api.url]
    assert seen["answering_at_start"] is seen["answering_at_end"] is True
    assert seen["how"] == "HTTP 200 from /readyz"
    assert len(seen["gaps"]) == 1
    assert seen["longest_gap"] == seen["gaps"][0]
    gap = seen["gaps"][0]
    # from before it went to after it was back, and not by much
    assert back - gone <= gap["seconds"] < back - gone + 1
    assert all(ISO.fullmatch(moment) for moment in (probe["from"], probe["to"], gap["from"], gap["to"], seen["first_good"], seen["last_good"]))
    assert probe["from"] <= seen["first_good"] < gap["from"] < gap["to"] <= seen["last_good"] <= probe["to"]
    length = [datetime.datetime.strptime(moment, "%Y-%m-%dT%H:%M:%S.%fZ") for moment in (gap["from"], gap["to"])]  # noqa: DTZ007 (both are UTC)
    assert abs((length[1] - length[0]).total_seconds() - gap["seconds"]) < 0.01
    assert 10 < seen["samples"] < 200
    assert 5 < seen["failures"] < seen["samples"]
    assert seen["last_error"]
    assert 0 <= seen["latency_median"] < 1000


def test_an_outage_that_does_not_end(api, tmp_path):
    running = Running(tmp_path, api.url)
    api.stop()
    time.sleep(0.5)
    seen = running.end()["apis"][api.url]
    assert seen["answering_at_start"] is True
    assert seen["answering_at_end"] is False
    assert seen["longest_gap"]["to"] is None
    assert 0.4 < seen["longest_gap"]["seconds"] < 5


def test_an_outage_that_began_before(pki, tmp_path):
    api = Api(pki["cluster"])
    running = Running(tmp_path, api.url)
    assert json.loads(running.ready_file.read_text()) == {api.url: False}
    time.sleep(0.3)
    api.start()
    wait_for(lambda: api.asked > 2)
    seen = running.end()["apis"][api.url]
    api.stop()
    assert seen["answering_at_start"] is False
    assert seen["answering_at_end"] is True
    assert seen["longest_gap"]["from"] is None
    assert ISO.fullmatch(seen["longest_gap"]["to"])
    assert seen["longest_gap"]["seconds"] >= 0.3


def test_a_silent_server_does_not_delay_the_other_requests(api):
    # it accepts connections and does not answer
    with socket.create_server(("127.0.0.1", 0)) as silent:
        mute = "https://127.0.0.1:%d" % silent.getsockname()[1]
        probe = watch(params([api.url, mute], max_seconds=2.2))
    assert probe["apis"][api.url]["failures"] == 0
    assert probe["apis"][api.url]["samples"] >= 20
    assert (probe["apis"][mute]["answering_at_start"], probe["apis"][mute]["latency_median"]) == (False, None)
    assert 1 <= probe["apis"][mute]["failures"] <= 3


def test_one_look(api):
    start = time.monotonic()
    probe = watch(params(api.url, interval=5, max_seconds=0))
    assert time.monotonic() - start < 1
    assert probe["ended_by"] == "max_seconds"
    assert probe["apis"][api.url]["samples"] == 1
    assert probe["apis"][api.url]["answering_at_start"] is True


def test_it_ends_when_its_directory_is_gone(api, tmp_path):
    start = time.monotonic()
    assert watch(params(api.url, stop_file=str(tmp_path / "gone" / "stop")))["ended_by"] == "stop_file"
    assert time.monotonic() - start < 3


def test_it_ends_with_the_process_that_started_it(api, tmp_path):
    place = tmp_path / "place"
    place.mkdir()
    with subprocess.Popen(["sleep", "0.5"]) as process:
        threading.Timer(0.7, process.wait).start()
        start = time.monotonic()
        probe = watch(params(api.url, while_process=process.pid, stop_file=str(place / "stop"), ready_file=str(place / "ready")))
    assert probe["ended_by"] == "while_process"
    assert 0.4 < time.monotonic() - start < 5
    assert probe["apis"][api.url]["samples"] > 3
    assert not place.exists()
    # init exists, and belongs to another user
    assert watch(params(api.url, while_process=1, max_seconds=0.2))["ended_by"] == "max_seconds"


def test_a_server_with_another_ca_is_not_accepted(api, pki):
    seen = watch(params(api.url, ca=text(pki["stranger"][0]), max_seconds=0))["apis"][api.url]
    assert seen["answering_at_start"] is False
    assert "CERTIFICATE_VERIFY_FAILED" in seen["last_error"]


def test_where_anonymous_requests_are_denied_any_answer_counts(api):
    api.status = 401
    seen = watch(params(api.url, max_seconds=0))["apis"][api.url]
    assert seen["answering_at_start"] is True
    assert "any HTTP answer (401" in seen["how"]


def test_not_ready_counts_as_a_failure(api):
    api.status = 500
    seen = watch(params(api.url, max_seconds=0))["apis"][api.url]
    assert (seen["answering_at_start"], seen["last_error"]) == (False, "HTTP 500")


def test_an_api_server_that_denies_all_requests_while_it_starts():
    """While it starts, it says 403 to what it allows everybody later."""
    seen = Seen()
    assert [seen.is_good(status) for status in (200, 403, 500, 200)] == [True, False, False, True]
    assert seen.how == "HTTP 200 from /readyz"
    seen = Seen()
    assert [seen.is_good(status) for status in (500, 403, 500, 200, 500)] == [False, True, True, True, False]
    assert seen.how == "HTTP 200 from /readyz"


def test_memory_is_bounded_however_long_it_watches():
    seen = Seen()
    for second in range(3000):
        seen.add((second, second), (second + 0.1, second + 0.1), "no" if second % 3 == 1 or second in (2000, 2001) else "")
    result = seen.result()
    assert (len(result["gaps"]), result["gaps_left_out"]) == (200, 799)
    assert result["longest_gap"]["seconds"] == 5.1
    assert result["latency_median"] in (99, 100)
    assert len(json.dumps(result)) < 50000


def test_the_median_is_exact():
    seen = Seen()
    for milliseconds in (1, 2, 3, 500, 600):
        seen.add((0, 0), (milliseconds / 1000.0 + 0.0001, 0), "")
    assert seen.result()["latency_median"] == 3


def test_times_are_utc_with_milliseconds():
    assert iso(0) == "1970-01-01T00:00:00.000Z"
    assert iso(1795367101.9996) == "2026-11-22T17:05:02.000Z"


@pytest.mark.parametrize("url", ["", "10.0.0.1:6443", "http://10.0.0.1", "https://", "https://a:b", "https://[::1"])
def test_what_is_no_address(url):
    assert "https://192.0.2.11:6443" in complaint(params(url))


@pytest.mark.parametrize("url", ["https://a", "https://[fd00::1]:6443", "https://10.0.0.1:6443/"])
def test_what_is_an_address(url):
    assert complaint(params(url)) == ""


@pytest.mark.parametrize(("name", "value"), [("interval", 0), ("timeout", 0), ("max_seconds", -1), ("interval", float("nan")), ("while_process", -1)])
def test_invalid_numbers(name, value):
    assert complaint(params("https://a", **{name: value})).startswith(name)


class Exit(Exception):
    pass


@pytest.mark.parametrize(
    ("arguments", "check", "failed", "words"),
    [
        ({"urls": ["https://127.0.0.1:1"]}, True, False, None),
        ({"urls": ["https://127.0.0.1:1"], "ca": "rubbish", "max_seconds": 0}, False, True, "not a usable certificate"),
        ({"urls": ["ftp://a"]}, False, True, "ftp://a"),
        ({"urls": ["https://127.0.0.1:1"], "max_seconds": 0}, False, False, None),
    ],
)
def test_as_a_module(monkeypatch, arguments, check, failed, words):
    class FakeModule:
        def __init__(self, argument_spec, supports_check_mode):
            assert supports_check_mode
            self.check_mode = check
            self.params = {name: arguments.get(name, spec.get("default")) for name, spec in argument_spec.items()}

        def exit_json(self, **result):
            raise Exit(False, result)

        def fail_json(self, **result):
            raise Exit(True, result)

    monkeypatch.setattr(kube_api_probe, "AnsibleModule", FakeModule)
    with pytest.raises(Exit) as caught:
        kube_api_probe.main()
    assert caught.value.args[0] is failed
    result = caught.value.args[1]
    if failed:
        assert words in result["msg"]
    else:
        assert result["changed"] is False
        assert bool(result["probe"]["apis"]) is not check
