"""What the driver tells Ray, Serve and HAProxy before it starts them, and how it hears that it must stop."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from service.cluster import driver
from service.cluster.driver import _prepare_haproxy, environment
from service.config.settings import Settings
from service.domain.errors import PROBLEMS
from service.lifecycle import haproxy
from service.lifecycle.processes import Run


def test_haproxy_gets_a_problem_document_for_each_phase_without_a_replica(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RAY_SERVE_HAPROXY_BINARY_PATH", "TOPFIVE_PYTHON", "TOPFIVE_HAPROXY", "TOPFIVE_FRONT"):
        monkeypatch.setenv(name, "")
    monkeypatch.delenv("RAY_SERVE_HAPROXY_BINARY_PATH")
    _prepare_haproxy(Settings(), tmp_path)
    head, _, body = (tmp_path / "503.http").read_bytes().partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ") for line in lines)
    assert status == "HTTP/1.1 503 Service Unavailable"
    assert (headers["Content-Type"], headers["Retry-After"]) == ("application/problem+json", "1")
    assert int(headers["Content-Length"]) == len(body)
    script = (tmp_path / "answers.lua").read_text()
    texts = [part.partition("]==]")[0] for part in script.split("[==[")[1:]]
    documents = [json.loads(text) for text in (body, *texts)]
    full = documents.pop()
    assert (full["type"], full["status"], full["retry_after_ms"]) == ("/problems/overloaded", 429, 1000)
    assert {(document["type"], document["status"]) for document in documents} == {("/problems/not-ready", 503)}
    assert len({document["detail"] for document in documents}) == 3
    for page in haproxy.PAGES:
        head, _, body = (tmp_path / f"{page}.http").read_bytes().partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 %d " % page)
        assert f"Content-Length: {len(body)}" in head.decode().split("\r\n")
        assert json.loads(body)["status"] == page
        assert json.loads(body)["type"].removeprefix("/problems/") in PROBLEMS
    assert os.access(os.environ["RAY_SERVE_HAPROXY_BINARY_PATH"], os.X_OK)
    front = haproxy.Front.read(tmp_path)
    assert os.access(front.binary, os.X_OK)
    assert front.binary != os.environ["RAY_SERVE_HAPROXY_BINARY_PATH"]


def test_the_users_own_haproxy_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TOPFIVE_PYTHON", "TOPFIVE_HAPROXY", "TOPFIVE_FRONT"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("RAY_SERVE_HAPROXY_BINARY_PATH", "/bin/true")
    _prepare_haproxy(Settings(), tmp_path)
    assert haproxy.Front.read(tmp_path).binary == "/bin/true"
    assert Path(os.environ["RAY_SERVE_HAPROXY_BINARY_PATH"]).name == "haproxy.sh"


def test_the_users_variables_win_except_for_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_SERVE_HAPROXY_NBTHREAD", "7")
    monkeypatch.setenv("RAY_SERVE_HAPROXY_SOCKET_PATH", "/somewhere/else")
    told = environment(tmp_path, Settings())
    assert told["RAY_SERVE_HAPROXY_NBTHREAD"] == "7"
    assert Path(told["RAY_SERVE_HAPROXY_SOCKET_PATH"]).parent == tmp_path


def test_sockets_have_short_paths(tmp_path: Path) -> None:
    """They have at most 107 bytes: 30 for the folder of services, 6 for the port, 57 for Serve's folder of its node,
    and 12 for HAProxy's suffix of temporary names."""
    told = environment(tmp_path, Settings())
    for name in ("RAY_SERVE_HAPROXY_SOCKET_PATH", "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH"):
        assert 30 + len("/65535") + 57 + len("/") + len(Path(told[name]).name) + 12 <= 107


@pytest.mark.parametrize(
    ("max_body_mb", "message_bytes"), [(20, 33_554_432), (32.505856, 33_554_432), (40, 41_048_576), (100, 101_048_576)]
)
def test_messages_between_replicas_have_room_for_the_largest_body(
    tmp_path: Path, max_body_mb: float, message_bytes: int
) -> None:
    """32 MiB, or the body and 1 MiB."""
    told = environment(tmp_path, Settings(max_body_mb=max_body_mb))
    assert int(told["RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH"]) == message_bytes


def test_ports_are_free_and_are_not_those_that_serve_or_the_kernel_gives_away(tmp_path: Path) -> None:
    told = environment(tmp_path, Settings())
    ports = [int(value) for name, value in told.items() if name.endswith("_PORT")]
    assert len(ports) == 4
    for port in ports:
        assert 20_000 <= port < 30_000
        with socket.socket() as probe:
            probe.bind(("", port))


def test_a_port_that_somebody_has_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as first, socket.socket() as free:
        first.bind(("", 0))
        free.bind(("", 0))
        taken, other = first.getsockname()[1], free.getsockname()[1]
        free.close()
        monkeypatch.setattr(driver.random, "sample", lambda *_: [taken, other])
        assert driver._free_port() == other
        monkeypatch.setattr(driver.random, "sample", lambda *_: [taken])
        with pytest.raises(RuntimeError, match="no port is free"):
            driver._free_port()


@pytest.mark.parametrize(("cores", "threads"), [(1, "1"), (7, "1"), (8, "2"), (64, "2"), (None, "1")])
def test_haproxy_has_a_second_thread_from_eight_cores_on(
    tmp_path: Path, cores: int | None, threads: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert environment(tmp_path, Settings())["RAY_SERVE_HAPROXY_NBTHREAD"] == threads


def test_ray_hears_what_it_does_not_do_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "most_connections", lambda: 369)
    told = environment(tmp_path, Settings())
    assert told["RAY_SERVE_HAPROXY_MAXCONN"] == "369"
    for name in ("THROUGHPUT_OPTIMIZED", "USE_GRPC_BY_DEFAULT", "ENABLE_HA_PROXY"):
        assert told[f"RAY_SERVE_{name}"] == "1"
    assert told["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] == "1", "a replica without a GPU must not see one"
    assert told["RAY_USAGE_STATS_ENABLED"] == "0"


def test_work_that_hangs_is_not_waited_for() -> None:
    over = threading.Event()
    began = time.monotonic()
    driver._within(0.1, lambda: over.wait(30))
    assert time.monotonic() - began < 20
    over.set()


def test_work_that_is_done_in_time_is_waited_for() -> None:
    done = threading.Event()
    driver._within(30, lambda: (time.sleep(0.1), done.set()))
    assert done.is_set()


#: Runs the driver with a start that hangs or fails, and a stop that only says so.
PROGRAM = """
import os, sys, time
from service.cluster import driver

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())  # whole lines, whichever thread

def start(settings, fleet, folder):
    say("start", settings.port, fleet.name, folder)
    {start}

driver.start = start
driver.stop = lambda run, folder, port: say("stop", run.id, folder, port)
driver.main()
"""


def run(start: str, stdin: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PROGRAM.format(start=start), str(tmp_path)]
    environment = {**os.environ, "TOPFIVE_RUN_ID": "a-run"}
    return subprocess.run(command, input=stdin, capture_output=True, text=True, env=environment, timeout=60)


def test_the_end_of_standard_input_stops_a_start_that_hangs(tmp_path: Path) -> None:
    done = run("time.sleep(50)", Settings(port=8123).model_dump_json() + "\n", tmp_path)
    assert done.returncode == 0
    assert f"stop a-run {tmp_path} 8123" in done.stdout


def test_a_start_that_fails_by_itself_ends_the_driver_with_its_error(tmp_path: Path) -> None:
    """Its standard input is open, as long as the supervisor lives."""
    command = [sys.executable, "-c", PROGRAM.format(start="raise OSError('no disk')"), str(tmp_path)]
    environment = {**os.environ, "TOPFIVE_RUN_ID": "a-run"}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        assert process.stdout is not None
        process.stdin.write(Settings(port=8123).model_dump_json() + "\n")
        process.stdin.flush()
        assert process.wait(60) == 1
        assert "OSError: no disk" in process.stderr.read()
        assert process.stdout.read() == f"start 8123 local {tmp_path}\n"


def test_a_script_that_lost_its_permission_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_SERVE_HAPROXY_BINARY_PATH", "TOPFIVE_PYTHON", "TOPFIVE_HAPROXY", "TOPFIVE_FRONT"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("RAY_SERVE_HAPROXY_BINARY_PATH", "/bin/true")
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).endswith(".sh") and access(path, mode))
    _prepare_haproxy(Settings(), tmp_path)
    script = Path(os.environ["RAY_SERVE_HAPROXY_BINARY_PATH"])
    assert script == tmp_path / "haproxy.sh"
    assert script.stat().st_mode & 0o777 == 0o700
    assert os.environ["TOPFIVE_PYTHON"] == sys.executable
    assert Path(os.environ["TOPFIVE_HAPROXY"]).samefile(haproxy.__file__)
    assert os.environ["TOPFIVE_FRONT"] == str(tmp_path)


def test_haproxy_binds_every_address_of_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TOPFIVE_PYTHON", "TOPFIVE_HAPROXY", "TOPFIVE_FRONT"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("RAY_SERVE_HAPROXY_BINARY_PATH", "/bin/true")
    _prepare_haproxy(Settings(host="0.0.0.0", port=8123), tmp_path)
    front = haproxy.Front.read(tmp_path)
    assert (front.folder, front.bind) == (str(tmp_path), ["0.0.0.0:8123"])


def test_the_mark_of_the_run_is_the_last_variable_when_ray_is_imported(tmp_path: Path) -> None:
    """Ray's daemons overwrite the beginning of their environment."""
    code = """
import os, sys, types
from pathlib import Path
sys.modules["ray"] = types.ModuleType("ray")
from service.cluster import driver
from service.config.settings import Settings
driver._prepare_haproxy = lambda settings, folder: os.environ.update(TOPFIVE_FRONT="x")
try:
    driver.start(Settings(), None, Path(sys.argv[1]))
except ImportError:
    print(list(os.environ)[-1], os.environ["RAY_SERVE_ENABLE_HA_PROXY"])
"""
    environment = {"TOPFIVE_RUN_ID": "a-run", **{k: v for k, v in os.environ.items() if k != "TOPFIVE_RUN_ID"}}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "TOPFIVE_RUN_ID 1\n"


@pytest.mark.parametrize(("host", "metrics"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "")])
def test_haproxys_metrics_are_as_public_as_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, metrics: str
) -> None:
    for name in ("TOPFIVE_PYTHON", "TOPFIVE_HAPROXY", "TOPFIVE_FRONT"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("RAY_SERVE_HAPROXY_BINARY_PATH", "/bin/true")
    _prepare_haproxy(Settings(host=host), tmp_path)
    assert haproxy.Front.read(tmp_path).metrics == metrics


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.2"])
def test_ray_listens_on_this_machine_alone_where_the_service_does(tmp_path: Path, host: str) -> None:
    assert environment(tmp_path, Settings(host=host))["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0"
    assert "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER" not in environment(tmp_path, Settings(host="0.0.0.0"))


def test_ray_asks_for_its_token_whatever_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert environment(tmp_path, Settings())["RAY_AUTH_MODE"] == "token"


PROTECT = """
import os, sys
from pathlib import Path
from service.cluster import driver
os.umask(0o022)
driver._protect()
print(oct((Path.home() / ".ray" / "auth_token").stat().st_mode & 0o777), oct(os.umask(0)))
"""


@pytest.mark.parametrize("before", [None, 0o644])
def test_nobody_else_can_read_rays_token(tmp_path: Path, before: int | None) -> None:
    """Whoever can read it can run programs as this user."""
    if before is not None:
        (tmp_path / ".ray").mkdir()
        (tmp_path / ".ray" / "auth_token").write_text("a" * 64)
        (tmp_path / ".ray" / "auth_token").chmod(before)
    variables = {**os.environ, "HOME": str(tmp_path), "RAY_AUTH_MODE": "token"}
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        variables.pop(name, None)
    done = subprocess.run([sys.executable, "-c", PROTECT], env=variables, capture_output=True, text=True, timeout=100)
    assert done.stdout == "0o600 0o22\n", done.stderr


def test_a_ray_that_asks_for_no_token_is_not_started(tmp_path: Path) -> None:
    variables = {**os.environ, "HOME": str(tmp_path), "RAY_AUTH_MODE": "disabled"}
    done = subprocess.run([sys.executable, "-c", PROTECT], env=variables, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1
    assert "Ray does not ask for a token" in done.stderr


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The steps of a stop, of which none does anything."""
    done: list[str] = []

    class Draining:
        def __init__(self, folder: Path, port: int) -> None:
            done.append(f"drain {folder}:{port}")

        def __enter__(self) -> Draining:
            return self

        def __exit__(self, *_: object) -> None:
            done.append("drained")

        def wait(self, *, at_least_s: float, until: float) -> None:
            done.append(f"wait {at_least_s:g} to {until - time.monotonic():.0f} s")

        def close(self) -> None:
            done.append("close")

        def wait_for_last(self, until: float) -> None:
            done.append(f"last {max(0, until - time.monotonic()):.1g}")

    monkeypatch.setattr(driver, "Draining", Draining)
    monkeypatch.setattr(driver, "_say_no_more", lambda: done.append("silence"))
    monkeypatch.setattr(driver, "end_run", lambda run, patience_s: done.append(f"end {run.id}"))
    return done


@pytest.mark.parametrize(("killed", "last"), [(0, "last 0"), (2, "last 0.5")])
def test_a_stop_turns_away_closes_ends_replicas_and_then_all_others(
    killed: int, last: str, steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def end_replicas(run: Run, give_up: float) -> int:
        steps.append(f"replicas by {give_up - time.monotonic():.0f} s")
        return killed

    monkeypatch.setattr(driver, "_replicas", lambda _run: [object()])
    monkeypatch.setattr(driver, "_end_replicas", end_replicas)
    driver.stop(Run("a-run"), Path("/f"), 8123)
    assert steps == [
        "drain /f:8123",
        "wait 1 to 6 s",
        "close",
        "last 6",
        "replicas by 6 s",
        last,
        "drained",
        "silence",
        "end a-run",
    ]


def test_a_stop_before_there_are_replicas_does_not_wait_for_clients(
    steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "_replicas", lambda _run: [])
    driver.stop(Run("a-run"), Path("/f"), 8123)
    assert steps == ["drain /f:8123", "wait 0 to 6 s", "close", "last 6", "drained", "silence", "end a-run"]


@pytest.mark.parametrize("in_time", [True, False])
def test_replicas_that_do_not_end_in_time_are_killed(in_time: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, bool]] = []
    killed: list[object] = []
    replicas = ["a replica"]

    def delete(name: str, *, _blocking: bool) -> None:
        asked.append((name, _blocking))
        if in_time:
            replicas.clear()

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(serve=SimpleNamespace(delete=delete)))
    monkeypatch.setattr(driver, "_replicas", lambda _run: list(replicas))
    monkeypatch.setattr(driver, "kill", killed.extend)
    assert driver._end_replicas(Run("a-run"), time.monotonic() + 0.3) == (0 if in_time else 1)
    assert asked == [("topfive", False)]
    assert killed == ([] if in_time else ["a replica"])


def test_replicas_are_the_processes_with_their_titles(monkeypatch: pytest.MonkeyPatch) -> None:
    titles = ["ray::ServeReplica:topfive:all.__call__", "ray::ServeController", "ray::HAProxyManager", ""]
    monkeypatch.setattr(driver, "of_run", lambda _run: titles)
    monkeypatch.setattr(driver, "title_of", lambda process: process)
    assert list(map(str, driver._replicas(Run("a-run")))) == titles[:1]
