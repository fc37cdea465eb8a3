"""What is read of running services: their records, their processes, and what they answer."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from service.config.capacity import Machine
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


def record(url: str, fleet: str = "local", run_id: str = "no-such-run", device: str = "auto") -> Record:
    host, _, port = url.removeprefix("http://").partition(":")
    return Record(run_id, 4711, None, host, int(port), fleet, time.time() - 100, device)


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


def test_a_service_that_asks_for_keys_is_asked_with_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    own = hashlib.sha256(b"topfive own key a-run").hexdigest()
    with answering(READY, models=[ROW], key=own) as url:
        (found,) = read(monkeypatch, record(url, run_id="a-run"))
    assert (found["ready"], len(found["models"])) == (True, 1)


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
    monkeypatch.setattr(status.Machine, "this", lambda: Machine(2, 0, 8_000_000_000))
    with answering(READY, models=[]) as url:
        (found,) = read(monkeypatch, record(url))
    assert found["deployments"] == [{"name": "ingress", "replicas_wanted": 1, "replicas": []}]


@contextmanager
def of_a_run(commands: Sequence[Sequence[str]]) -> Iterator[str]:
    """Processes of one run, which do nothing; each begins with the name that it is to have."""
    run_id = f"status-{os.getpid()}"
    environment = {**os.environ, "TOPFIVE_RUN_ID": run_id}
    idle = [sys.executable, "-c", "import time; print(flush=True); time.sleep(120)"]
    processes = []
    for command in commands:
        process = subprocess.Popen([*idle, *command], env=environment, stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        processes.append(process)
    try:
        yield run_id
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def test_without_ray_processes_are_told_apart_by_their_roles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('ray = false\nfronts = 3\n[[deployment]]\nvariants = ["lenet5"]\nreplicas = 2\n')
    process, folder = ["-m", "service.solo.process"], "/tmp/topfive-1/8000"
    commands = [
        ["-m", "service.solo.driver", folder],
        [*process, "owner", folder, "0"],
        [*process, "front", folder, "0"],
        [*process, "front", folder, "1"],
    ]
    with answering(READY, models=[]) as url, of_a_run(commands) as run_id:
        (found,) = read(monkeypatch, record(url, str(file), run_id))
    rows = [(d["name"], d["replicas_wanted"], len(d["replicas"])) for d in found["deployments"]]
    assert rows == [("front", 3, 2), ("owner", 2, 1)]


@pytest.mark.parametrize(
    ("keys", "wanted"),
    [
        ("ray = false\nfronts = 0", {"whole": 1}),
        ("ray = false\nfronts = 1", {"front": 1, "owner": 1}),
        ("fronts = 0", {"ingress": 1}),
        ("fronts = 2", {"ingress": 2, "owner": 1}),
    ],
)
def test_each_kind_of_fleet_wants_its_processes(
    keys: str, wanted: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(f'{keys}\n[[deployment]]\nvariants = ["*"]\n')
    with answering(READY, models=[]) as url:
        (found,) = read(monkeypatch, record(url, str(file)))
    assert {d["name"]: d["replicas_wanted"] for d in found["deployments"]} == wanted


@pytest.mark.parametrize(
    ("device", "wanted"),
    [
        ("auto", {"ingress": 14, "owner": 1}),
        ("cuda:0", {"ingress": 14, "owner": 1}),
        ("cpu", {"ingress": 8, "owner": 1}),
    ],
)
def test_on_a_gpu_machine_the_fronts_are_those_that_the_device_setting_leads_to(
    device: str, wanted: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status.Machine, "this", lambda: Machine(16, 1, 64_000_000_000))
    with answering(READY, models=[]) as url:
        (found,) = read(monkeypatch, record(url, "local", device=device))
    assert {d["name"]: d["replicas_wanted"] for d in found["deployments"]} == wanted


def test_replicas_are_shown_although_the_fleet_file_is_gone(replicas: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(READY, models=[]) as url:
        (found,) = read(monkeypatch, record(url, "/no/such/fleet.toml", replicas))
    rows = {d["name"]: (d["replicas_wanted"], len(d["replicas"])) for d in found["deployments"]}
    assert rows == {"ingress": (0, 1), "lenet5": (0, 1)}
