"""The supervisor: starts the driver, reports what is ready and what is missing, waits for a signal, stops the service.

This process holds the claim on the port (``record.py``) and does nothing that could hang. Ray runs in the driver, a
child with a session of its own: Ctrl-C in a terminal reaches only the supervisor, and running requests are answered
before anything ends.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import httpx
import psutil
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from models.checkpoints.catalogue import Catalogue
from models.onnx.graph_cache import clear_unused_graphs
from service.config.capacity import MOST_CONNECTIONS, Machine, check_fits, most_connections, with_device
from service.config.fleet import Fleet, load_fleet
from service.config.listening import NotOurAddressError, addresses, is_wildcard
from service.config.settings import Settings
from service.lifecycle.processes import RUN_ID, end_run, holder_of, is_living, of_run, own_key
from service.lifecycle.record import Claim, end_leftovers, ray_folder

#: After this time the start has failed. Exporting, measuring and loading all checkpoints takes less on any machine.
_READY_WITHIN_S = 1200.0
#: The driver's own steps are bounded and take less together.
_STOP_WITHIN_S = 9.5
#: The problems that /readyz reports once every load has failed.
_NOTHING_LOADED = {
    f"/problems/{slug}" for slug in ("load-failed", "out-of-memory", "weights-damaged", "weights-missing")
}
#: How often the service marks its files below /tmp as used. Cleaners remove what has not been used for days.
_TOUCH_EVERY_S = 3600.0
#: Fewer connections are too few to serve, and Ray's processes need as many files too.
_FEWEST_CONNECTIONS = 64


class StartError(RuntimeError):
    """The service could not start, or one of its processes died; the text says why."""


class NothingLoadedError(StartError):
    """The service runs, but could not load any of its networks."""


def serve(settings: Settings, console: Console) -> None:
    """Serves until SIGINT or SIGTERM.

    Raises:
        FleetError: the fleet cannot run on this machine.
        AlreadyServingError: one of this user's services has the port.
        FolderError: the folder of the records cannot be used.
        StartError: the service could not start, or one of its processes died. Nothing is left running.
    """
    started = time.monotonic()
    if Path(settings.fleet).is_file():  # the record may be read from another folder
        settings = settings.model_copy(update={"fleet": str(Path(settings.fleet).resolve())})
    fleet = load_fleet(settings.fleet)
    connections = MOST_CONNECTIONS
    if fleet.ray:
        _check_authentication()
        connections = _check_open_files()
    ended = end_leftovers()
    if ended:
        console.print(f"ended {ended} processes that an earlier run left behind")
    clear_unused_graphs()
    catalogue = Catalogue(settings.cache_dir, untrained=settings.untrained)
    machine = Machine.this()
    fleet = with_device(fleet, settings.device, machine)
    check_fits(
        fleet,
        catalogue.checkpoints(),
        machine,
        max_batch_size=settings.max_batch_size,
        memory_limit_mb=settings.memory_limit_mb,
    )
    claim = Claim.take(settings.host, settings.port, settings.fleet, settings.device)
    signals = _Signals()
    driver, in_order = None, True
    try:
        _check_port(settings.host, settings.port)
        url = claim.record.url
        on_all = " and all other addresses of this machine" if is_wildcard(settings.host) else ""
        console.print(
            f"[bold]TopFive[/] starts: fleet {escape(settings.fleet)}, device {settings.device}, {escape(url)}{on_all}"
        )
        if connections < MOST_CONNECTIONS:
            console.print(f"  at most {connections:,} connections at once: the limit on open files (ulimit -n) is low")
        driver = _start_driver(settings, claim, fleet)
        models = _wait_until_ready(url, driver, console, claim.record.run_id)
        console.print(_table(models))
        _print_ready(url, models, settings, time.monotonic() - started, console)
        _watch(driver, claim, ("gcs_server", "raylet") if fleet.ray else ())
    except _StopSignal:
        console.print("stopping: running requests are answered first")
    except StartError as error:
        # After any other StartError there is no driver left that could stop in order.
        in_order = isinstance(error, NothingLoadedError)
        raise
    finally:
        signals.hold()
        _stop(driver, claim, in_order=in_order)
        signals.restore()
    console.print("stopped")


def _start_driver(settings: Settings, claim: Claim, fleet: Fleet) -> subprocess.Popen[str]:
    environment = {**os.environ, RUN_ID: claim.record.run_id}
    module = "service.cluster.driver" if fleet.ray else "service.solo.driver"
    command = [sys.executable, "-m", module, str(claim.folder)]
    driver = subprocess.Popen(  # noqa: S603 - our own module
        command, stdin=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )
    claim.set_driver(driver.pid)
    assert driver.stdin is not None
    driver.stdin.write(settings.model_dump_json() + "\n")
    driver.stdin.flush()
    return driver


def _watch(driver: subprocess.Popen[str], claim: Claim, daemons: Sequence[str]) -> NoReturn:
    """Waits for a signal, or until a process dies that nothing replaces.

    Args:
        driver: the driver.
        claim: the service's.
        daemons: names of Ray's processes that Ray cannot replace.

    Raises:
        StartError: the driver, Ray's control store (gcs_server) or its node daemon (raylet) has died. Replicas would
            go on answering for a while, but Ray would not replace one that dies.
    """
    found = {_name(process): process for process in of_run(claim.record.run)}
    logs = "the lines above may say why"
    if daemons:
        logs = f"its log files are in {ray_folder() / 'session_latest' / 'logs'}"
    touch_at = time.monotonic() + _TOUCH_EVERY_S
    while driver.poll() is None:
        for name in daemons:
            if name not in found or _name(found[name]) != name:
                raise StartError(f"Ray's {name} has died; {logs}")
        if time.monotonic() >= touch_at:
            claim.touch()
            touch_at += _TOUCH_EVERY_S
        time.sleep(0.5)
    whose = "Ray's" if daemons else "the service's"
    raise StartError(f"{whose} driver (pid {driver.pid}) has died; {logs}")


def _name(process: psutil.Process) -> str:
    """The name of a living process; empty for one that has died."""
    with suppress(psutil.Error):
        if is_living(process):
            return process.name()
    return ""


def _stop(driver: subprocess.Popen[str] | None, claim: Claim, *, in_order: bool) -> None:
    """Lets the driver stop in order if it can, then ends every process that is left of the run."""
    if in_order and driver is not None and driver.poll() is None:
        claim.mark_stopping()
        assert driver.stdin is not None
        driver.stdin.close()
        try:
            driver.wait(_STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            driver.kill()
            driver.wait()
    end_run(claim.record.run, patience_s=0.2)
    # Replicas that are killed leave their files in the temporary folder.
    clear_unused_graphs()
    if driver is not None:
        driver.wait()
    claim.release()


def _check_port(host: str, port: int) -> None:
    """Raises StartError if the host is not an address of this machine, or another program listens there."""
    try:
        found = addresses(host)
    except NotOurAddressError as error:
        raise StartError(f"--host {error}") from error
    for address in found:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise StartError(f"{host}:{port} cannot be served on: {error.strerror}") from error
                holder = holder_of(address, port)
                raise StartError(f"port {port} is held by {holder}; choose another with --port") from error


def _check_authentication() -> None:
    """Raises StartError if Ray would obey anybody. Its replicas listen on all addresses and run whatever they are sent:
    by default only for callers who have its token."""
    mode = os.environ.get("RAY_AUTH_MODE")
    if mode is not None and mode.lower() != "token":
        raise StartError(
            f"RAY_AUTH_MODE={mode} would let anybody who reaches this machine run programs here; unset it, or set it "
            "to token"
        )


def _check_open_files() -> int:
    """How many connections the limit on open files allows. Raises StartError if they are too few."""
    connections = most_connections()
    if connections < _FEWEST_CONNECTIONS:
        raise StartError("the hard limit on open files is too low to serve; raise it (ulimit -Hn 4096, or more)")
    return connections


class _StopSignal(BaseException):
    """SIGINT or SIGTERM as an exception in the main thread, which interrupts a start at any point."""


class _Signals:
    """Turns the first SIGINT or SIGTERM into _StopSignal. Later ones are ignored: the service is stopping already."""

    def __init__(self) -> None:
        self._held = False
        self._before = {n: signal.signal(n, self._on_signal) for n in (signal.SIGINT, signal.SIGTERM)}

    def hold(self) -> None:
        """Ignores signals from now on."""
        self._held = True

    def restore(self) -> None:
        """Restores the handlers that were set before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if not self._held:
            self._held = True
            raise _StopSignal


def _wait_until_ready(url: str, driver: subprocess.Popen[str], console: Console, run_id: str) -> list[dict[str, Any]]:
    """Polls /readyz, prints what is being loaded, and returns the rows of /models.

    Raises:
        StartError: the driver has ended, or the service was not ready in time.
        NothingLoadedError: every load has failed.
    """
    give_up = time.monotonic() + _READY_WITHIN_S
    said = ""
    # The service is on this machine, so a proxy that the environment names is not asked (trust_env).
    headers = {"Authorization": f"Bearer {own_key(run_id)}"}
    with httpx.Client(base_url=url, headers=headers, timeout=10, trust_env=False) as client:
        while time.monotonic() < give_up:
            if driver.poll() is not None:
                raise StartError("the service could not start; the lines above say why")
            answer = _get(client, "/readyz")
            if answer is not None and answer.status_code == 200:
                rows: list[dict[str, Any]] = client.get("/models").json()["models"]
                return rows
            problem = answer.json() if answer is not None and _is_json(answer) else {}
            detail = problem.get("detail", "")
            if problem.get("type") in _NOTHING_LOADED:
                raise NothingLoadedError(detail)
            if detail and detail != said:
                console.print(f"  {escape(detail)}")
                said = detail
            time.sleep(0.2)
    raise StartError(f"not ready within {_READY_WITHIN_S:.0f} s: {said or 'no answer'}")


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
        if row.get("failure"):
            table.add_row("  [red]not loaded[/]", row["name"], "", f"[dim]{escape(row['failure'])}[/]")
            continue
        colour, state = {"ready": ("green", "ready")}.get(row["state"], ("red", "not loaded"))
        if _on_demand(row):
            colour, state = "cyan", "on demand"
        top1 = "" if row["top1"] is None else f"{row['top1']:.2f} %"
        table.add_row(f"  [{colour}]{state}[/]", row["name"], top1, f"[dim]{escape(row['origin'])}[/]")
    return table


def _on_demand(row: dict[str, Any]) -> bool:
    """Whether the network is only not in memory. One with damaged weights has no footprint, or a failure."""
    return row["state"] == "loadable" and row["footprint_mb"] is not None and not row.get("failure")


def _print_ready(url: str, models: list[dict[str, Any]], settings: Settings, seconds: float, console: Console) -> None:
    ready = [row for row in models if row["state"] == "ready"]
    console.print(
        f"[bold green]ready[/] in {seconds:.1f} s: {len(ready)} of {len(models)} networks, {escape(url)}/docs"
    )
    if not ready and not any(row["state"] == "loadable" for row in models):
        console.print(
            "[yellow]nothing can be served yet[/]: no network of this fleet has weights; the table says how to get them"
        )
    waiting = sum(_on_demand(row) for row in models)
    if waiting:
        console.print(f"  {waiting} more are loaded when a request needs them; they do not fit into memory all at once")
    if settings.untrained:
        console.print("[yellow]untrained[/]: the weights are random; every answer says so")
    sizes = [row["download_mb"] for row in models if row["download_mb"]]
    if sizes:
        console.print(f"  topfive pull --all fetches the missing weights: {len(sizes)} files, {sum(sizes):,.0f} MB")
    if ready:
        photographs = any(row["labels"] != "mnist" for row in ready)
        picture, query = ("airplane", "") if photographs else ("digit", "?labels=mnist")
        console.print(
            f"  try: curl --data-binary @docs/images/{picture}.png '{escape(url)}/classify{query}'", highlight=False
        )
    console.print("  Ctrl-C stops it")
