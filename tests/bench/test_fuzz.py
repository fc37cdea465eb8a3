"""The fuzzer: what it takes for a failure, and a short run of it against the service without sockets."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from fuzz import Answer, Sender, Stream, Watched, compared, judged, replay
from mutations import Request, request

from tests.fakes import Fakes

PROBLEM = {"content-type": "application/problem+json"}
ASKED = Request("POST", "/classify", (), b"")
DAMAGED = Request("POST", "/classify", (), b"", head=b"x")
ROOT = Path(__file__).parents[2]


async def test_no_request_is_answered_with_500_and_every_refusal_is_a_problem(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As ``fuzz.py`` does, without a socket: what is no HTTP is left out."""
    fakes = Fakes(tmp_path)
    fakes.loadable = {"lenet5@mnist", "googlenet@cifar10"}
    seen: Counter[int] = Counter()
    async with fakes.app() as app:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=("127.0.0.1", 1))
        async with httpx.AsyncClient(transport=transport) as client:
            for number in range(500):
                asked = request(19, number)
                if asked.is_http:
                    answer = await sent(client, asked)
                    seen[answer.status] += 1
                    assert judged(asked, answer) == "", (number, answer)
    assert "Traceback" not in caplog.text
    assert {200, 400, 404, 405, 422} <= seen.keys()


async def sent(client: httpx.AsyncClient, asked: Request) -> Answer:
    headers = [(name, value) for name, value in asked.headers if name != b"Transfer-Encoding"]
    url = httpx.URL("http://localhost").copy_with(raw_path=asked.target.encode("latin-1"))
    made = httpx.Request(asked.method, url, headers=[(b"Host", b"localhost"), *headers], content=asked.body)
    answer = await client.send(made)
    return Answer(answer.status_code, dict(answer.headers), answer.content)


@pytest.mark.parametrize(
    ("asked", "answer", "why"),
    [
        (ASKED, Answer(200, {}, b"anything"), ""),
        (ASKED, Answer(307, {}, b""), ""),
        (ASKED, Answer(422, PROBLEM, b'{"type": "/problems/x", "status": 422}'), ""),
        (ASKED, Answer(503, PROBLEM, b'{"type": "/problems/x", "status": 503}'), ""),
        (ASKED, Answer(500, PROBLEM, b'{"type": "/problems/x", "status": 500}'), "answered 500"),
        (ASKED, Answer(502, PROBLEM, b""), "answered 502"),
        (ASKED, Answer(501, PROBLEM, b""), "answered 501"),
        (ASKED, Answer(404, {"content-type": "text/html"}, b"<html>"), "404 without a problem document"),
        (ASKED, Answer(404, PROBLEM, b"<html>"), "a problem document that is not JSON"),
        (ASKED, Answer(404, PROBLEM, b'{"type": "/problems/x", "status": 400}'), "another status"),
        (ASKED, Answer(404, PROBLEM, b'{"status": 404}'), "another status"),
        (Request("HEAD", "/", (), b""), Answer(404, {}, b""), ""),
        (DAMAGED, Answer(400, {}, b"<html>"), ""),
        (DAMAGED, Answer(501, {}, b"<html>"), ""),
        (DAMAGED, Answer(500, {}, b""), "answered 500"),
    ],
)
def test_what_is_wrong_with_an_answer(asked: Request, answer: Answer, why: str) -> None:
    found = judged(asked, answer)
    assert why in found
    assert bool(found) == bool(why)


@pytest.mark.parametrize(
    ("after", "wrong"),
    [
        ({(1, "a"): 100.0, (2, "b"): 50.0}, []),
        ({(1, "a"): 104.9, (2, "b"): 40.0}, []),
        ({(1, "a"): 105.1, (2, "b"): 50.0}, ["process 1 (a) grew from 100.0 to 105.1 MB"]),
        # Pages come and go: a small process may gain some.
        ({(1, "a"): 100.0, (2, "b"): 53.9}, []),
        ({(1, "a"): 100.0}, ["process 2 (b) ended"]),
        ({(1, "a"): 100.0, (2, "b"): 50.0, (3, "c"): 1.0}, ["process 3 (c) is new"]),
    ],
)
def test_processes_that_grew_ended_or_are_new(after: dict[tuple[int, str], float], wrong: list[str]) -> None:
    small, warm = {(1, "a"): 60.0, (2, "b"): 50.0}, {(1, "a"): 100.0, (2, "b"): 50.0}
    # What was there after the warm-up and before the end is printed alone.
    assert compared([small, warm, small, {(1, "a"): 900.0}, after], 0.05) == wrong


@asynccontextmanager
async def served(answer: bytes) -> AsyncIterator[int]:
    """A server that answers every request with the same bytes and closes; yields its port."""

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(one, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize(
    ("sent", "status", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", 200, b"hi"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", 404, b""),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n1\r\n!\r\n0\r\n\r\n", 200, b"hi!"),
        (b"HTTP/1.0 400 Bad\r\nConnection: close\r\n\r\nto the end", 400, b"to the end"),
    ],
)
async def test_answers_are_read(sent: bytes, status: int, body: bytes) -> None:
    async with served(sent) as port:
        stream = await Stream.open("127.0.0.1", port)
        answer = await stream.ask(ASKED)
        stream.close()
    assert (answer.status, answer.body) == (status, body)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi", b"nonsense\r\n\r\n"])
async def test_no_answer_is_a_failure_that_can_be_replayed(answer: bytes, tmp_path: Path) -> None:
    asked = next(number for number in range(99) if request(3, number).is_http)
    async with served(answer) as port:
        sender = Sender("127.0.0.1", port, 3, tmp_path)
        sender._next = asked
        await sender.send(asked + 1, asyncio.get_running_loop().time() + 60)
    assert sender.found.sent == len(sender.found.failed) == 1
    assert (tmp_path / f"3-{asked}.http").read_bytes() == request(3, asked).raw()


async def test_every_request_is_sent_once(tmp_path: Path) -> None:
    problem = b'{"type": "/problems/x", "status": 404}'
    head = b"HTTP/1.1 404 Not Found\r\ncontent-type: application/problem+json\r\nContent-Length: %d\r\n\r\n" % len(
        problem
    )
    async with served(head + problem) as port:
        sender = Sender("127.0.0.1", port, 5, tmp_path)
        await sender.send(40, asyncio.get_running_loop().time() + 60)
    assert sender.found.sent == 40
    assert sender.found.failed == []


@pytest.mark.slow
@pytest.mark.service
@pytest.mark.parametrize("fleet", ["solo", "local"])
def test_a_short_run_against_the_service(fleet: str, tmp_path: Path) -> None:
    """Memory is not judged: caches fill up in the first thousands of requests."""
    command = [sys.executable, ROOT / "bench" / "fuzz.py", "--fleet", fleet, "--requests", "600", "--seed", "19"]
    run = subprocess.run(
        [*command, "--growth", "9", "--failures", tmp_path], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "nothing failed" in run.stdout


def test_a_request_that_failed_is_sent_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Echo(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(418)
            self.end_headers()
            self.wfile.write(self.path.encode() + b" " + body)

        def log_message(self, *_: object) -> None:
            pass

    file = tmp_path / "3-1.http"
    file.write_bytes(Request("POST", "/classify?k=1", ((b"Content-Length", b"3"),), b"abc").raw())
    with ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        threading.Thread(target=server.serve_forever).start()
        replay(file, f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
    printed = capsys.readouterr().out
    assert printed.startswith("418")
    assert "/classify?k=1 abc" in printed


def test_tracebacks_in_the_logs_of_processes_are_found(tmp_path: Path) -> None:
    """Only those that were written since the logs were noted."""
    code = "import sys, traceback\nfor line in sys.stdin:\n  print(line, flush=True)\n"
    with (tmp_path / "a.log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=log, text=True)
    assert process.stdin is not None
    watched = Watched(process.pid)
    for said, found in (("Traceback (most recent call last): old", False), ("all is well", False)):
        process.stdin.write(said + "\n")
        process.stdin.flush()
        while said not in (tmp_path / "a.log").read_text():
            time.sleep(0.01)
        assert watched.logs() == 1
        assert bool(watched.tracebacks()) is found
    process.stdin.write("Traceback (most recent call last): new\n")
    process.stdin.close()
    process.wait(30)
    (line,) = watched.tracebacks()
    assert "a.log" in line
    assert line.endswith("new\n\n")
