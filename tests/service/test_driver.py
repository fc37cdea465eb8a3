"""The page that HAProxy answers with while no replica is up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from service.driver import _write_error_page, environment
from service.settings import Settings


def test_the_error_page_replaces_serves_own_wherever_it_lies(tmp_path: Path) -> None:
    """Serve names a folder below for its cluster; a page beside it would never be read."""
    page = tmp_path / "a-cluster" / "500.http"
    page.parent.mkdir()
    page.write_text("HTTP/1.1 500 Internal Server Error\r\n\r\nInternal Server Error")
    _write_error_page(tmp_path)
    head, _, body = page.read_bytes().partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ") for line in lines)
    assert status == "HTTP/1.1 503 Service Unavailable"
    assert headers["Content-Type"] == "application/problem+json"
    assert int(headers["Content-Length"]) == len(body)
    assert (json.loads(body)["type"], json.loads(body)["status"]) == ("/problems/not-ready", 503)
    assert [path.name for path in page.parent.iterdir()] == ["500.http"]


def test_haproxy_says_whom_it_asks_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the configuration that Serve writes; HAProxy itself reads it in ``test_strangers.py``."""
    monkeypatch.delenv("RAY_SERVE_HAPROXY_RETRY_ON", raising=False)
    retry_on = environment(tmp_path, Settings())["RAY_SERVE_HAPROXY_RETRY_ON"]
    assert f"retry-on {retry_on}".splitlines() == ["retry-on conn-failure", "    option forwardfor"]
