"""The processes of a run: found by their mark, and ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from service.lifecycle.processes import RUN_ID, Run, end_run, holder_of, is_living, kill, of_run, title_of
from tests.waiting import until

SLEEP = [sys.executable, "-c", "import time; time.sleep(120)"]
#: Ignores SIGTERM, and starts a child that would outlive it.
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
    run = Run(uuid.uuid4().hex)
    process = subprocess.Popen(STUBBORN, env={**os.environ, RUN_ID: run.id}, stdout=subprocess.PIPE)
    orphans.append(process)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    assert len(of_run(run)) == 2
    assert end_run(run, patience_s=0.1) >= 2
    assert of_run(run) == []
    process.stdout.close()


def test_a_zombie_is_not_waited_for() -> None:
    """A process that has ended and whose parent does not collect it, as in a container without an init process."""
    run = Run(uuid.uuid4().hex)
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
        assert time.monotonic() - began < 4.5, "kill waits up to 5 s for a process that has not ended"
        assert child.is_running(), "its parent has not collected it"
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


#: Starts another process when it is asked to end.
FORKS_AT_THE_END = [
    sys.executable,
    "-c",
    "import signal, subprocess, sys, time\n"
    "def end(*_):\n"
    f"    subprocess.Popen({SLEEP!r}, start_new_session=True)\n"
    "    sys.exit()\n"
    "signal.signal(signal.SIGTERM, end)\n"
    "print('up', flush=True)\n"
    "time.sleep(120)",
]


def test_a_process_that_starts_another_while_it_ends_leaves_nothing(orphans: list[subprocess.Popen[bytes]]) -> None:
    run = Run(uuid.uuid4().hex)
    process = subprocess.Popen(FORKS_AT_THE_END, env={**os.environ, RUN_ID: run.id}, stdout=subprocess.PIPE)
    orphans.append(process)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    ended = end_run(run, patience_s=10)
    left = of_run(run)
    kill(left)
    assert (ended, left) == (2, [])
    process.stdout.close()


def test_a_process_that_ends_when_asked_is_not_killed(orphans: list[subprocess.Popen[bytes]]) -> None:
    run = Run(uuid.uuid4().hex)
    orphans.append(subprocess.Popen(SLEEP, env={**os.environ, RUN_ID: run.id}))
    assert end_run(run, patience_s=10) == 1
    assert orphans[0].wait(10) == -signal.SIGTERM


def test_this_process_is_never_among_those_of_a_run() -> None:
    """A supervisor that was started by another service carries that service's mark."""
    run = Run(uuid.uuid4().hex)
    command = [
        sys.executable,
        "-c",
        f"from service.lifecycle.processes import Run, of_run; print(of_run(Run({run.id!r})))",
    ]
    done = subprocess.run(command, env={**os.environ, RUN_ID: run.id}, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_mark_that_only_begins_alike_is_another_runs(orphans: list[subprocess.Popen[bytes]]) -> None:
    run = Run(uuid.uuid4().hex)
    orphans.append(subprocess.Popen(SLEEP, env={**os.environ, RUN_ID: run.id + "0"}))
    assert of_run(run) == []


def test_a_process_that_has_ended_has_no_title_and_does_not_live() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    found = psutil.Process(process.pid)
    assert is_living(found)
    until(lambda: "input()" in title_of(found))
    process.communicate(b"\n")
    assert not is_living(found)
    assert title_of(found) == ""


def test_who_holds_a_port_is_named_for_its_own_addresses_only() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        assert holder_of("127.0.0.1", port) == "another process", "it does not listen yet"
        listener.listen()
        me = f"(pid {os.getpid()})"
        assert me in holder_of("127.0.0.1", port)
        assert me in holder_of("0.0.0.0", port)
        assert holder_of("127.0.0.2", port) == "another process"
    with socket.socket() as listener:
        listener.bind(("0.0.0.0", 0))
        listener.listen()
        assert f"(pid {os.getpid()})" in holder_of("127.0.0.2", listener.getsockname()[1])


def test_a_connection_from_a_port_does_not_hold_it() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        with socket.create_connection(listener.getsockname()) as client:
            assert holder_of("127.0.0.1", client.getsockname()[1]) == "another process"
