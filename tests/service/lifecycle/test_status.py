"""What is read of running services: their records, their processes, and what they answer."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.lifecycle import status
from service.lifecycle.record import Record
from tests.answering import answering

READY = (200, {"status": "ready"})
ROW = {"name": "lenet5@mnist", "state": "ready", "resident": True, "top1": 99.0}
FLEET = """
[ingress]
replicas = 2
[[deployment]]
variants = ["lenet5"]
replicas = 3
[[deployment]]
variants = ["vgg16"]
"""


def record(url: str, fleet: str = "local", run_id: str = "no-such-run") -> Record:
    host, _, port = url.removeprefix("http://").partition(":")
    return Record(run_id, 4711, None, host, int(port), fleet, time.time() - 100)


def read(monkeypatch: pytest.MonkeyPatch, *records: Record) -> list[dict[str, Any]]:
    monkeypatch.setattr(status, "running", lambda: list(records))
    return status.read_status()


@pytest.fixture
def replicas() -> Iterator[str]:
    """Two processes that have the titles of replicas and the mark of one run, and one with another title."""
    run_id = f"status-{os.getpid()}"
    titles = ["ray::ServeReplica:topfive:ingress.handle_request", "ray::ServeReplica:topfive:lenet5.load", "ray::IDLE"]
    processes = []
    for title in titles:
        command = ["bash", "-c", f"exec -a '{title}' sleep 120"]
        processes.append(subprocess.Popen(command, env={**os.environ, "TOPFIVE_RUN_ID": run_id}))
    for process in processes:
        while b"ray::" not in Path(f"/proc/{process.pid}/cmdline").read_bytes()[:5]:
            time.sleep(0.01)
    yield run_id
    for process in processes:
        process.kill()
        process.wait()


def test_a_service_that_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(READY, models=[ROW]) as url:
        (found,) = read(monkeypatch, record(url))
    assert (found["url"], found["port"], found["pid"]) == (url, int(url.rpartition(":")[2]), 4711)
    assert found["ready"] is True
    assert found["models"] == [{"name": "lenet5@mnist", "state": "ready", "resident": True}]
    assert 100 <= found["up_s"] < 160


def test_a_service_that_is_not_ready_still_lists_its_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering((503, {"detail": "loading"}), models=[ROW]) as url:
        (found,) = read(monkeypatch, record(url))
    assert (found["ready"], len(found["models"])) == (False, 1)


def test_a_service_that_does_not_answer_or_answers_otherwise_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(READY, models=[ROW], listing_status=503) as url:
        (found,) = read(monkeypatch, record(url))
        assert found["models"] == []
    (found,) = read(monkeypatch, record(url))
    assert (found["ready"], found["models"]) == (False, [])


def test_what_the_fleet_wants_stands_beside_the_replicas_that_live(
    replicas: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text(FLEET)
    with answering(READY, models=[]) as url:
        (found,) = read(monkeypatch, record(url, str(file), replicas))
    rows = [(d["name"], d["replicas_wanted"], len(d["replicas"])) for d in found["deployments"]]
    assert rows == [("ingress", 2, 1), ("lenet5", 3, 1), ("vgg16", 1, 0)]
    (replica,) = found["deployments"][1]["replicas"]
    assert b"lenet5" in Path(f"/proc/{replica['pid']}/cmdline").read_bytes()
    assert 0 < replica["rss_mb"] < 100
    assert 0 <= replica["up_s"] < 60


def test_in_one_process_all_replicas_are_the_ingress(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(READY, models=[]) as url:
        (found,) = read(monkeypatch, record(url))
    assert found["deployments"] == [{"name": "ingress", "replicas_wanted": 1, "replicas": []}]


def test_replicas_are_shown_although_the_fleet_file_is_gone(replicas: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(READY, models=[]) as url:
        (found,) = read(monkeypatch, record(url, "/no/such/fleet.toml", replicas))
    rows = {d["name"]: (d["replicas_wanted"], len(d["replicas"])) for d in found["deployments"]}
    assert rows == {"ingress": (0, 1), "lenet5": (0, 1)}
