"""What the driver tells Ray, Serve and HAProxy before it starts them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from service.cluster.driver import _prepare_haproxy, environment
from service.config.settings import Settings
from service.lifecycle import haproxy


def test_haproxy_gets_a_problem_document_for_each_time_without_a_replica(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RAY_SERVE_HAPROXY_BINARY_PATH", "TOPFIVE_PYTHON", "TOPFIVE_HAPROXY", "TOPFIVE_FRONT"):
        monkeypatch.setenv(name, "")
    monkeypatch.delenv("RAY_SERVE_HAPROXY_BINARY_PATH")
    _prepare_haproxy(Settings(), tmp_path)
    head, _, body = (tmp_path / "503.http").read_bytes().partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ") for line in lines)
    assert status == "HTTP/1.1 503 Service Unavailable"
    assert (headers["Content-Type"], headers["Retry-After"]) == ("application/problem+json", "1")
    assert int(headers["Content-Length"]) == len(body)
    script = (tmp_path / "answers.lua").read_text()
    texts = [part.partition("]==]")[0] for part in script.split("[==[")[1:]]
    documents = [json.loads(text) for text in (body, *texts)]
    assert {(document["type"], document["status"]) for document in documents} == {("/problems/not-ready", 503)}
    assert len({document["detail"] for document in documents}) == 3
    assert os.access(os.environ["RAY_SERVE_HAPROXY_BINARY_PATH"], os.X_OK)
    front = haproxy.Front.read(tmp_path)
    assert os.access(front.binary, os.X_OK)
    assert front.binary != os.environ["RAY_SERVE_HAPROXY_BINARY_PATH"]


def test_a_haproxy_of_the_users_own_is_the_one_that_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TOPFIVE_PYTHON", "TOPFIVE_HAPROXY", "TOPFIVE_FRONT"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("RAY_SERVE_HAPROXY_BINARY_PATH", "/bin/true")
    _prepare_haproxy(Settings(), tmp_path)
    assert haproxy.Front.read(tmp_path).binary == "/bin/true"
    assert Path(os.environ["RAY_SERVE_HAPROXY_BINARY_PATH"]).name == "haproxy.sh"


def test_the_user_may_set_what_two_services_do_not_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_SERVE_HAPROXY_NBTHREAD", "7")
    monkeypatch.setenv("RAY_SERVE_HAPROXY_SOCKET_PATH", "/somewhere/else")
    told = environment(tmp_path, Settings())
    assert told["RAY_SERVE_HAPROXY_NBTHREAD"] == "7"
    assert Path(told["RAY_SERVE_HAPROXY_SOCKET_PATH"]).parent == tmp_path


def test_sockets_have_short_paths(tmp_path: Path) -> None:
    """Of 107 bytes Serve's folder for its node takes 57, HAProxy's suffix of a temporary name up to 12, and the
    service's own folder what ``state.py`` allows it with the longest port."""
    from service.lifecycle.record import _LONGEST_BASE

    told = environment(tmp_path, Settings())
    for name in ("RAY_SERVE_HAPROXY_SOCKET_PATH", "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH"):
        assert _LONGEST_BASE + len("/65535") + 57 + 1 + len(Path(told[name]).name) + 12 <= 107
