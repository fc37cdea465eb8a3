"""The driver of a service without Ray: its processes, how it replaces them, and the order in which it ends them.

Small programs stand in for ``service.solo.process``.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from service.config.fleet import Fleet
from service.config.settings import Settings
from service.solo import driver
from service.solo.driver import Worker, listening, stop, workers_of
from tests.running import free_port
from tests.waiting import until


class Pretended:
    """A process that lives until a test says otherwise."""

    def __init__(self) -> None:
        self.returncode: int | None = None
        self.signals: list[int] = []
        self.stdin = self
        self.told = ""

    def write(self, text: str) -> None:
        self.told += text

    def close(self) -> None:
        self.told += "<end>"

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, number: int) -> None:
        self.signals.append(number)


class Started:
    """What the driver has started, instead of real processes."""

    def __init__(self) -> None:
        self.processes: list[Pretended] = []
        self.commands: list[list[str]] = []
        self.options: list[dict[str, Any]] = []

    def __call__(self, command: list[str], **options: Any) -> Pretended:
        self.commands.append(command)
        self.options.append(options)
        self.processes.append(Pretended())
        return self.processes[-1]

    def die(self, status: int = -9) -> None:
        self.processes[-1].returncode = status


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    started = Started()
    monkeypatch.setattr(driver.subprocess, "Popen", started)
    return started


def worker(listeners: Sequence[int] = ()) -> Worker:
    return Worker("front", 3, Path("/tmp/service"), '{"told": 1}', listeners)


def test_a_process_is_told_its_part_over_standard_input(started: Started) -> None:
    front = worker([7, 9])
    front.look(0.0)
    front.look(1.0)
    (command,), (options,), (process,) = started.commands, started.options, started.processes
    assert command == [sys.executable, "-m", "service.solo.process", "front", "/tmp/service", "3"]
    assert list(options["pass_fds"]) == [7, 9]
    assert process.told == '{"told": 1}\n<end>'


def test_a_process_that_dies_is_replaced(started: Started, capfd: pytest.CaptureFixture[str]) -> None:
    front = worker()
    front.look(0.0)
    started.die(-9)
    front.look(100.0)
    assert len(started.processes) == 2, "at once: it had lived for long"
    assert started.commands[1] == started.commands[0]
    assert started.processes[1].told == started.processes[0].told
    assert capfd.readouterr().err == "a process ended (front, status -9) and is replaced\n"


def lives(front: Worker, started: Started, lived_s: float, now: float) -> float:
    """Lets the running process die after a while, and returns how long it took until there was another one."""
    died = now + lived_s
    started.die()
    before, waited_s = len(started.processes), 0.0
    front.look(died)
    while len(started.processes) == before:
        waited_s = round(waited_s + 0.05, 2)
        front.look(died + waited_s)
    return waited_s


def test_one_that_dies_again_and_again_waits_twice_as_long_each_time(started: Started) -> None:
    front, now = worker(), 1000.0
    front.look(now)
    pauses = []
    for _ in range(9):
        pauses.append(lives(front, started, 2.0, now))
        now += 2.0 + pauses[-1]
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]
    # A long life makes up for the deaths before it.
    assert lives(front, started, 30.5, now) == 0.0
    assert lives(front, started, 2.0, now + 30.5) == 0.1


def test_one_that_never_took_its_settings_is_replaced_too(started: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Pretended, _text: str) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(Pretended, "write", broken)
    front = worker()
    front.look(0.0)
    started.die(1)
    front.look(40.0)
    assert len(started.processes) == 2


def test_only_a_living_process_is_asked_to_end(started: Started) -> None:
    front = worker()
    front.end()
    front.wait(0.0)
    front.look(0.0)
    front.end()
    assert started.processes[0].signals == [signal.SIGTERM]
    started.die()
    front.end()
    assert started.processes[0].signals == [signal.SIGTERM]


def fleet(fronts: int, **deployment: Any) -> Fleet:
    return Fleet.model_validate(
        {"ray": False, "fronts": fronts, "deployment": [{"variants": ["lenet5"], "max_queue": 7, **deployment}]}
    )


def parts(found: Sequence[Worker]) -> list[dict[str, Any]]:
    """What each process is told, with its role and number."""
    return [
        {**json.loads(each._settings), "role": each._command[-3], "number": each._command[-1], "given": each._listeners}
        for each in found
    ]


@pytest.fixture
def listeners() -> Iterator[list[socket.socket]]:
    opened = [socket.socket(), socket.socket()]
    yield opened
    for listener in opened:
        listener.close()


def test_with_no_front_one_process_does_everything(listeners: list[socket.socket], tmp_path: Path) -> None:
    (whole,) = parts(workers_of(Settings(port=9123, device="cpu"), fleet(0), 0, tmp_path, listeners))
    descriptors = [listener.fileno() for listener in listeners]
    assert (whole["role"], whole["number"], whole["listeners"], whole["given"]) == (
        "whole",
        "0",
        descriptors,
        descriptors,
    )
    assert Settings.model_validate(whole["settings"]) == Settings(port=9123, device="cpu")
    assert (whole["deployment"]["variants"], whole["deployment"]["max_queue"]) == (["lenet5"], 7)


@pytest.mark.parametrize("fronts", [1, 2])
def test_the_owner_comes_first_and_fronts_share_the_port(
    listeners: list[socket.socket], tmp_path: Path, fronts: int
) -> None:
    found = workers_of(Settings(device="cuda:1"), fleet(fronts), fronts, tmp_path, listeners)
    owner, *others = parts(found)
    assert [each.role for each in found] == ["owner"] + ["front"] * fronts
    assert (owner["role"], owner["number"]) == ("owner", "0")
    assert (owner["listeners"], owner["given"]) == ([], ()), "an owner must not keep the port open"
    assert owner["settings"]["device"] == "cuda:1"
    descriptors = [listener.fileno() for listener in listeners]
    for number, front in enumerate(others):
        assert (front["role"], front["number"]) == ("front", str(number))
        assert front["listeners"] == front["given"] == descriptors
        assert front["fronts"] == fronts, "they share the cores for decoding"
        # A front computes nothing, and must make no context on a GPU.
        assert front["settings"]["device"] == "cpu"


@pytest.mark.parametrize(
    ("device", "deployment", "devices"),
    [
        ("auto", {"num_gpus": 1}, ["auto"]),
        ("cuda:1", {"num_gpus": 1}, ["cuda:1"]),
        ("auto", {"num_gpus": 1, "replicas": 3}, ["cuda:0", "cuda:1", "cuda:2"]),
        ("auto", {"num_gpus": 0.5, "replicas": 4}, ["cuda:0", "cuda:0", "cuda:1", "cuda:1"]),
        ("auto", {"num_gpus": 2, "replicas": 2}, ["cuda:0", "cuda:2"]),
        # check_fits has counted 1.8 of 2.
        ("auto", {"num_gpus": 0.6, "replicas": 3}, ["cuda:0", "cuda:0", "cuda:1"]),
        ("auto", {"replicas": 2}, ["auto", "auto"]),
        # The operator's word.
        ("cpu", {"num_gpus": 1, "replicas": 2}, ["cpu", "cpu"]),
    ],
)
def test_several_owners_divide_the_gpus(
    device: str, deployment: dict[str, Any], devices: list[str], tmp_path: Path
) -> None:
    found = parts(workers_of(Settings(device=device), fleet(1, **deployment), 1, tmp_path, []))
    owners = [each for each in found if each["role"] == "owner"]
    assert [each["settings"]["device"] for each in owners] == devices
    assert [each["number"] for each in owners] == [str(number) for number in range(len(devices))]


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


def reached(port: int) -> set[str]:
    """The addresses of this machine at which somebody listens."""
    found = set()
    for address in ("127.0.0.1", "127.0.0.2", "::1"):
        try:
            socket.create_connection((address, port), timeout=5).close()
            found.add(address)
        except OSError:
            pass
    return found


@pytest.mark.parametrize(
    ("host", "wanted"),
    [
        ("127.0.0.1", {"127.0.0.1"}),
        ("127.0.0.2", {"127.0.0.2"}),
        ("0.0.0.0", {"127.0.0.1", "127.0.0.2"}),
        ("::1", {"::1"}),
        ("::", {"127.0.0.1", "127.0.0.2", "::1"}),
    ],
)
def test_the_port_is_open_at_the_addresses_of_the_host(host: str, wanted: set[str]) -> None:
    if ":" in host and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    port = free_port()
    opened = listening(host, port)
    assert reached(port) == wanted
    for listener in opened:
        listener.close()
    assert reached(port) == set()


def test_a_second_start_does_not_wait_until_the_kernel_has_forgotten_the_connections_of_the_first() -> None:
    port = free_port()
    for _ in range(2):
        (listener,) = listening("127.0.0.1", port)
        with socket.create_connection(("127.0.0.1", port)) as caller:
            served, _ = listener.accept()
            # Who closes first keeps the connection for a minute (TIME-WAIT, RFC 9293).
            served.close()
            assert caller.recv(1) == b""
        listener.close()


def test_a_name_of_several_addresses_is_served_at_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "addresses", lambda _host: ["127.0.0.1", "127.0.0.2"])
    port = free_port()
    opened = listening("a name", port)
    assert reached(port) == {"127.0.0.1", "127.0.0.2"}
    for listener in opened:
        listener.close()


#: A front or owner as far as the order of ends goes: it writes down when it is asked to end and who can still connect,
#: and takes a moment to end.
NOTING = """
import json, signal, socket, sys, time
role, note, port = sys.argv[1:4]
def end(*_):
    with open(note, "a") as file:
        try:
            socket.create_connection(("127.0.0.1", int(port)), timeout=0.5).close()
            file.write(role + " open\\n")
        except TimeoutError:
            file.write(role + " dropped\\n")
        except ConnectionRefusedError:
            file.write(role + " refused\\n")
    time.sleep(0.3)
    with open(note, "a") as file:
        file.write(role + " ended\\n")
    sys.exit()
signal.signal(signal.SIGTERM, signal.SIG_IGN if role == "deaf" else end)
open(note, "a").write(role + " runs\\n")
while True:
    time.sleep(60)
"""


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the second in which new requests are turned away."""
    monkeypatch.setattr(driver, "_TURN_AWAY_S", 0.0)


@pytest.fixture
def noting(tmp_path: Path, at_once: None) -> Iterator[Callable[[str, int], Worker]]:
    """Makes processes that write into the file ``note``; they run when it returns."""
    made: list[Worker] = []
    note = tmp_path / "note"

    def make(role: str, port: int) -> Worker:
        found = Worker("front" if role == "deaf" else role, 0, tmp_path, "", ())
        found._command = [sys.executable, "-c", NOTING, role, str(note), str(port)]
        found.look(time.monotonic())
        made.append(found)
        until(lambda: note.exists() and f"{role} runs" in note.read_text())
        return found

    yield make
    for found in made:
        if found._process is not None:
            found._process.kill()
            found._process.wait()


def test_fronts_end_before_their_owners_and_after_the_port_has_dropped_new_callers(
    noting: Callable[[str, int], Worker], tmp_path: Path
) -> None:
    port = free_port()
    opened = listening("127.0.0.1", port)
    workers = [noting("owner", port), noting("front", port)]
    stop(workers, opened)
    said = (tmp_path / "note").read_text().splitlines()[2:]
    # A front is asked to end with the port still open for connections that are there, and closed a moment later.
    assert said[0].split()[0] == "front"
    assert said[0].split()[1] in ("dropped", "refused")
    assert said[1:] == ["front ended", "owner refused", "owner ended"]
    assert [each._process.returncode for each in workers if each._process is not None] == [0, 0]
    assert reached(port) == set()


def test_one_process_alone_is_ended_as_a_front(noting: Callable[[str, int], Worker], tmp_path: Path) -> None:
    whole = noting("whole", 1)
    stop([whole], [])
    assert (tmp_path / "note").read_text().splitlines()[1:] == ["whole refused", "whole ended"]


def test_a_process_that_does_not_end_is_killed_in_time(
    noting: Callable[[str, int], Worker], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "_ANSWER_WITHIN_S", 0.2)
    deaf, owner = noting("deaf", 1), noting("owner", 1)
    stop([owner, deaf], [])
    assert deaf._process is not None
    assert deaf._process.returncode == -signal.SIGKILL
    assert (tmp_path / "note").read_text().splitlines()[-1] == "owner ended"


def test_requests_are_turned_away_for_a_while_before_anything_ends(
    started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that load balancers and clients that keep their connections notice."""
    slept: list[tuple[float, list[int]]] = []
    front = worker()
    front.look(0.0)
    monkeypatch.setattr(
        driver.time, "sleep", lambda seconds: slept.append((seconds, list(started.processes[0].signals)))
    )
    monkeypatch.setattr(Pretended, "wait", lambda _self, _seconds: None, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stop([front], [listener])
    assert slept == [(driver._TURN_AWAY_S, []), (driver.HANDSHAKES_S, [])]
    assert driver._TURN_AWAY_S >= 0.5


def test_a_stop_takes_less_than_the_supervisor_allows() -> None:
    from service.lifecycle.supervisor import _STOP_WITHIN_S

    steps = (driver._TURN_AWAY_S, driver.HANDSHAKES_S, driver._ANSWER_WITHIN_S, driver._END_WITHIN_S)
    assert sum(steps) + driver._LOOK_EVERY_S < _STOP_WITHIN_S


#: A driver whose processes are programs of this test: it does all that the real one does.
DRIVER = """
import sys
from service.solo import driver
real = driver.Worker.__init__
def pretended(self, role, number, folder, settings, listeners):
    real(self, role, number, folder, settings, listeners)
    self._command = [sys.executable, "-c", sys.argv[2], role, str(folder / "note"), "1"]
driver.Worker.__init__ = pretended
driver._TURN_AWAY_S = 0.0
driver.main()
"""


def test_the_driver_replaces_what_dies_until_its_input_ends(tmp_path: Path) -> None:
    """With a real driver, whose processes do nothing."""
    (tmp_path / "fleet.toml").write_text('ray = false\nfronts = 1\n[[deployment]]\nvariants = ["lenet5"]\n')
    settings = Settings(port=free_port(), fleet=str(tmp_path / "fleet.toml"), device="cpu")
    command = [sys.executable, "-c", DRIVER, str(tmp_path), NOTING]
    running = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert running.stdin is not None
    assert running.stderr is not None
    try:
        running.stdin.write(settings.model_dump_json() + "\n")
        running.stdin.flush()
        note = tmp_path / "note"
        until(lambda: note.exists() and sorted(note.read_text().split()) == ["front", "owner", "runs", "runs"])
        assert reached(settings.port) == {"127.0.0.1"}
        assert (tmp_path / "o").is_dir(), "where the owner's socket will be"
        (front,) = (int(pid) for pid in children(running.pid) if "front" in titles(pid))
        os.kill(front, signal.SIGKILL)
        until(lambda: note.read_text().count("front runs") == 2)
        assert running.poll() is None
        threading.Timer(0.0, running.stdin.close).start()
        assert running.wait(20) == 0
    finally:
        running.kill()
        running.wait()
    said = note.read_text().splitlines()
    assert [line for line in said if "ended" in line] == ["front ended", "owner ended"]
    assert running.stderr.read() == "a process ended (front, status -9) and is replaced\n"
    running.stderr.close()
    assert reached(settings.port) == set()


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def titles(pid: str) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
