"""``topfive status``: what it prints of services, and its exit status."""

from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from service.commands.main import app
from service.lifecycle import status
from service.lifecycle.record import FolderError


def service(port: int, **fields: Any) -> dict[str, Any]:
    replica = {"pid": 12, "rss_mb": 345.6, "up_s": 61.2}
    return {
        "url": f"http://127.0.0.1:{port}",
        "port": port,
        "pid": 11,
        "fleet": "[mine].toml",
        "up_s": 62.4,
        "ready": True,
        "deployments": [
            {"name": "ingress", "replicas_wanted": 2, "replicas": [replica, {**replica, "pid": 13}]},
            {"name": "vgg16", "replicas_wanted": 1, "replicas": []},
        ],
        "models": [{"name": "lenet5@mnist", "state": "ready", "resident": True}],
        **fields,
    }


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What is found to run."""
    services: list[dict[str, Any]] = []
    monkeypatch.setattr(status, "read_status", lambda: services)
    return services


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["status", *arguments])


def test_a_service_is_shown_with_its_replicas_and_networks(found: list[dict[str, Any]]) -> None:
    found.append(service(8000))
    result = run()
    assert result.exit_code == 0
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert lines == [
        "http://127.0.0.1:8000 ready fleet [mine].toml, pid 11, up 62 s",
        "deployment replicas wanted replica MB up (s)",
        "ingress 2 pid 12 346 61",
        "pid 13 346 61",
        "vgg16 1 none",
        "ready lenet5@mnist",
    ]


def test_a_service_that_is_not_ready_says_so(found: list[dict[str, Any]]) -> None:
    found.append(service(8000, ready=False))
    assert "http://127.0.0.1:8000  not ready  fleet" in run().stdout


def test_one_port_of_several(found: list[dict[str, Any]]) -> None:
    found += [service(8000), service(8001)]
    assert run().stdout.count("http://") == 2
    shown = run("--port", "8001").stdout
    assert "http://127.0.0.1:8001" in shown
    assert "http://127.0.0.1:8000" not in shown
    assert json.loads(run("--json", "--port", "8001").stdout) == {"services": [found[1]]}


def test_without_a_service_the_exit_status_is_one(found: list[dict[str, Any]]) -> None:
    result = run()
    assert (result.exit_code, result.stderr) == (1, "error: no TopFive service of yours runs on this machine\n")
    found.append(service(8000))
    result = run("--port", "8001")
    assert (result.exit_code, result.stderr.split()[-1]) == (1, "8001")
    result = run("--json", "--port", "8001")
    assert (result.exit_code, json.loads(result.stdout)) == (1, {"services": []})


def test_a_folder_that_cannot_be_used_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise FolderError("/tmp/topfive-0 is a link")

    monkeypatch.setattr(status, "read_status", refuse)
    result = run()
    assert (result.exit_code, result.stderr) == (1, "error: /tmp/topfive-0 is a link\n")
