"""The driver of a service without Ray. The supervisor runs it as ``python -m service.solo.driver FOLDER``.

It opens the port, starts the device owner and the fronts, which share the port, and replaces each that dies. The
supervisor controls it by its standard input: the first line holds the settings, the end of the file means stop.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from service.config.capacity import Machine, fronts_of, with_device
from service.config.fleet import Deployment, Fleet, load_fleet
from service.config.listening import addresses
from service.config.settings import Settings
from service.lifecycle.handshakes import HANDSHAKES_S, ignore_new
from service.link.sockets import FOLDER

_BACKLOG = 2048
#: A process that dies is replaced at once; one that dies again within ``_SOON_S`` waits, twice as long each time.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S, _SOON_S = 0.1, 10.0, 30.0
_LOOK_EVERY_S = 0.1
#: How long a stop turns requests away before it closes the port; waits for fronts to answer what is running; and for
#: owners to end.
_TURN_AWAY_S, _ANSWER_WITHIN_S, _END_WITHIN_S = 1.0, 6.0, 1.5


class Worker:
    """A process that is replaced when it dies.

    Args:
        role: ``owner``, ``front`` or ``whole``.
        number: of its role.
        folder: the service's.
        settings: what it is told: settings, deployment, and descriptors of the listening sockets.
        listeners: these descriptors.
    """

    def __init__(self, role: str, number: int, folder: Path, settings: str, listeners: Sequence[int]) -> None:
        self.role = role
        self._command = [sys.executable, "-m", "service.solo.process", role, str(folder), str(number)]
        self._settings = settings
        self._listeners = listeners
        self._process: subprocess.Popen[str] | None = None
        self._started = 0.0
        self._pause_s = 0.0
        self._start_at = 0.0

    def look(self, now: float) -> None:
        """Starts the process if it does not run, unless it has died too often."""
        if self._process is not None and self._process.poll() is None:
            return
        if self._process is not None:
            lived_s = now - self._started
            again = min(_LONGEST_PAUSE_S, max(_FIRST_PAUSE_S, 2 * self._pause_s))
            self._pause_s = 0.0 if lived_s > _SOON_S else again
            self._start_at = now + self._pause_s
            _say(f"a process ended ({self.role}, status {self._process.returncode}) and is replaced")
            self._process = None
        if now >= self._start_at:
            self._start(now)

    def _start(self, now: float) -> None:
        self._started = now
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            self._command, stdin=subprocess.PIPE, text=True, pass_fds=self._listeners
        )
        assert self._process.stdin is not None
        with suppress(OSError):  # it has died already
            self._process.stdin.write(self._settings + "\n")
            self._process.stdin.close()

    def end(self) -> None:
        """Asks the process to end."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def wait(self, until: float) -> None:
        """Waits for the process to end, and kills it if it has not ended by then."""
        if self._process is None:
            return
        try:
            self._process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def main() -> None:
    """Starts the service, waits for the end of standard input, and stops the service."""
    settings = Settings.model_validate_json(sys.stdin.readline())
    folder = Path(sys.argv[1])
    machine = Machine.this()
    fleet = with_device(load_fleet(settings.fleet), settings.device, machine)
    told = threading.Event()
    threading.Thread(target=_wait_until_told, args=(told,), daemon=True).start()
    listeners = listening(settings.host, settings.port)
    (folder / FOLDER).mkdir(exist_ok=True)
    workers = workers_of(settings, fleet, fronts_of(fleet, machine), folder, listeners)
    while not told.is_set():
        for worker in workers:
            worker.look(time.monotonic())
        told.wait(_LOOK_EVERY_S)
    stop(workers, listeners)


def listening(host: str, port: int) -> list[socket.socket]:
    """Sockets that listen on a port of all addresses of a host."""
    found = []
    for address in addresses(host):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # The wildcard of IPv6 covers IPv4 too, as behind Ray Serve.
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(address != "::"))
        listener.bind((address, port))
        listener.listen(_BACKLOG)
        found.append(listener)
    return found


def workers_of(
    settings: Settings, fleet: Fleet, fronts: int, folder: Path, listeners: Sequence[socket.socket]
) -> list[Worker]:
    """The processes of a fleet, device owners first."""
    (deployment,) = fleet.deployment
    descriptors = [listener.fileno() for listener in listeners]

    def worker(role: str, number: int, device: str, shared: Sequence[int]) -> Worker:
        told = {
            "settings": settings.model_copy(update={"device": device}).model_dump(mode="json"),
            "deployment": deployment.model_dump(),
            "listeners": shared,
            "fronts": fronts,
        }
        return Worker(role, number, folder, json.dumps(told), shared)

    if not fronts:
        return [worker("whole", 0, settings.device, descriptors)]
    owners = [worker("owner", n, _device(settings, deployment, n), ()) for n in range(deployment.replicas)]
    return owners + [worker("front", number, "cpu", descriptors) for number in range(fronts)]


def _device(settings: Settings, deployment: Deployment, number: int) -> str:
    """The device of an owner. Several owners divide the GPUs: each has ``num_gpus`` of them, or a part of one."""
    if deployment.replicas == 1 or not deployment.num_gpus or settings.device == "cpu":
        return settings.device
    return f"cuda:{int(number * deployment.num_gpus)}"


def stop(workers: Sequence[Worker], listeners: Sequence[socket.socket]) -> None:
    """Stops the service: the fronts turn new requests away, the port closes, running requests are answered, and then
    the owners end."""
    time.sleep(_TURN_AWAY_S)
    if sum([ignore_new(listener) for listener in listeners]):
        time.sleep(HANDSHAKES_S)
    fronts = [worker for worker in workers if worker.role != "owner"]
    for some, within_s in ((fronts, _ANSWER_WITHIN_S), (workers, _END_WITHIN_S)):
        for worker in some:
            worker.end()
        for listener in listeners:
            listener.close()
        until = time.monotonic() + within_s
        for worker in some:
            worker.wait(until)


def _wait_until_told(told: threading.Event) -> None:
    """Waits for the end of standard input. Not by sys.stdin, whose lock this thread would hold at the end."""
    while os.read(0, 1024):
        pass
    told.set()


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    main()
