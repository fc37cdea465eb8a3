"""``topfive serve``: start, say what is ready and what is missing, wait for a signal, stop."""

from __future__ import annotations

import signal
import time
from types import FrameType
from typing import Any

import httpx
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from service.cluster import Cluster
from service.fleet import load_fleet
from service.settings import Settings

#: A generous bound on loading every checkpoint, after which the start has failed.
_READY_WITHIN_S = 600.0


def serve(settings: Settings, console: Console) -> None:
    """Serves until SIGINT or SIGTERM.

    Raises:
        FleetError, PortTakenError: before anything is started.
        TimeoutError: the service did not become ready.
    """
    started = time.monotonic()
    fleet = load_fleet(settings.fleet)
    signals = _Signals()
    url = f"http://{settings.host}:{settings.port}"
    cluster = Cluster(settings, fleet)
    try:
        console.print(f"[bold]TopFive[/] starts: fleet {escape(settings.fleet)}, device {settings.device}, {url}")
        cluster.start(after_ray=signals.listen)
        models = _wait_until_ready(url, console)
        console.print(_table(models))
        _print_ready(url, models, settings, time.monotonic() - started, console)
        signals.wait()
    except _StopSignal:
        console.print("stopping: running requests are answered first")
    finally:
        signals.hold()
        cluster.stop()
    console.print("stopped")


class _StopSignal(BaseException):
    """SIGINT or SIGTERM, raised where the main thread is, so that a start can be broken off at any point."""


class _Signals:
    """Turns the first SIGINT or SIGTERM into _StopSignal; the ones after it change nothing, since stopping is what is
    being done already."""

    def __init__(self) -> None:
        self._held = False
        self.listen()

    def listen(self) -> None:
        """Puts the handlers in place; once more after Ray has put its own there."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    def hold(self) -> None:
        """From here on signals are ignored."""
        self._held = True

    def wait(self) -> None:
        """Until a signal."""
        while True:
            signal.pause()

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if not self._held:
            self._held = True
            raise _StopSignal


def _wait_until_ready(url: str, console: Console) -> list[dict[str, Any]]:
    """Polls /readyz, saying what is being loaded, then reads /models."""
    give_up = time.monotonic() + _READY_WITHIN_S
    said = ""
    with httpx.Client(base_url=url, timeout=10) as client:
        while True:
            answer = _get(client, "/readyz")
            if answer is not None and answer.status_code == 200:
                rows: list[dict[str, Any]] = client.get("/models").json()["models"]
                return rows
            detail = answer.json().get("detail", "") if answer is not None and _is_json(answer) else ""
            if detail and detail != said:
                console.print(f"  {escape(detail)}")
                said = detail
            if time.monotonic() > give_up:
                raise TimeoutError(f"not ready within {_READY_WITHIN_S:.0f} s: {said or 'no answer'}")
            time.sleep(0.2)


def _get(client: httpx.Client, path: str) -> httpx.Response | None:
    try:
        return client.get(path)
    except httpx.TransportError:
        return None


def _is_json(answer: httpx.Response) -> bool:
    return "json" in answer.headers.get("content-type", "")


def _table(models: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    for row in models:
        if row["state"] == "weights missing":
            table.add_row("  [yellow]no weights[/]", row["name"], "", f"[dim]{escape(row['mend'] or '')}[/]")
            continue
        colour = "green" if row["state"] == "ready" else "red"
        top1 = "" if row["top1"] is None else f"{row['top1']:.2f} %"
        table.add_row(f"  [{colour}]{row['state']}[/]", row["name"], top1, f"[dim]{escape(row['origin'])}[/]")
    return table


def _print_ready(url: str, models: list[dict[str, Any]], settings: Settings, seconds: float, console: Console) -> None:
    ready = [row["variant"] for row in models if row["state"] == "ready"]
    console.print(f"[bold green]ready[/] in {seconds:.1f} s: {len(ready)} of {len(models)} networks, {url}/docs")
    if settings.untrained:
        console.print("[yellow]untrained[/]: seeded random weights; every answer says so")
    if ready:
        query = "" if settings.untrained else f"?model={ready[0]}"
        console.print(f"  try: curl --data-binary @docs/images/digit.png '{url}/classify{query}'", highlight=False)
    console.print("  Ctrl-C stops it")
