"""Starts the service for tests, in the two ways that users do: Ray Serve by ``topfive serve``, and any ASGI server."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import uvicorn

from service.assembly.local import local_app
from service.config.fleet import Deployment
from service.config.settings import Settings

#: Bounds on waits, not statements about speed.
START_WITHIN_S = 120
STOP_WITHIN_S = 60


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def uvicorn_service(cache_dir: Path, *variants: str, untrained: bool = False) -> Iterator[str]:
    """The local app under uvicorn in a thread, with all variants or some; yields its URL."""
    port = free_port()
    # As a service on two cores is: what it takes is on file then, and is not measured at each start.
    app = local_app(Settings(cache_dir=cache_dir, untrained=untrained), Deployment(variants=list(variants) or ["*"]))
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning", ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until_ready(f"http://127.0.0.1:{port}", lambda: thread.is_alive())
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(STOP_WITHIN_S)
        assert not thread.is_alive()


class Service:
    """``topfive serve`` as a process of its own."""

    def __init__(self, cache_dir: Path, *options: str, port: int | None = None, log: Path) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = log
        self.harmed = False
        """A test has killed something of it: how it ends says nothing any more."""
        command = [sys.executable, "-m", "service.commands.main", "serve", "--port", str(self.port), *options]
        environment = {**os.environ, "TOPFIVE_CACHE_DIR": str(cache_dir)}
        with log.open("wb") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)

    def wait_until_ready(self, within_s: float = START_WITHIN_S) -> None:
        try:
            wait_until_ready(self.url, lambda: self.process.poll() is None, within_s)
            # An earlier run's replicas may still answer on the port; this one says so itself.
            while "ready in" not in self.log.read_text():
                assert self.process.poll() is None, "the server ended before it was ready"
                time.sleep(0.1)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log.read_text()[-5000:]}") from error

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Sends a signal and returns the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


def started(cache_dir: Path, fleet: str, log: Path) -> Iterator[Service]:
    """What a fixture yields from."""
    service = Service(cache_dir, "--fleet", fleet, log=log)
    try:
        service.wait_until_ready()
        yield service
    finally:
        assert service.stop() == 0 or service.harmed
        # A stranger's bytes leave no traceback in the log either.
        assert "Traceback" not in service.log.read_text() or service.harmed


def wait_until_ready(url: str, alive: object, within_s: float = START_WITHIN_S) -> None:
    """Polls /readyz until it answers 200; fails when the server has gone or the bound is over."""
    give_up = time.monotonic() + within_s
    while time.monotonic() < give_up:
        assert callable(alive)
        assert alive(), "the server ended before it was ready"
        try:
            if httpx.get(f"{url}/readyz", timeout=5, trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise AssertionError(f"{url} was not ready within {within_s:.0f} s")
