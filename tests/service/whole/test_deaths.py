"""Processes of a fleet of fronts and an owner that are killed under load, and what is left after a stop."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest

from service.lifecycle.processes import Run, of_run
from service.lifecycle.record import base, running
from service.lifecycle.status import read_status
from tests.clients import Callers
from tests.pictures import DIGIT, photo
from tests.running import Service
from tests.waiting import until

pytestmark = [pytest.mark.service, pytest.mark.timeout(300)]


@pytest.fixture(
    scope="module", params=["solo", pytest.param("fronts", marks=pytest.mark.slow)], ids=["solo", "behind Ray Serve"]
)
def service(request: pytest.FixtureRequest) -> Service:
    found: Service = request.getfixturevalue(request.param)
    # A process that was killed may have been in the middle of a line of the log.
    found.harmed = True
    return found


def pids(service: Service, *deployments: str) -> list[int]:
    """The processes of the deployments, as ``topfive status`` shows them."""
    (found,) = [entry for entry in read_status() if entry["port"] == service.port]
    named = [d for d in found["deployments"] if d["name"] in deployments]
    return [replica["pid"] for deployment in named for replica in deployment["replicas"]]


def owners(service: Service) -> list[int]:
    return pids(service, "owner")


def fronts(service: Service) -> list[int]:
    return pids(service, "front", "ingress")


def run_of(service: Service) -> Run:
    (found,) = [record for record in running() if record.port == service.port]
    return found.run


def answered(callers: Callers, more: int) -> None:
    """Waits until so many more requests have been answered."""
    wanted = callers.outcomes["200"] + more
    until(lambda: callers.outcomes["200"] >= wanted)


def test_an_owner_that_is_killed_loses_no_request(service: Service) -> None:
    """The fronts hold what is asked, and send it again to the new owner."""
    (owner,) = owners(service)
    with Callers(f"{service.url}/classify?model=lenet5", DIGIT.read_bytes()) as callers:
        answered(callers, 100)
        os.kill(owner, signal.SIGKILL)
        answered(callers, 300)
    assert set(callers.outcomes) == {"200"}
    (another,) = owners(service)
    assert another != owner
    # Budgets and other paths work with the new one too.
    assert httpx.post(f"{service.url}/classify?latency_ms=20000", content=photo(), timeout=60).status_code == 200
    assert httpx.get(f"{service.url}/models", timeout=60).status_code == 200


def test_a_front_that_is_killed_loses_its_own_requests_alone(service: Service) -> None:
    before = fronts(service)
    assert len(before) == 2
    with Callers(f"{service.url}/classify?model=lenet5", DIGIT.read_bytes()) as callers:
        answered(callers, 100)
        os.kill(before[0], signal.SIGKILL)
        answered(callers, 300)
    lost = {outcome: number for outcome, number in callers.outcomes.items() if outcome != "200"}
    # At most what the twelve callers had asked it, and what HAProxy still sent there before it noticed.
    assert sum(lost.values()) <= 24, lost
    until(lambda: len(fronts(service)) == 2)
    assert before[0] not in fronts(service)
    # Its places in the queue are free.
    text = httpx.get(f"{service.url}/metrics", timeout=60).text
    lengths = [float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith("topfive_queue_length")]
    assert lengths
    assert sum(lengths) == 0


def test_every_process_is_killed_in_turn_and_the_service_goes_on(service: Service) -> None:
    for _ in range(2):
        for pid in (*owners(service), *fronts(service)):
            os.kill(pid, signal.SIGKILL)
        until(lambda: _status(service) == 200)
    assert len(owners(service)) == 1


def _status(service: Service) -> int:
    with suppress(httpx.TransportError):
        return httpx.post(f"{service.url}/classify?model=lenet5", content=DIGIT.read_bytes(), timeout=60).status_code
    return 0


def test_a_stop_under_load_answers_everybody_and_leaves_nothing(service: Service) -> None:
    """The last test of this file: it stops the service."""
    until(lambda: len(fronts(service)) == 2)
    run, folder = run_of(service), base() / str(service.port)
    assert _memory_files(run)
    with Callers(f"{service.url}/classify?model=lenet5", DIGIT.read_bytes()) as callers:
        answered(callers, 50)
        assert service.stop() == 0
        time.sleep(0.2)
    assert set(callers.outcomes) == {"200", "503", "refused"}
    assert of_run(run) == []
    assert not folder.exists()


def _memory_files(run: Run) -> list[Path]:
    """The memory files for crops of the processes of a run."""
    found = []
    for process in of_run(run):
        with suppress(psutil.Error, OSError):
            descriptors = Path(f"/proc/{process.pid}/fd").iterdir()
            found += [path for path in descriptors if "topfive-crops" in str(path.readlink())]
    return found
