"""Locust's web page: bad input is an error in the log, and several runs follow each other."""

from __future__ import annotations

import json
import signal
import socket
import time
from pathlib import Path

import httpx

from tests.generating import Locust, stub
from tests.running import free_port

_WITHIN_S = 30


def swarm(client: httpx.Client, **form: str) -> None:
    client.post("/swarm", data={"user_count": "8", "spawn_rate": "8", "pictures": "digits", **form}).raise_for_status()


def wait_for_page(client: httpx.Client) -> None:
    give_up = time.monotonic() + _WITHIN_S
    while time.monotonic() < give_up:
        try:
            client.get("/")
        except httpx.TransportError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError("Locust's web page did not come up")


def wait_for_file(file: Path) -> None:
    give_up = time.monotonic() + _WITHIN_S
    while not file.exists():
        assert time.monotonic() < give_up, f"{file} was not written"
        time.sleep(0.05)


def test_the_web_page_starts_runs_with_the_options_of_its_form(tmp_path: Path) -> None:
    port = free_port()
    closed, poisson = tmp_path / "closed.json", tmp_path / "poisson.json"
    page = f"http://127.0.0.1:{port}"
    with (
        # It has a port, so that nobody else gets it, and does not listen there.
        socket.socket() as deaf,
        stub("--delay-s", "0.02") as url,
        httpx.Client(base_url=page, trust_env=False) as client,
    ):
        deaf.bind(("127.0.0.1", 0))
        down = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        locust = Locust("--web-host", "127.0.0.1", "--web-port", str(port))
        try:
            wait_for_page(client)
            swarm(client, host=down)
            swarm(client, host=url, arrivals="poisson", rate="")
            swarm(client, host=url, run_time="2", results=str(closed), arrivals="closed", shares="junk=0")
            wait_for_file(closed)
            swarm(client, host=url, run_time="2", results=str(poisson), arrivals="poisson", rate="30", shares="")
            wait_for_file(poisson)
        finally:
            locust.process.send_signal(signal.SIGINT)
            done = locust.done()
    assert done.code == 0, done.err
    assert "Traceback" not in done.err
    errors = [line.split(": ", 1)[1] for line in done.err.splitlines() if "/ERROR/" in line]
    assert errors == [
        f"{down} does not answer: Connection refused",
        "--arrivals poisson needs --rate, requests a second",
    ]
    first, second = json.loads(closed.read_text()), json.loads(poisson.read_text())
    assert set(first["by_user"]) <= {"ClassifyUser", "BudgetUser", "BulkUser"}
    assert first["lag_ms"]["count"] == 0 < first["answered"]
    assert second["lag_ms"]["count"] == second["answered"] > 0
    assert not first["partial"]
