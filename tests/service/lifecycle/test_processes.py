"""The processes of a run: found by their mark, and ended."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.lifecycle.processes import _KILLED_WITHIN_S, RUN_ID, Run, end_run, is_living, kill, of_run

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


@pytest.fixture
def orphans() -> Iterator[list[subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.kill()
        process.wait()


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


def test_a_zombie_is_not_waited_for() -> None:
    """A process that has ended and whose parent does not look, as in a container whose first process does not reap."""
    run = Run("with-a-zombie")
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import subprocess, time\nchild = subprocess.Popen({SLEEP!r})\nprint('up', flush=True)\ntime.sleep(120)",
        ],
        env={**os.environ, RUN_ID: run.id},
        stdout=subprocess.PIPE,
    )
    assert parent.stdout is not None
    try:
        assert parent.stdout.readline() == b"up\n"
        (child,) = (process for process in of_run(run) if process.pid != parent.pid)
        assert is_living(child)
        began = time.monotonic()
        kill([child])
        assert time.monotonic() - began < _KILLED_WITHIN_S / 2
        assert child.is_running(), "its parent has not looked"
        assert not is_living(child)
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()


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
