"""``topfive serve`` as users start it, for the scripts that look at the whole service."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx


def free_port() -> int:
    """A port that neither the system nor Ray hands out by itself: one of Ray's own metrics servers, which answers every
    path with 200, would otherwise take it now and then before HAProxy does, and look like a service that is ready."""
    while True:
        port = random.randint(8100, 9900)  # noqa: S311 - not for secrets
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def fleet_of(networks: Sequence[str], folder: Path, *, ray: bool) -> Path:
    """Writes a fleet of some networks alone, with or without Ray, into a folder."""
    text = f"[[deployment]]\nvariants = {json.dumps(networks)}\n"
    path = folder / "fleet.toml"
    path.write_text(text if ray else f"ray = false\n{text}")
    return path


class Service:
    """Started, stopped and started again on one port.

    Args:
        options: of ``topfive serve``.
    """

    def __init__(self, *options: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._command = [sys.executable, "-m", "service.commands.main", "serve", "--port", str(self.port), *options]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of ``topfive serve``."""
        assert self._process is not None
        return self._process.pid

    def start(self, within_s: float = 120) -> None:
        self._process = subprocess.Popen(self._command, stderr=subprocess.DEVNULL)  # noqa: S603 - our own
        give_up = time.monotonic() + within_s
        while time.monotonic() < give_up:
            try:
                if httpx.get(f"{self.url}/readyz", timeout=5, trust_env=False).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.2)
        self.stop()
        raise SystemExit(f"the service was not ready within {within_s:.0f} s")

    def stop(self) -> float:
        """Returns the seconds it took."""
        assert self._process is not None
        started = time.monotonic()
        self._process.send_signal(signal.SIGTERM)
        if self._process.wait(60) != 0:
            raise SystemExit("the service ended with an error")
        return time.monotonic() - started

    def replicas(self, deployment: str = "ingress") -> list[dict[str, Any]]:
        """Living replicas of a deployment; where there is none of that name, of the one that has the networks."""
        deployments = self.deployments()
        names = [name for name in (deployment, "owner", "ingress", "whole") if deployments.get(name)]
        return deployments[names[0]]

    def deployments(self) -> dict[str, list[dict[str, Any]]]:
        """The living replicas of all deployments, by name."""
        command = [sys.executable, "-m", "service.commands.main", "status", "--port", str(self.port), "--json"]
        run = subprocess.run(command, capture_output=True, check=True)  # noqa: S603 - our own
        return {d["name"]: d["replicas"] for d in json.loads(run.stdout)["services"][0]["deployments"]}
