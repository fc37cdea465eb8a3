"""The supervisor without Ray: what it prints, what ends it, and how it ends its driver."""

from __future__ import annotations

import io
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from rich.console import Console

from service.config.fleet import Fleet, FleetError, load_fleet
from service.config.settings import Settings
from service.domain.errors import LoadFailedError, NotReadyError, failure_of, problem_document
from service.lifecycle import record as record_file
from service.lifecycle import supervisor
from service.lifecycle.processes import of_run
from service.lifecycle.record import Claim, is_stopping, running
from service.lifecycle.supervisor import NothingLoadedError, StartError
from tests.answering import answering
from tests.running import free_port


@pytest.fixture
def driver() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, text=True)
    yield process
    process.communicate("\n")


def row(name: str, state: str = "ready", **fields: Any) -> dict[str, Any]:
    values = {"top1": 50.0, "origin": "a test", "mend": None, "footprint_mb": 1.0, "failure": None, "download_mb": None}
    return {"name": name, "state": state, "labels": "cifar10", **values, **fields}


NOT_YET = (503, problem_document(failure_of(NotReadyError("loading lenet5@mnist"))))
READY = (200, {"status": "ready"})


def told(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=200)


@pytest.mark.parametrize("slug", [None, "out-of-memory", "weights-damaged"])
def test_a_start_fails_with_the_reason_if_nothing_could_be_loaded(
    slug: str | None, driver: subprocess.Popen[str], console: Console
) -> None:
    nothing = problem_document(failure_of(LoadFailedError("none of the 18 networks could be loaded: full", 1.0, slug)))
    with answering(NOT_YET, (503, nothing), models=[]) as url, pytest.raises(NothingLoadedError) as caught:
        supervisor._wait_until_ready(url, driver, console, "a-run")
    assert str(caught.value) == "none of the 18 networks could be loaded: full"
    assert "loading lenet5@mnist" in told(console)


def test_a_start_waits_while_networks_are_being_loaded(driver: subprocess.Popen[str], console: Console) -> None:
    with answering(NOT_YET, NOT_YET, READY, models=[row("lenet5@mnist")]) as url:
        assert supervisor._wait_until_ready(url, driver, console, "a-run") == [row("lenet5@mnist")]


def test_a_network_that_could_not_be_loaded_is_a_line_with_the_reason(console: Console) -> None:
    rows = [
        row("lenet5@mnist"),
        row("vgg16@imagenet1k", "loadable", failure="no disk has room"),
        row("nin", "loadable"),
    ]
    console.print(supervisor._table(rows))
    lines = [line.split() for line in told(console).splitlines()]
    assert lines[0][:2] == ["ready", "lenet5@mnist"]
    assert lines[1] == ["not", "loaded", "vgg16@imagenet1k", "no", "disk", "has", "room"]
    assert lines[2][:3] == ["on", "demand", "nin"]


def test_a_start_without_any_weights_says_that_nothing_can_be_served(console: Console) -> None:
    for rows, says in (
        ([row("vgg16", "weights missing")], True),
        ([row("vgg16", "loadable")], False),
        ([row("a")], False),
    ):
        console.file = io.StringIO()
        supervisor._print_ready("http://here", rows, Settings(), 1.0, console)
        assert ("nothing can be served yet" in told(console)) == says


@pytest.fixture
def claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Claim]:
    """A claim on a free port, in a folder of services that only this test has."""
    monkeypatch.setattr(record_file.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(record_file, "_LONGEST_BASE", 4096)
    claim = Claim.take("127.0.0.1", free_port(), "local")
    yield claim
    claim.release()


def test_what_is_ready_and_what_is_missing_is_summed_up(console: Console) -> None:
    rows = [
        row("lenet5@mnist"),
        row("googlenet@cifar10"),
        row("nin", "loadable"),
        row("vgg19", "loadable", footprint_mb=None),
        row("vgg16", "weights missing", download_mb=553.4),
        row("alexnet", "weights missing", download_mb=243.7),
        row("vgg11_lrn", "weights missing"),
    ]
    supervisor._print_ready("http://here", rows, Settings(untrained=True), 2.34, console)
    lines = told(console).splitlines()
    assert lines[0] == "ready in 2.3 s: 2 of 7 networks, http://here/docs"
    assert lines[1].startswith("  1 more are loaded when a request needs them")
    assert lines[2].startswith("untrained")
    assert lines[3] == "  topfive pull --all fetches the missing weights: 2 files, 797 MB"
    assert lines[4] == "  try: curl --data-binary @docs/images/airplane.png 'http://here/classify'"


def test_the_example_is_a_digit_if_only_digits_are_known(console: Console) -> None:
    rows = [row("lenet5@mnist") | {"labels": "mnist"}, row("googlenet@cifar10", "loadable")]
    supervisor._print_ready("http://here", rows, Settings(), 1.0, console)
    assert "@docs/images/digit.png 'http://here/classify?labels=mnist'" in told(console)


def test_a_start_that_takes_too_long_says_what_it_waited_for(
    driver: subprocess.Popen[str], console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "_READY_WITHIN_S", 0.5)
    with (
        answering(NOT_YET, models=[]) as url,
        pytest.raises(StartError, match=r"not ready within .*loading lenet5@mnist"),
    ):
        supervisor._wait_until_ready(url, driver, console, "a-run")
    assert told(console).count("loading lenet5@mnist") == 1, "what is said again is not printed again"


def test_a_driver_that_ends_before_the_service_is_ready_fails_the_start(console: Console) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""], text=True)
    ended.wait()
    with pytest.raises(StartError, match="the service could not start; the lines above say why"):
        supervisor._wait_until_ready(f"http://127.0.0.1:{free_port()}", ended, console, "a-run")


class Daemon:
    """A process with a name, which may die."""

    def __init__(self, name: str) -> None:
        self._name, self.alive = name, True

    def is_running(self) -> bool:
        return self.alive

    def status(self) -> str:
        return psutil.STATUS_SLEEPING

    def name(self) -> str:
        return self._name


RAY = ("gcs_server", "raylet")


@pytest.mark.parametrize("dying", RAY)
def test_the_death_of_a_daemon_that_ray_cannot_replace_ends_the_service(
    dying: str, driver: subprocess.Popen[str], claim: Claim, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemons = {name: Daemon(name) for name in ("gcs_server", "raylet", "haproxy")}
    monkeypatch.setattr(supervisor, "of_run", lambda _run: list(daemons.values()))
    daemons["haproxy"].alive = False  # Serve replaces that one
    turns: list[float] = []

    def sleep(seconds: float) -> None:
        turns.append(seconds)
        daemons[dying].alive = len(turns) < 3

    monkeypatch.setattr(supervisor.time, "sleep", sleep)
    with pytest.raises(StartError, match=f"Ray's {dying} has died; its log files are in .*session_latest/logs"):
        supervisor._watch(driver, claim, RAY)
    assert len(turns) == 3


@pytest.mark.parametrize(
    ("daemons", "says"),
    [
        (RAY, r"^Ray's driver \(pid {pid}\) has died; its log files are in .*session_latest/logs$"),
        # Without Ray there are no log files: its processes write to the terminal.
        ((), r"^the service's driver \(pid {pid}\) has died; the lines above may say why$"),
    ],
)
def test_the_death_of_the_driver_ends_the_service(
    daemons: tuple[str, ...], says: str, claim: Claim, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""], text=True)
    ended.wait()
    monkeypatch.setattr(supervisor, "of_run", lambda _run: [])
    with pytest.raises(StartError, match=says.replace("{pid}", str(ended.pid))):
        supervisor._watch(ended, claim, daemons)


def test_the_files_of_a_running_service_are_marked_as_used_once_an_hour(
    driver: subprocess.Popen[str], claim: Claim, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stub clock counts the half seconds of three hours and a half; then the driver is said to have ended."""
    now, touched = [0.0], list[float]()
    monkeypatch.setattr(supervisor, "of_run", lambda _run: [Daemon("gcs_server"), Daemon("raylet")])
    monkeypatch.setattr(supervisor.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(supervisor.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    monkeypatch.setattr(claim, "touch", lambda: touched.append(now[0]))
    monkeypatch.setattr(driver, "poll", lambda: None if now[0] < 3.5 * 3600 else 1)
    with pytest.raises(StartError):
        supervisor._watch(driver, claim, RAY)
    assert touched == [3600.0, 7200.0, 10800.0]


#: A driver that tells whether it was asked to stop in order: it writes how long its input was, then ends.
OBEDIENT = "import sys; sys.stdin.read(); open(sys.argv[1], 'w').write('stopped in order')"
DEAF = "import time; time.sleep(120)"


@pytest.mark.parametrize("in_order", [True, False])
def test_a_driver_stops_in_order_if_it_can(claim: Claim, tmp_path: Path, in_order: bool) -> None:
    note = tmp_path / "note"
    process = subprocess.Popen(
        [sys.executable, "-c", OBEDIENT, str(note)],
        stdin=subprocess.PIPE,
        text=True,
        env={**os.environ, supervisor.RUN_ID: claim.record.run_id},
    )
    assert not is_stopping(claim.folder)
    stopping: list[bool] = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(claim, "release", lambda: stopping.append(is_stopping(claim.folder)))
        supervisor._stop(process, claim, in_order=in_order)
    assert note.exists() == in_order
    assert stopping == [in_order]
    assert process.poll() is not None
    assert process.stdin is not None
    process.stdin.close()


def test_a_driver_that_does_not_stop_is_killed_with_the_rest_of_its_run(
    claim: Claim, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "_STOP_WITHIN_S", 0.2)
    environment = {**os.environ, supervisor.RUN_ID: claim.record.run_id}
    driver = subprocess.Popen([sys.executable, "-c", DEAF], stdin=subprocess.PIPE, text=True, env=environment)
    replica = subprocess.Popen([sys.executable, "-c", DEAF], env=environment)
    supervisor._stop(driver, claim, in_order=True)
    assert driver.returncode == -signal.SIGKILL
    assert replica.wait(10) != 0
    assert of_run(claim.record.run) == []
    assert not claim.folder.exists()


def test_a_service_that_cannot_start_leaves_nothing(
    claim: Claim, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a driver that ends at once."""
    port = free_port()

    def start(settings: Settings, claim: Claim, fleet: Fleet) -> subprocess.Popen[str]:
        assert [record.port for record in running()] == sorted([claim.record.port, other])
        return subprocess.Popen([sys.executable, "-c", ""], text=True)

    other = claim.record.port
    monkeypatch.setattr(supervisor, "_start_driver", start)
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(StartError, match="the service could not start; the lines above say why"):
        supervisor.serve(Settings(port=port), console)
    assert [record.port for record in running()] == [other]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert "starts: fleet local" in told(console)
    assert "stopped" not in told(console)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_a_start_in_order(
    number: signal.Signals, claim: Claim, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped: list[bool] = []

    def start(_settings: Settings, claim: Claim, _fleet: Fleet) -> None:
        signal.raise_signal(number)
        raise AssertionError("the signal is an exception")

    def stop(_driver: object, claim: Claim, *, in_order: bool) -> None:
        signal.raise_signal(number)  # a second one changes nothing
        stopped.append(in_order)
        claim.release()

    monkeypatch.setattr(supervisor, "_start_driver", start)
    monkeypatch.setattr(supervisor, "_stop", stop)
    supervisor.serve(Settings(port=free_port()), console)
    assert stopped == [True]
    assert told(console).splitlines()[-2:] == ["stopping: running requests are answered first", "stopped"]


def test_a_service_without_any_network_is_stopped_in_order_and_fails(
    claim: Claim, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped: list[bool] = []

    def stop(_driver: object, claim: Claim, *, in_order: bool) -> None:
        stopped.append(in_order)
        claim.release()

    def wait(*_: object) -> None:
        raise NothingLoadedError("all failed")

    monkeypatch.setattr(supervisor, "_start_driver", lambda *_: None)
    monkeypatch.setattr(supervisor, "_wait_until_ready", wait)
    monkeypatch.setattr(supervisor, "_stop", stop)
    with pytest.raises(StartError, match="all failed"):
        supervisor.serve(Settings(port=free_port()), console)
    assert stopped == [True]


@pytest.mark.parametrize(
    ("fleet", "module"),
    [("local", "service.cluster.driver"), ("cluster-cpu", "service.cluster.driver"), ("solo", "service.solo.driver")],
)
def test_the_fleets_driver_gets_the_settings_and_the_mark_of_the_run(
    fleet: str, module: str, claim: Claim, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[list[str], dict[str, Any]]] = []
    echo = [sys.executable, "-c", "import sys; print(sys.stdin.readline(), end='')"]
    popen = subprocess.Popen

    def start(command: list[str], **options: Any) -> subprocess.Popen[str]:
        started.append((command, options))
        return popen(echo, stdout=subprocess.PIPE, **options)

    monkeypatch.setattr(supervisor.subprocess, "Popen", start)
    settings = Settings(port=9123, max_batch_size=3)
    driver = supervisor._start_driver(settings, claim, load_fleet(fleet))
    said, _ = driver.communicate()
    ((command, options),) = started
    assert command[1:] == ["-m", module, str(claim.folder)]
    assert Settings.model_validate_json(said) == settings
    assert options["env"][supervisor.RUN_ID] == claim.record.run_id
    assert options["start_new_session"]
    assert claim.record.driver == driver.pid


@pytest.mark.parametrize(("files", "connections"), [(260, 64), (259, None)])
def test_a_limit_on_open_files_must_allow_64_connections(
    files: int, connections: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (100, files))
    if connections is None:
        with pytest.raises(StartError, match="limit on open files is too low"):
            supervisor._check_open_files()
    else:
        assert supervisor._check_open_files() == connections


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Settings, Claim]]:
    """Starts that fail once the driver is to be started; the settings and claims that they had."""
    starts: list[tuple[Settings, Claim]] = []

    def start(settings: Settings, claim: Claim, _fleet: Fleet) -> None:
        starts.append((settings, claim))
        raise StartError("no driver")

    monkeypatch.setattr(supervisor, "_start_driver", start)
    return starts


def test_the_record_names_a_fleet_file_by_its_whole_path(
    claim: Claim, console: Console, refused: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.toml").write_text('[[deployment]]\nvariants = ["lenet5"]\nnum_cpus = 0.1\n')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StartError, match="no driver"):
        supervisor.serve(Settings(port=free_port(), fleet="mine.toml"), console)
    ((settings, started),) = refused
    assert settings.fleet == started.record.fleet == str(tmp_path / "mine.toml")


def test_the_record_names_the_device(claim: Claim, console: Console, refused: list[Any]) -> None:
    """Whoever reads the record must know whether the fleet has the processes of a GPU machine."""
    with pytest.raises(StartError, match="no driver"):
        supervisor.serve(Settings(port=free_port(), device="cpu"), console)
    ((_, started),) = refused
    assert started.record.device == "cpu"


@pytest.mark.parametrize(
    ("fleet", "daemons"), [("local", ("gcs_server", "raylet")), ("cluster-cpu", ("gcs_server", "raylet")), ("solo", ())]
)
def test_rays_daemons_are_watched_where_there_is_ray(
    fleet: str, daemons: tuple[str, ...], claim: Claim, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched: list[tuple[object, ...]] = []

    def watch(*arguments: object) -> None:
        watched.append(arguments)
        signal.raise_signal(signal.SIGTERM)

    def stop(_driver: object, claim: Claim, *, in_order: bool) -> None:
        claim.release()

    monkeypatch.setattr(supervisor, "_start_driver", lambda *_: "the driver")
    monkeypatch.setattr(supervisor, "_wait_until_ready", lambda *_: [])
    monkeypatch.setattr(supervisor, "_watch", watch)
    monkeypatch.setattr(supervisor, "_stop", stop)
    supervisor.serve(Settings(port=free_port(), fleet=fleet), console)
    ((driver, _, found),) = watched
    assert (driver, found) == ("the driver", daemons)


def test_without_ray_the_limit_on_open_files_is_not_haproxys(
    claim: Claim, console: Console, refused: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "most_connections", lambda: 1)
    with pytest.raises(StartError, match="no driver"):
        supervisor.serve(Settings(port=free_port(), fleet="solo"), console)
    assert "connections at once" not in told(console)


def test_a_low_limit_on_open_files_is_printed(
    claim: Claim, console: Console, refused: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for connections, printed in ((4095, True), (4096, False)):
        console.file = io.StringIO()
        monkeypatch.setattr(supervisor, "most_connections", lambda connections=connections: connections)
        with pytest.raises(StartError, match="no driver"):
            supervisor.serve(Settings(port=free_port()), console)
        assert ("at most 4,095 connections at once" in told(console)) == printed


@pytest.mark.parametrize(("host", "all_of_them"), [("127.0.0.1", False), ("0.0.0.0", True)])
def test_a_start_prints_where_the_service_will_answer(
    host: str, all_of_them: bool, claim: Claim, console: Console, refused: list[Any]
) -> None:
    port = free_port()
    with pytest.raises(StartError, match="no driver"):
        supervisor.serve(Settings(host=host, port=port, device="cpu"), console)
    assert f"fleet local, device cpu, http://127.0.0.1:{port}" in told(console)
    assert ("and all other addresses of this machine" in told(console)) == all_of_them


def test_what_an_earlier_run_left_is_ended_first_and_counted(
    claim: Claim, console: Console, refused: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "end_leftovers", lambda: 3)
    with pytest.raises(StartError, match="no driver"):
        supervisor.serve(Settings(port=free_port()), console)
    assert told(console).splitlines()[0] == "ended 3 processes that an earlier run left behind"


def test_a_fleet_that_does_not_fit_claims_no_port(
    claim: Claim, console: Console, refused: list[Any], tmp_path: Path
) -> None:
    (tmp_path / "mine.toml").write_text('[[deployment]]\nvariants = ["lenet5"]\nnum_cpus = 10000\n')
    with pytest.raises(FleetError, match="the fleet needs 10000 CPUs"):
        supervisor.serve(Settings(port=free_port(), fleet=str(tmp_path / "mine.toml")), console)
    with pytest.raises(FleetError, match="no NVIDIA GPU"):
        supervisor.serve(Settings(port=free_port(), device="cuda:0"), console)
    assert refused == []
    assert [record.port for record in running()] == [claim.record.port]


def test_graphs_that_killed_processes_left_are_removed_before_and_after(
    claim: Claim, console: Console, refused: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    moments: list[int] = []
    monkeypatch.setattr(supervisor, "clear_unused_graphs", lambda: moments.append(len(running())))
    with pytest.raises(StartError, match="no driver"):
        supervisor.serve(Settings(port=free_port()), console)
    assert moments == [1, 2], "before it claims its port, and before it gives that back"


def test_a_port_is_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    supervisor._check_port("127.0.0.1", free_port())

    class Refusing(socket.socket):
        def bind(self, _address: object) -> None:
            raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(supervisor, "addresses", lambda _: ["127.0.0.1"])
    monkeypatch.setattr(supervisor.socket, "socket", Refusing)
    with pytest.raises(StartError, match=r"127\.0\.0\.1:80 cannot be served on: Permission denied"):
        supervisor._check_port("127.0.0.1", 80)


def test_a_network_without_weights_is_a_line_that_says_how_to_get_them(console: Console) -> None:
    console.print(supervisor._table([row("vgg16", "weights missing", mend="topfive pull vgg16"), row("nin")]))
    lines = [line.split() for line in told(console).splitlines()]
    assert lines[0] == ["no", "weights", "vgg16", "topfive", "pull", "vgg16"]
    assert lines[1] == ["ready", "nin", "50.00", "%", "a", "test"]
