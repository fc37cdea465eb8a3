"""One process of a service without Ray: what its role makes of it, how it stops, and that it does not outlive the
driver."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from service.assembly import front as front_assembly
from service.assembly import local as local_assembly
from service.config.fleet import Deployment
from service.config.settings import Settings
from service.lifecycle.haproxy import STOPPING
from service.solo import process, targets
from service.solo.targets import FolderTargets
from tests.pages import ROOT
from tests.waiting import until

DEPLOYMENT = Deployment(variants=["lenet5"], max_queue=7)


def told(*listeners: socket.socket, **settings: Any) -> str:
    """The line that the driver writes to a process's input."""
    said = {
        "settings": Settings(**settings).model_dump(mode="json"),
        "deployment": DEPLOYMENT.model_dump(),
        "fronts": 3,
        "listeners": [listener.fileno() for listener in listeners],
    }
    return json.dumps(said) + "\n"


@pytest.fixture
def exposed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """Where metrics were to be served, instead of serving them."""
    found: list[tuple[object, ...]] = []

    def expose(host: str, name: str, folder: Path, may_read: object) -> FolderTargets:
        assert may_read is None
        found.append((host, name, folder))
        return FolderTargets(folder)

    monkeypatch.setattr(targets, "expose", expose)
    return found


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str, str], Any]:
    """Runs ``main`` of a role, with what it is told; returns what it would have run."""

    def main(role: str, line: str) -> Any:
        work: list[Any] = []
        monkeypatch.setattr(process, "_end_with_driver", lambda: None)
        monkeypatch.setattr(process, "configure_logging", lambda _format: None)
        monkeypatch.setattr(process, "_own", lambda *arguments: ("own", *arguments))
        monkeypatch.setattr(process, "_listen", lambda *arguments: ("listen", *arguments))
        monkeypatch.setattr(process, "_run", work.append)
        monkeypatch.setattr(sys, "argv", ["process", role, str(tmp_path), "3"])
        monkeypatch.setattr(sys, "stdin", io.StringIO(line))
        process.main()
        (found,) = work
        return found

    return main


def test_an_owner_gets_its_settings_deployment_and_number(run: Callable[[str, str], Any], tmp_path: Path) -> None:
    assert run("owner", told(device="cpu")) == ("own", Settings(device="cpu"), DEPLOYMENT, tmp_path, 3)


def test_a_front_listens_and_asks_the_owners_in_the_services_folder(
    run: Callable[[str, str], Any], tmp_path: Path, exposed: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front_assembly, "front_app", lambda *arguments: ("front", *arguments))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        name = listener.getsockname()
        kind, app, folder, (given,) = run("front", told(listener, host="127.0.0.2"))
        assert (kind, folder, given.getsockname()) == ("listen", tmp_path, name)
        given.detach()
    assert app == ("front", Settings(host="127.0.0.2"), tmp_path / "o", 3)
    assert exposed == [("127.0.0.2", "front", tmp_path)]


def test_one_process_alone_has_the_networks_and_listens(
    run: Callable[[str, str], Any], tmp_path: Path, exposed: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_assembly, "local_app", lambda *arguments: arguments)
    kind, (settings, deployment, stopping, found), folder, listeners = run("whole", told(device="cpu"))
    assert (kind, settings, deployment, folder, listeners) == (
        "listen",
        Settings(device="cpu"),
        DEPLOYMENT,
        tmp_path,
        [],
    )
    assert exposed == [("127.0.0.1", "whole", tmp_path)]
    assert found == FolderTargets(tmp_path)
    assert not stopping()
    (tmp_path / STOPPING).write_text("stopping\n")
    assert stopping()


async def test_an_owner_serves_its_socket_until_it_is_asked_to_end(
    tmp_path: Path, exposed: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []

    @asynccontextmanager
    async def owner(*arguments: Any) -> AsyncIterator[None]:
        made.append(arguments)
        yield
        made.append("over")

    monkeypatch.setattr(local_assembly, "owner", owner)
    owning = asyncio.create_task(process._own(Settings(), DEPLOYMENT, tmp_path, 3))
    await asyncio.sleep(0.01)
    ((settings, deployment, path, stopping, found),) = made
    assert (settings, deployment, path) == (Settings(), DEPLOYMENT, tmp_path / "o" / "3.sock")
    assert found == FolderTargets(tmp_path)
    assert exposed == [("127.0.0.1", "owner", tmp_path)]
    assert not stopping()
    (tmp_path / STOPPING).write_text("stopping\n")
    assert stopping()
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(owning, 10)
    assert made[1:] == ["over"], "it gives everything back"
    asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)


async def test_a_process_notices_that_the_service_stops_without_a_look_at_the_disk_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[bool] = []
    stops = False

    def is_stopping(folder: Path) -> bool:
        assert folder == tmp_path
        looks.append(stops)
        return stops

    monkeypatch.setattr(process, "_LOOK_EVERY_S", 0.001)
    monkeypatch.setattr(process, "is_stopping", is_stopping)
    async with process._watched(tmp_path) as stopping:
        await asyncio.sleep(0.01)
        before = len(looks)
        assert before > 1
        assert not any(stopping() for _ in range(100))
        assert len(looks) == before
        stops = True
        await asyncio.sleep(0.02)
        assert stopping()


async def test_nothing_looks_at_the_disk_any_more_after_the_end(tmp_path: Path) -> None:
    async with process._watched(tmp_path):
        await asyncio.sleep(0.001)
    assert asyncio.all_tasks() == {asyncio.current_task()}


@contextmanager
def running(command: list[str], line: str, *listeners: socket.socket) -> Iterator[subprocess.Popen[str]]:
    descriptors = [listener.fileno() for listener in listeners]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    started = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, pass_fds=descriptors, env=environment)
    assert started.stdin is not None
    try:
        started.stdin.write(line)
        started.stdin.close()
        yield started
    finally:
        started.kill()
        started.wait()


def test_a_front_without_an_owner_lives_says_that_it_waits_and_ends_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real process, as the driver starts it, but for the folder: the whole path may be too long for a socket's."""
    command = [sys.executable, "-m", "service.solo.process", "front", ".", "0"]
    monkeypatch.chdir(tmp_path)
    Path("o").mkdir()
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        running(command, told(listener), listener) as front,
        httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=30, trust_env=False) as client,
    ):
        alive = client.get("/healthz")
        assert (alive.status_code, alive.json()) == (200, {"status": "live"})
        assert len(alive.headers["x-request-id"]) == 32
        waiting = client.get("/readyz")
        assert (waiting.status_code, waiting.json()["type"]) == (503, "/problems/not-ready")
        with socket.socket(socket.AF_UNIX) as owner:
            owner.bind("o/0.sock")
            owner.listen()
            owner.settimeout(10)
            owner.accept()[0].close()
        (target,) = asyncio.run(FolderTargets(tmp_path).find("topfive"))
        assert target.labels == {"deployment": "front", "replica": str(front.pid)}
        assert "topfive_build_info" in httpx.get(f"http://{target.address}/metrics", trust_env=False).text
        (tmp_path / STOPPING).write_text("stopping\n")
        until(lambda: "stopping" in client.get("/readyz").json()["detail"], 10)
        turned_away = client.post("/classify", content=b"picture")
        assert (turned_away.status_code, turned_away.headers["connection"]) == (503, "close")
        assert client.get("/healthz").status_code == 200
        maps = Path(f"/proc/{front.pid}/maps").read_text()
        assert "libtorch" not in maps
        assert "onnxruntime" not in maps
        front.terminate()
        # uvicorn passes the signal on once it has done all that is to be done.
        assert front.wait(30) in (0, -signal.SIGTERM)
    assert asyncio.run(FolderTargets(tmp_path).find("topfive")) == []


#: A driver that starts a process which then asks to end with it, and waits for ever.
CHILD = """
import sys, time
from service.solo.process import _end_with_driver
_end_with_driver()
print(flush=True)
time.sleep(120)
"""
PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
input()
"""


def test_a_process_ends_with_its_driver_however_that_dies() -> None:
    driver = subprocess.Popen(
        [sys.executable, "-c", PARENT, CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert driver.stdout is not None
    child = psutil.Process(int(driver.stdout.readline()))
    assert child.is_running()
    driver.kill()
    driver.communicate()
    until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, 20)


def test_a_process_whose_driver_has_died_already_does_not_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may die before the kernel was asked; the process then belongs to another one."""
    parents = iter([100, 1])
    monkeypatch.setattr(process.os, "getppid", lambda: next(parents))
    monkeypatch.setattr(process.ctypes, "CDLL", lambda _: type("Kernel", (), {"prctl": staticmethod(lambda *_: 0)}))
    with pytest.raises(SystemExit, match="the driver has died"):
        process._end_with_driver()
