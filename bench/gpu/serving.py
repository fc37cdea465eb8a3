"""Starts the service with so many fronts, puts it under load and stops it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.gpu.callers import Load, Seen, load

ROOT = Path(__file__).parents[2]
#: The share of the closed loop's rate at which latency is measured.
SHARE = 0.7
_STOP_WITHIN_S = 15


class StartError(RuntimeError):
    """The service did not get ready; the text ends with the last of its log."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One way to serve."""

    decode: str
    """``cpu`` or ``gpu``."""
    fronts: int
    """Processes that do HTTP and decode, in front of the one that owns the device; 0: it does everything."""

    @property
    def name(self) -> str:
        return f"served with {self.fronts} fronts, {self.decode} decoding"


def command(cell: Cell, port: int, networks: Sequence[str], folder: Path, *, pretend: bool) -> list[str]:
    """How the service is started."""
    fleet = folder / f"fronts-{cell.fronts}.toml"
    text = f"ray = false\nfronts = {cell.fronts}\n[[deployment]]\nvariants = {json.dumps(list(networks))}\n"
    fleet.write_text(text + 'engine = "pretend"\nmax_batch_size = 128\n' * pretend)
    serve = [sys.executable, "-m", "service.commands", "serve", "--fleet", str(fleet), "--port", str(port)]
    return [*serve, "--untrained", "--decode", cell.decode]


@contextmanager
def serving(cell: Cell, networks: Sequence[str], folder: Path, within_s: float, *, pretend: bool) -> Iterator[int]:
    """The service, ready, on a port that it yields; ended with everything that it has started.

    Raises:
        StartError: it is not ready in time, or ended.
    """
    port, log = _free_port(), folder / "service.log"
    environment = {**os.environ, "TOPFIVE_CACHE_DIR": str(folder / "cache"), "PYTHONPATH": str(ROOT)}
    with log.open("wb") as out:
        process = subprocess.Popen(  # noqa: S603 - our own
            command(cell, port, networks, folder, pretend=pretend),
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait(process, port, within_s, log)
        if cell.decode == "gpu" and not pretend:
            _check_gpu_decodes(networks, log.read_text(errors="replace"))
        yield port
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_WITHIN_S)
        # What is left of its session, by the group that it leads.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


def _wait(process: subprocess.Popen[bytes], port: int, within_s: float, log: Path) -> None:
    give_up = time.monotonic() + within_s
    while time.monotonic() < give_up and process.poll() is None:
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
            if answer.status == 200:
                return
        time.sleep(0.1)
    why = f"not ready within {within_s:.0f} s" if process.poll() is None else f"ended with {process.returncode}"
    raise StartError(f"{why}\n{log.read_text(errors='replace')[-1000:]}")


def _check_gpu_decodes(networks: Sequence[str], log: str) -> None:
    """A service without a decoder for its GPU, or whose networks do not pass the gate, decodes with the CPU."""
    if all(re.search(rf"{network}@\S+: the GPU decodes its pictures", log) for network in networks):
        return
    told = [line for line in log.splitlines() if "TOPFIVE_DECODE=gpu" in line]
    raise StartError(f"the GPU does not decode: {told[-1] if told else 'the log does not say why'}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def measured(
    port: int, network: str, picture: bytes, *, connections: int, processes: int, seconds: float, warm_s: float
) -> dict[str, Any]:
    """A network's rate in a closed loop, and its latency at 70 % of it."""
    given = Load(port, f"/classify?model={network}", picture, connections, warm_s, seconds)
    processes = min(processes, connections)
    closed = load(given, processes)
    rate = closed.answered / seconds
    row: dict[str, Any] = {
        "network": network,
        "per_second": rate,
        "mean_batch": closed.batches / closed.answered if closed.answered else None,
        **_told(closed),
    }
    if rate:
        due = SHARE * rate
        opened = load(Load(port, given.path, picture, connections, warm_s / 2, seconds, due), processes)
        row["at_70"] = {
            "rate": due,
            "p50_ms": opened.quantile_ms(0.5),
            "p99_ms": opened.quantile_ms(0.99),
            **_told(opened),
        }
    return row


def _told(seen: Seen) -> dict[str, Any]:
    return {"answers": seen.statuses[200], "errors": seen.errors, "generator_busy": round(seen.busy, 2)}
