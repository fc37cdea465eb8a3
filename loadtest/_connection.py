"""A user's connection, kept alive between requests: geventhttpclient's sockets and parser without its client.

The client merges and checks the headers twice for each request and copies the body, which was a fifth of the load
generator's time. Here the head is written directly.
"""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

from geventhttpclient.connectionpool import ConnectionPool, SSLConnectionPool
from geventhttpclient.response import HTTPConnectionClosed, HTTPParseError, HTTPSocketPoolResponse

#: What :meth:`Connection.post` raises if there was no response.
FAILURES = (OSError, HTTPParseError)
_BLOCK = 65536


class _Sockets(ConnectionPool):
    """Sockets that send the last bytes of a body at once, without waiting for an acknowledgement of the first."""

    def after_connect(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class _TlsSockets(_Sockets, SSLConnectionPool):
    """The same sockets with TLS."""


class Connection:
    """A connection that is opened by the first request, and again by the next one after it broke.

    Args:
        host: the URL of the service.
        authorization: the value of the header ``Authorization``, or None.
        timeout_s: the limit for connecting and for each wait between bytes of a response.
    """

    def __init__(self, host: str, authorization: str | None, timeout_s: float) -> None:
        parts = urlsplit(host)
        tls = parts.scheme == "https"
        name, port = parts.hostname or "", parts.port or (443 if tls else 80)
        kind = _TlsSockets if tls else _Sockets
        self._pool = kind(name, port, name, port, size=1, connection_timeout=timeout_s, network_timeout=timeout_s)
        self._prefix = parts.path.rstrip("/")
        head = f"Host: {parts.netloc.rpartition('@')[2]}\r\nUser-Agent: topfive-loadtest\r\nAccept: */*\r\n"
        self._head = head + ("" if authorization is None else f"Authorization: {authorization}\r\n")

    def post(self, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        """Sends a request and returns the response's status and body.

        Raises:
            OSError, HTTPParseError: there was no response, or it was not HTTP.
        """
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"POST {self._prefix}{path} HTTP/1.1\r\n{self._head}{lines}Content-Length: {len(body)}\r\n\r\n"
        sock = self._pool.get_socket()
        try:
            sock.sendall(head.encode("latin-1") + body)
        except BaseException:
            self._pool.release_socket(sock)
            raise
        response = HTTPSocketPoolResponse(sock, self._pool, block_size=_BLOCK, method="POST")
        return response.get_code(), bytes(response.read())


def reason(error: Exception) -> str:
    """Why there was no response, without addresses and numbers, so that equal failures are counted together."""
    match error:
        case ConnectionRefusedError():
            return "connection refused"
        case TimeoutError():
            return "timed out"
        case ConnectionError() | HTTPConnectionClosed():
            return "connection closed"
        case HTTPParseError():
            return "not HTTP"
        case socket.gaierror():
            return "no such host"
        case _:
            return getattr(error, "strerror", None) or type(error).__name__
