"""The record on this machine: claims, locks, and what a dead run has left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from service import state
from service.processes import RUN_ID, Run, end_run, of_run
from service.state import AlreadyServingError, State, end_leftovers, is_stopping, running

SLEEP = [sys.executable, "-c", "import time; time.sleep(120)"]
#: Ignores the polite request, and starts a child that would outlive it.
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, subprocess, sys, time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    f"subprocess.Popen({SLEEP!r}, start_new_session=True)\n"
    "print('up', flush=True)\n"
    "time.sleep(120)",
]


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(state.tempfile, "gettempdir", lambda: str(tmp_path))
    return tmp_path


@pytest.fixture
def orphans() -> Iterator[list[subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.kill()
        process.wait()


def abandon(port: int) -> State:
    """A claim whose holder was killed: the lock has fallen, the folder is still there."""
    claimed = State.claim("127.0.0.1", port, "local")
    claimed._lock.close()
    return claimed


def test_a_port_is_claimed_once() -> None:
    first = State.claim("127.0.0.1", 8000, "local")
    with pytest.raises(AlreadyServingError, match=f"pid {os.getpid()}.*port 8000"):
        State.claim("127.0.0.1", 8000, "local")
    second = State.claim("127.0.0.1", 8001, "cluster-cpu")
    assert {(record.port, record.fleet) for record in running()} == {(8000, "local"), (8001, "cluster-cpu")}
    first.release()
    assert not first.folder.exists()
    assert [record.port for record in running()] == [8001]
    State.claim("127.0.0.1", 8000, "local").release()
    second.release()


def test_the_folder_is_its_owners_alone() -> None:
    claimed = State.claim("127.0.0.1", 8000, "local")
    assert (claimed.folder.stat().st_mode & 0o077, claimed.folder.parent.stat().st_mode & 0o077) == (0, 0)
    claimed.release()


def test_stopping_is_a_mark_that_other_processes_see() -> None:
    claimed = State.claim("127.0.0.1", 8000, "local")
    assert not is_stopping(claimed.folder)
    claimed.mark_stopping()
    assert is_stopping(claimed.folder)
    claimed.release()


def test_leftovers_of_a_dead_run_are_ended_and_strangers_are_not(orphans: list[subprocess.Popen[bytes]]) -> None:
    dead = abandon(8000)
    living = State.claim("127.0.0.1", 8001, "local")
    for run_id in (dead.record.run_id, dead.record.run_id, living.record.run_id, "somebody-elses"):
        orphans.append(subprocess.Popen(SLEEP, env={**os.environ, RUN_ID: run_id}))
    assert end_leftovers() == 2
    assert [process.poll() is None for process in orphans] == [False, False, True, True]
    assert not dead.folder.exists()
    assert living.folder.exists()
    assert end_leftovers() == 0
    living.release()


def test_a_new_claim_cleans_up_by_itself(orphans: list[subprocess.Popen[bytes]]) -> None:
    dead = abandon(8000)
    orphans.append(subprocess.Popen(SLEEP, env={**os.environ, RUN_ID: dead.record.run_id}))
    claimed = State.claim("127.0.0.1", 8000, "local")
    orphans[0].wait(10)
    assert claimed.record.run_id != dead.record.run_id
    claimed.release()


def test_a_damaged_record_is_no_obstacle() -> None:
    dead = abandon(8000)
    (dead.folder / "service.json").write_text("{half")
    claimed = State.claim("127.0.0.1", 8000, "local")
    assert claimed.record.port == 8000
    claimed.release()


def test_processes_that_ignore_the_request_are_killed_with_their_children(
    orphans: list[subprocess.Popen[bytes]],
) -> None:
    run = Run("stubborn-run")
    process = subprocess.Popen(STUBBORN, env={**os.environ, RUN_ID: run.id}, stdout=subprocess.PIPE)
    orphans.append(process)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    assert len(of_run(run)) == 2
    assert end_run(run, patience_s=0.1) >= 2
    assert of_run(run) == []
    process.stdout.close()


def test_a_daemon_that_lost_its_mark_is_known_by_title_and_session(orphans: list[subprocess.Popen[bytes]]) -> None:
    environment = {name: value for name, value in os.environ.items() if name != RUN_ID}
    sleep = "import time; time.sleep(120)"

    def start(title: str) -> subprocess.Popen[bytes]:
        # bash leads the session; what it starts is the daemon.
        command = ["bash", "-c", f"exec -a '{title}' {sys.executable} -c '{sleep}'"]
        return subprocess.Popen(command, env=environment, start_new_session=True)

    ours, stranger = start("ray::DashboardAgent"), start("ray::DashboardAgent")
    plain = start("somebody")
    orphans += [ours, stranger, plain]
    for process in orphans:
        while b"time.sleep" not in Path(f"/proc/{process.pid}/cmdline").read_bytes():
            pass
        while Path(f"/proc/{process.pid}/comm").read_text() == "bash\n":
            pass
    assert [process.pid for process in of_run(Run("no-such-id", session=ours.pid))] == [ours.pid]
    assert of_run(Run("no-such-id", session=plain.pid)) == []
