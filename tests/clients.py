"""Clients that keep sending requests while a service stops, and the outcomes of their requests."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from types import TracebackType
from urllib.parse import urlsplit


class Callers:
    """Threads that post a body again and again, some over a new connection each time, some over one that they keep.

    Args:
        url: where they post it.
        body: what they post.
        closing: the number of threads that open a new connection each time.
        keeping: the number of threads that keep theirs.
    """

    def __init__(self, url: str, body: bytes, *, closing: int = 8, keeping: int = 4) -> None:
        parts = urlsplit(url)
        self._host, self._port = str(parts.hostname), parts.port
        self._path = parts._replace(scheme="", netloc="").geturl()
        self._body = body
        self._over = threading.Event()
        self.outcomes: Counter[str] = Counter()
        """How often each outcome occurred: a status, ``refused`` for a connection, or what went wrong."""
        kinds = [False] * closing + [True] * keeping
        self._threads = [threading.Thread(target=self._call, args=(keep,)) for keep in kinds]

    def __enter__(self) -> Callers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _call(self, keep: bool) -> None:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=20)
        while not self._over.is_set():
            outcome = self._post(connection, keep)
            self.outcomes[outcome] += 1
            if outcome == "refused":
                time.sleep(0.02)
        connection.close()

    def _post(self, connection: http.client.HTTPConnection, keep: bool) -> str:
        try:
            if connection.sock is None:
                connection.connect()
        except ConnectionRefusedError:
            return "refused"
        except OSError as error:
            return f"no connection: {type(error).__name__}"
        try:
            connection.request("POST", self._path, self._body, {} if keep else {"Connection": "close"})
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            return f"no answer: {type(error).__name__}"
        if answer.status == 503 and not _is_farewell(answer, content):
            return f"incomplete 503: {answer.getheaders()}"
        if not keep:
            connection.close()
        return str(answer.status)


def _is_farewell(answer: http.client.HTTPResponse, content: bytes) -> bool:
    """Whether a 503 is a problem document with a Retry-After and closes the connection."""
    if answer.headers["Content-Type"] != "application/problem+json" or json.loads(content).get("status") != 503:
        return False
    return "Retry-After" in answer.headers and answer.will_close
