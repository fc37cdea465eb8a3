"""One run of Locust: what it is told, its results, and all the ways in which it may fail."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from loadreport import locust_process
from loadreport.locust_process import InterruptedRunError, LocustError, Run, check_installed, generator, run_locust
from loadtest._options import Options
from tests.pretended_locust import pretend

OPEN = Run(user="ClassifyUser", users=4, seconds=10, warm_up_s=2, seed=8, rate=20.0, model="googlenet@untrained")


def asked(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_a_run_and_its_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = pretend(tmp_path, monkeypatch, service_s={"googlenet@untrained": 0.01})
    # What somebody exported for Locust itself does not change what is measured.
    monkeypatch.setenv("LOCUST_USERS", "999")
    monkeypatch.setenv("TOPFIVE_LOADTEST_SHARES", "junk=1")
    results = run_locust("http://127.0.0.1:1", OPEN)
    assert 150 < results.answered < 250
    assert results.latency_ms.p50 is not None
    assert results.latency_ms.p50 == pytest.approx(10, rel=0.3)
    assert results.mean_batch_size == 1.0
    (told,) = asked(log)
    assert (told["host"], told["user"], told["rate"], told["users"]) == ("http://127.0.0.1:1", "ClassifyUser", 20.0, 4)
    folder = Path(locust_process.__file__).parents[1] / "loadtest"
    assert (told["run_time"], told["headless"], Path(told["f"])) == ("12s", True, folder)
    assert told["foreign"] == []


def test_failed_requests_are_results_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(tmp_path, monkeypatch, trouble={"1": "failing"})
    results = run_locust("http://127.0.0.1:1", OPEN)
    assert results.answered == 0
    assert results.failed == results.sent > 0


@pytest.mark.parametrize(
    ("trouble", "text"),
    [
        ("crash", "Locust ended with status 3: ValueError: no such thing"),
        ("silent", "Locust wrote no results: it printed nothing"),
        ("foreign", "Locust's results have an unknown form: format: Input should be 1: it printed nothing"),
        ("cut", "another process stopped Locust before the end of a run"),
    ],
)
def test_runs_that_give_no_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: str, text: str) -> None:
    pretend(tmp_path, monkeypatch, trouble={"1": trouble})
    with pytest.raises(LocustError) as told:
        run_locust("http://127.0.0.1:1", OPEN)
    assert str(told.value) == text


def test_a_run_that_does_not_end_in_time_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = pretend(tmp_path, monkeypatch, trouble={"1": "hang"})
    monkeypatch.setattr(locust_process, "_BEYOND_S", 1.0 - OPEN.seconds - OPEN.warm_up_s)
    with pytest.raises(LocustError, match="did not end in time"):
        run_locust("http://127.0.0.1:1", OPEN)
    assert gone(int(log.with_suffix(".hanging").read_text()))


def test_ctrl_c_returns_what_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = pretend(tmp_path, monkeypatch, trouble={"1": "hang"})

    def press() -> None:
        give_up = time.monotonic() + 30
        while not log.with_suffix(".hanging").exists() and time.monotonic() < give_up:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    pressing = threading.Thread(target=press)
    pressing.start()
    with pytest.raises(InterruptedRunError) as told:
        run_locust("http://127.0.0.1:1", OPEN)
    pressing.join()
    assert told.value.results is not None
    assert told.value.results.partial
    assert told.value.results.answered > 0
    assert gone(int(log.with_suffix(".hanging").read_text()))


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_without_locust_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    check_installed()
    monkeypatch.setattr(locust_process, "COMMAND", (sys.executable, "-m", "locust"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(LocustError, match=r"pip install -e '\.\[loadtest\]'"):
        check_installed()


def test_a_second_ctrl_c_kills_the_run_without_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = pretend(tmp_path, monkeypatch, trouble={"1": "hang"})

    class Impatient(subprocess.Popen[bytes]):
        """Gets a Ctrl-C in each wait."""

        waits = 0

        def wait(self, timeout: float | None = None) -> int:
            Impatient.waits += 1
            if Impatient.waits <= 2:
                hanging = log.with_suffix(".hanging")
                give_up = time.monotonic() + 30
                while not hanging.exists() and time.monotonic() < give_up:
                    time.sleep(0.01)
                raise KeyboardInterrupt
            return super().wait(timeout)

        def send_signal(self, sig: int) -> None:
            if sig != signal.SIGINT:
                super().send_signal(sig)

    monkeypatch.setattr(subprocess, "Popen", Impatient)
    with pytest.raises(InterruptedRunError) as told:
        run_locust("http://127.0.0.1:1", OPEN)
    assert told.value.results is None
    assert gone(int(log.with_suffix(".hanging").read_text()))


def test_locust_knows_every_option_that_it_is_told() -> None:
    """The options of TopFive are those that ``loadtest/`` adds; the others are Locust's own."""
    own = {"--users", "--spawn-rate", "--run-time"}
    told = {
        word for run in (OPEN, replace(OPEN, rate=None, pictures="digits")) for word in run.options() if word[0] == "-"
    }
    assert {word.removeprefix("--").replace("-", "_") for word in told - own} <= {
        field.name for field in fields(Options)
    }
    assert told >= own


def test_what_generates_the_load_is_described_without_the_machines_name() -> None:
    found = generator()
    assert found.keys() == {"locust", "python", "cores"}
    assert found["locust"] == importlib.metadata.version("locust")
    assert int(found["cores"]) >= 1
    assert platform.node() not in found.values()
