"""Fixtures that start the real HAProxy."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.haproxy_running import Replica, Running


@pytest.fixture
def replica() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Replica)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Running]]:
    started: list[Running] = []

    def starter(host: str = "127.0.0.1", *, replica: int | None) -> Running:
        folder = Path(f"/tmp/tf-{os.getpid()}-{len(started)}")  # short: a socket lies below
        folder.mkdir()
        started.append(Running(folder, host, replica=replica))
        started[-1].wait("127.0.0.1" if host in ("::", "0.0.0.0") else host)
        return started[-1]

    yield starter
    for running in started:
        running.end()
        for path in sorted(running.folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        running.folder.rmdir()
