"""The list of processes that serve metrics, where there is no Ray to keep it."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from service.solo import targets
from service.solo.targets import FolderTargets, expose
from service.telemetry.exposition import Target


def note(folder: Path, name: str, pid: int, address: str, earlier: int = 0) -> None:
    """The file that a process leaves, or one that had its number and began some ticks earlier."""
    (folder / "metrics").mkdir(exist_ok=True)
    # proc_pid_stat(5), where the name of a Python has no space.
    began = Path(f"/proc/{pid}/stat").read_text().split()[21]
    said = {"pid": pid, "began": str(int(began) - earlier), "name": name, "address": address}
    (folder / "metrics" / f"{name}-{pid}.json").write_text(json.dumps(said))


@pytest.fixture
def living() -> Iterator[list[int]]:
    """Two processes that live, the lower number first."""
    processes = [subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) for _ in range(2)]
    yield sorted(process.pid for process in processes)
    for process in processes:
        process.communicate(b"\n")


async def test_all_living_processes_are_found(living: list[int], tmp_path: Path) -> None:
    first, second = living
    note(tmp_path, "owner", first, "127.0.0.1:1")
    note(tmp_path, "front", second, "127.0.0.1:2")
    note(tmp_path, "front", os.getpid(), "127.0.0.1:3")
    found = await FolderTargets(tmp_path).find("topfive")
    assert [target.labels["deployment"] for target in found] == ["front", "front", "owner"]
    assert found[2] == Target("127.0.0.1:1", {"deployment": "owner", "replica": str(first)})
    assert {target.address for target in found[:2]} == {"127.0.0.1:2", "127.0.0.1:3"}


def found_in(folder: Path) -> list[str]:
    """The addresses that are found there."""
    return [target.address for target in asyncio.run(FolderTargets(folder).find("topfive"))]


def test_processes_that_have_died_are_left_out(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    note(tmp_path, "front", process.pid, "127.0.0.1:1")
    assert found_in(tmp_path) == ["127.0.0.1:1"]
    process.kill()
    # Before its parent has collected it, too: nobody answers there any more.
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert psutil.pid_exists(process.pid)
    assert found_in(tmp_path) == []
    process.communicate()
    assert found_in(tmp_path) == []


async def test_another_process_of_the_same_number_is_not_taken_for_the_dead_one(
    living: list[int], tmp_path: Path
) -> None:
    """A kernel gives 32,768 numbers by default, and then begins again."""
    note(tmp_path, "front", living[0], "127.0.0.1:1", earlier=1)
    assert await FolderTargets(tmp_path).find("topfive") == []


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"pid": 1}', '{"pid": "x", "name": "front", "address": "a:1"}', "\xff"]
)
async def test_a_file_that_says_nothing_is_left_out(tmp_path: Path, text: str) -> None:
    note(tmp_path, "owner", os.getpid(), "127.0.0.1:1")
    (tmp_path / "metrics" / "front-1.json").write_text(text, encoding="latin-1")
    assert [target.address for target in await FolderTargets(tmp_path).find("topfive")] == ["127.0.0.1:1"]


async def test_there_is_neither_ray_nor_haproxy(tmp_path: Path) -> None:
    note(tmp_path, "owner", os.getpid(), "127.0.0.1:1")
    assert [await FolderTargets(tmp_path).find(job) for job in ("ray", "haproxy")] == [[], []]


async def test_before_any_process_serves_metrics_the_list_is_empty(tmp_path: Path) -> None:
    assert await FolderTargets(tmp_path).find("topfive") == []


@pytest.mark.parametrize(
    ("host", "address"),
    [("127.0.0.1", "127.0.0.1:9123"), ("0.0.0.0", "10.1.2.3:9123"), ("::", "10.1.2.3:9123"), ("::1", "[::1]:9123")],
)
async def test_a_process_says_where_others_can_reach_its_metrics(
    host: str, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wildcard is no address to connect to."""
    served: list[str] = []

    def serve_metrics(host: str, may_read: object) -> str:
        served.append(host)
        return f"[{host}]:9123" if ":" in host else f"{host}:9123"

    monkeypatch.setattr(targets, "serve_metrics", serve_metrics)
    monkeypatch.setattr(targets, "_own_address", lambda: "10.1.2.3")
    found = expose(host, "front", tmp_path)
    assert served == [host], "no more public than the service"
    assert await found.find("topfive") == [Target(address, {"deployment": "front", "replica": str(os.getpid())})]
    assert [path.suffix for path in (tmp_path / "metrics").iterdir()] == [".json"], "nothing half written is left"


def test_the_own_address_is_one_that_others_can_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    def address(family: int, text: str) -> object:
        return type("Address", (), {"family": family, "address": text})

    loopback, ethernet = address(socket.AF_INET, "127.0.0.1"), address(socket.AF_INET, "192.168.1.7")
    sixth = address(socket.AF_INET6, "fe80::1")
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: {"lo": [loopback, sixth], "eth0": [sixth, ethernet]})
    assert targets._own_address() == "192.168.1.7"
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: {"lo": [loopback]})
    assert targets._own_address() == "127.0.0.1"
