"""Runs Locust against a stub of the service, for tests of the load generator."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.running import free_port

ROOT = Path(__file__).parents[1]
#: Bounds on waits, not statements about speed.
_START_WITHIN_S = 30
_END_WITHIN_S = 60


@contextmanager
def stub(*options: str) -> Iterator[str]:
    """The stub in a process of its own; yields its URL."""
    port = free_port()
    command = [sys.executable, "-m", "loadtest._stub", "--port", str(port), *options]
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        _wait_for(f"http://127.0.0.1:{port}", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(_END_WITHIN_S)


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    give_up = time.monotonic() + _START_WITHIN_S
    while time.monotonic() < give_up and process.poll() is None:
        try:
            httpx.get(f"{url}/readyz", trust_env=False)
        except httpx.TransportError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError("the stub did not start")


@dataclass(frozen=True, slots=True)
class Done:
    """What a Locust process left."""

    code: int
    out: str
    err: str
    results: Any
    """The results file, or None."""


class Locust:
    """``locust -f loadtest/`` from the repository root, begun and not waited for."""

    def __init__(self, *options: str, results: Path | None = None, **environment: str) -> None:
        self._results = results
        command = [sys.executable, "-m", "locust", "-f", "loadtest/", *options]
        if results is not None:
            command += ["--results", str(results)]
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def signal(self, number: int, after_s: float) -> None:
        """Sends a signal so long after the users are there."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if "All users spawned" in line:
                break
        time.sleep(after_s)
        self.process.send_signal(number)

    def done(self) -> Done:
        """Waits for its end."""
        try:
            out, err = self.process.communicate(timeout=_END_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise
        written = self._results is not None and self._results.exists()
        results = json.loads(self._results.read_text()) if written and self._results is not None else None
        return Done(self.process.returncode, out, err, results)
