"""How HAProxy ends: new requests are turned away with an answer, running ones are answered, and the port is closed
without a reset.

Serve stops HAProxy by killing it, which cuts whatever is on its connections, and takes the route away before, which
answers 404. This is done first, so that neither meets anybody.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import os
import signal
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

from service.lifecycle.haproxy import ADMIN_SOCKET, CLOSED, STOPPING, STOPPING_LINE

#: Where HAProxy's list of what it is doing says that something is a request, and that a replica is to answer it.
_FRONTEND, _BACKENDS = "fe=http_frontend ", "be=http-"

_LOOK_EVERY_S = 0.05
_ANSWER_WITHIN_S = 1.0
#: For handshakes that have begun when the port stops taking new ones: a round trip, and HAProxy takes what is queued.
_HANDSHAKES_S = 0.25
#: Descriptors in one message, and the most that HAProxy sends at once.
_MOST_DESCRIPTORS = 252
_SO_ATTACH_FILTER = 26


class Draining:
    """The last seconds of a service's HAProxy. Each step does what it can: HAProxy may have died, and Serve may start
    another meanwhile.

    Args:
        folder: the service's own, where its mark of stopping is already.
        port: of the service.
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
            at_least_s: with nothing running too, so that clients with open connections hear of it, and balancers.
            until: monotonic time, for what runs.
        """
        enough = time.monotonic() + at_least_s
        while (now := time.monotonic()) < until:
            self._turn_away()
            if now >= enough and not self._has_requests(_BACKENDS):
                return
            time.sleep(_LOOK_EVERY_S)

    def close(self) -> None:
        """Refuses connections from here on. HAProxy goes on for those it has.

        Closing a port resets the connections that the kernel has made and HAProxy has not taken yet. So new ones are
        ignored for a moment, while HAProxy takes what is there; who tries in that moment tries again after a second,
        as TCP does, and is refused.
        """
        with contextlib.suppress(OSError):  # somebody has removed the folder
            (self._folder / CLOSED).touch()
        self._turn_away()
        listeners = [listener for admin in self._admins() for listener in _listeners(admin, self._port)]
        if sum(_ignore_new(listener) for listener in listeners):
            time.sleep(_HANDSHAKES_S)
        for pid in self._running:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGUSR1)
        for listener in listeners:
            listener.close()

    def wait_for_last(self, until: float) -> None:
        """Waits, once the port is closed, for those that are turned away and are still sending.

        Args:
            until: monotonic time.
        """
        while time.monotonic() < until and self._has_requests(_FRONTEND):
            time.sleep(_LOOK_EVERY_S)

    def _admins(self) -> Iterator[Path]:
        return self._folder.glob(f"*/{ADMIN_SOCKET}")

    def _turn_away(self) -> None:
        """Tells each HAProxy that does not know it that the service stops."""
        for admin in self._admins():
            with contextlib.suppress(OSError, ValueError):
                haproxy = _Haproxy(admin)
                if haproxy.pid in self._running:
                    haproxy.close()
                else:
                    haproxy.ask(f"add acl {self._folder / STOPPING} {STOPPING_LINE}")
                    self._running[haproxy.pid] = haproxy

    def _has_requests(self, where: str) -> bool:
        """Whether there are requests there that are not answered."""
        for haproxy in self._running.values():
            with contextlib.suppress(OSError):
                if f" {where}" in haproxy.ask("show sess"):
                    return True
        return False


class _Haproxy:
    """A running HAProxy, over a connection to its admin socket that is kept: it takes no new ones once it is to end.

    Raises:
        OSError: it is not there, or goes, here and in all that is asked of it.
        ValueError: it does not say who it is.
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
    """HAProxy's listening sockets of a port, which it hands out as it does to its own successor; they stay its own."""
    size = array.array("i").itemsize
    found: list[socket.socket] = []
    with contextlib.suppress(OSError, struct.error), socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_ANSWER_WITHIN_S)
        connection.connect(str(admin))
        connection.sendall(b"_getsocks\n")
        (expected,) = struct.unpack("i", connection.recv(size))
        received = 0
        while received < expected:
            # Beside the descriptors HAProxy describes them, which is not needed.
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


def _ignore_new(listener: socket.socket) -> bool:
    """Has the kernel drop what begins a connection to a listening socket; False where it cannot."""
    # Classic BPF on the TCP header: the byte of flags; with SYN nothing of the segment passes, without it all does.
    program = b"".join(
        struct.pack("HBBI", *instruction)
        for instruction in ((0x30, 0, 0, 13), (0x45, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))
    )
    buffer = ctypes.create_string_buffer(program)
    try:
        listener.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(program) // 8, ctypes.addressof(buffer))
        )
    except OSError:
        return False
    return True
