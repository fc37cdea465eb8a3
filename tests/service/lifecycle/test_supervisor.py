"""What a start says when there is nothing to serve, and when not everything could be loaded."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from rich.console import Console

from service.config.settings import Settings
from service.domain.errors import LoadFailedError, NotReadyError, failure_of, problem_document
from service.lifecycle import supervisor
from service.lifecycle.supervisor import NothingLoadedError


@contextmanager
def service(*readyz: tuple[int, dict[str, Any]], models: list[dict[str, Any]]) -> Iterator[str]:
    """Answers /readyz with these in turn, the last for ever, and /models."""
    turns = list(readyz)

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, document = (
                (turns.pop(0) if len(turns) > 1 else turns[0])
                if self.path == "/readyz"
                else (
                    200,
                    {"models": models},
                )
            )
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/problem+json" if status != 200 else "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def driver() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, text=True)
    yield process
    process.communicate("\n")


def row(name: str, state: str = "ready", **fields: Any) -> dict[str, Any]:
    values = {"top1": 50.0, "origin": "a test", "mend": None, "footprint_mb": 1.0, "failure": None, "download_mb": None}
    return {"name": name, "state": state, "labels": "cifar10", **values, **fields}


NOT_YET = (503, problem_document(failure_of(NotReadyError("loading lenet5@mnist"))))
READY = (200, {"status": "ready"})


def told(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=200)


@pytest.mark.parametrize("slug", [None, "out-of-memory", "weights-damaged"])
def test_a_start_ends_where_nothing_could_be_loaded_and_says_why(
    slug: str | None, driver: subprocess.Popen[str], console: Console
) -> None:
    nothing = problem_document(failure_of(LoadFailedError("none of the 18 networks could be loaded: full", 1.0, slug)))
    with service(NOT_YET, (503, nothing), models=[]) as url, pytest.raises(NothingLoadedError) as caught:
        supervisor._wait_until_ready(url, driver, console)
    assert str(caught.value) == "none of the 18 networks could be loaded: full"
    assert "loading lenet5@mnist" in told(console)


def test_a_start_goes_on_as_long_as_something_is_still_being_loaded(
    driver: subprocess.Popen[str], console: Console
) -> None:
    with service(NOT_YET, NOT_YET, READY, models=[row("lenet5@mnist")]) as url:
        assert supervisor._wait_until_ready(url, driver, console) == [row("lenet5@mnist")]


def test_what_could_not_be_loaded_is_a_line_with_its_reason(console: Console) -> None:
    rows = [
        row("lenet5@mnist"),
        row("vgg16@imagenet1k", "loadable", failure="no disk has room"),
        row("nin", "loadable"),
    ]
    console.print(supervisor._table(rows))
    lines = [line.split() for line in told(console).splitlines()]
    assert lines[0][:2] == ["ready", "lenet5@mnist"]
    assert lines[1] == ["not", "loaded", "vgg16@imagenet1k", "no", "disk", "has", "room"]
    assert lines[2][:3] == ["on", "demand", "nin"]


def test_where_no_network_has_weights_the_start_says_that_nothing_can_be_served(console: Console) -> None:
    for rows, says in (
        ([row("vgg16", "weights missing")], True),
        ([row("vgg16", "loadable")], False),
        ([row("a")], False),
    ):
        console.file = io.StringIO()
        supervisor._print_ready("http://here", rows, Settings(), 1.0, console)
        assert ("nothing can be served yet" in told(console)) == says
