"""Drains HAProxy: turns new requests away with an answer, waits for the running ones, and closes the port without
resetting a connection.

Serve stops HAProxy less gently: it removes the route, so that callers get 404, and then kills HAProxy, which cuts all
connections. The driver drains HAProxy before that, so that no caller notices.
"""

from __future__ import annotations

import array
import contextlib
import os
import signal
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

from service.lifecycle.handshakes import HANDSHAKES_S, ignore_new
from service.lifecycle.haproxy import ADMIN_SOCKET, CLOSED, STOPPING, STOPPING_LINE

#: Substrings of a line of HAProxy's ``show sess``: any request; a request bound for a replica.
_FRONTEND, _BACKENDS = "fe=http_frontend ", "be=http-"

_LOOK_EVERY_S = 0.05
_ANSWER_WITHIN_S = 1.0
#: HAProxy sends at most this many descriptors in a message.
_MOST_DESCRIPTORS = 252


class Draining:
    """Drains the HAProxy of a service, step by step. No step fails if HAProxy has died or Serve starts another one
    meanwhile.

    Args:
        folder: the service's folder, already marked as stopping.
        port: the service's port.
    """

    def __init__(self, folder: Path, port: int) -> None:
        self._folder = folder
        self._port = port
        self._running: dict[int, _Haproxy] = {}

    def __enter__(self) -> Draining:
        return self

    def __exit__(self, *_error: object) -> None:
        for haproxy in self._running.values():
            haproxy.close()

    def wait(self, *, at_least_s: float, until: float) -> None:
        """Turns new requests away until the running ones are answered.

        Args:
            at_least_s: the minimum time, so that load balancers and clients with open connections notice.
            until: monotonic time at which this returns even if requests are still running.
        """
        enough = time.monotonic() + at_least_s
        while (now := time.monotonic()) < until:
            self._turn_away()
            if now >= enough and not self._has_requests(_BACKENDS):
                return
            time.sleep(_LOOK_EVERY_S)

    def close(self) -> None:
        """Closes the port: new connections are refused, and HAProxy goes on with those that it has.

        Closing a port resets the connections that the kernel has established and HAProxy has not accepted yet. So the
        kernel drops new handshakes for a moment, in which HAProxy accepts what is queued. A client whose handshake is
        dropped repeats it after a second, as TCP does, and is then refused.
        """
        with contextlib.suppress(OSError):  # somebody has removed the folder
            (self._folder / CLOSED).touch()
        self._turn_away()
        listeners = [listener for admin in self._admins() for listener in _listeners(admin, self._port)]
        if sum(ignore_new(listener) for listener in listeners):
            time.sleep(HANDSHAKES_S)
        for pid in self._running:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGUSR1)
        for listener in listeners:
            listener.close()

    def wait_for_last(self, until: float) -> None:
        """Waits, after ``close``, for clients that are turned away and are still sending.

        Args:
            until: monotonic time at which this returns in any case.
        """
        while time.monotonic() < until and self._has_requests(_FRONTEND):
            time.sleep(_LOOK_EVERY_S)

    def _admins(self) -> Iterator[Path]:
        return self._folder.glob(f"*/{ADMIN_SOCKET}")

    def _turn_away(self) -> None:
        """Tells each HAProxy that has not been told yet that the service stops."""
        for admin in self._admins():
            with contextlib.suppress(OSError, ValueError):
                haproxy = _Haproxy(admin)
                if haproxy.pid in self._running:
                    haproxy.close()
                else:
                    haproxy.ask(f"add acl {self._folder / STOPPING} {STOPPING_LINE}")
                    self._running[haproxy.pid] = haproxy

    def _has_requests(self, where: str) -> bool:
        """Whether HAProxy has unanswered requests there."""
        for haproxy in self._running.values():
            with contextlib.suppress(OSError):
                if f" {where}" in haproxy.ask("show sess"):
                    return True
        return False


class _Haproxy:
    """A running HAProxy, over its admin socket. The connection is kept open: HAProxy accepts no new ones once it ends.

    Raises:
        OSError: HAProxy is not there. Every method raises it too, once HAProxy has ended.
        ValueError: it does not tell its process id.
    """

    def __init__(self, admin: Path) -> None:
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.settimeout(_ANSWER_WITHIN_S)
        try:
            self._connection.connect(str(admin))
            self.ask("prompt")
            numbers = [line.split()[1] for line in self.ask("show info").splitlines() if line.startswith("Pid: ")]
            (self.pid,) = map(int, numbers)
        except (OSError, ValueError):
            self.close()
            raise

    def ask(self, command: str) -> str:
        """Sends a command and returns HAProxy's answer."""
        self._connection.sendall(f"{command}\n".encode())
        answer = b""
        while not answer.endswith(b"\n> "):
            part = self._connection.recv(65536)
            if not part:
                raise ConnectionResetError("HAProxy has ended")
            answer += part
        return answer.decode(errors="replace")

    def close(self) -> None:
        self._connection.close()


def _listeners(admin: Path, port: int) -> list[socket.socket]:
    """Duplicates of the sockets on which HAProxy listens on a port. HAProxy sends them as it does to its successor at a
    reload, and goes on listening."""
    size = array.array("i").itemsize
    found: list[socket.socket] = []
    with contextlib.suppress(OSError, struct.error), socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_ANSWER_WITHIN_S)
        connection.connect(str(admin))
        connection.sendall(b"_getsocks\n")
        (expected,) = struct.unpack("i", connection.recv(size))
        received = 0
        while received < expected:
            # The message also describes the descriptors, which is not needed here.
            _, descriptors, _, _ = socket.recv_fds(connection, 65536, _MOST_DESCRIPTORS)
            if not descriptors:
                break
            received += len(descriptors)
            connection.sendall(struct.pack("i", received))
            for listener in (socket.socket(fileno=descriptor) for descriptor in descriptors):
                if listener.family in (socket.AF_INET, socket.AF_INET6) and listener.getsockname()[1] == port:
                    found.append(listener)
                else:
                    listener.close()
    return found
