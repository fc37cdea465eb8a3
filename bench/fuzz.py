"""A hundred thousand wrong requests: ``python bench/fuzz.py [--fleet solo] [--requests N] [--seed S] [--minutes M]``.

Starts a service, sends the requests of ``mutations.py`` from a few connections, and checks what may not happen whatever
a stranger sends: an answer of 500, no answer at all, a traceback in a log, a process that ended or grew. A request that
failed is written to a folder; ``--replay FILE`` sends one such file again. Exits with 1 if anything failed.

``--schema`` has schemathesis make requests from the service's /openapi.json as well, if it is installed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import httpx
import psutil
from damaged_pictures import corpus
from mutations import Request, request
from processes import Tree
from running import Service

CONNECTIONS = 6
#: Memory is looked at after each part of the requests, when nothing has been sent for a while: what decoding takes for
#: a moment does not count.
SAMPLES, WARM_SAMPLES, QUIET_S = 9, 3, 2.0
#: A bound on waiting, not a statement about speed.
ANSWER_WITHIN_S = 60.0
#: For a request that is no HTTP, and may wait for more.
DAMAGED_WITHIN_S = 3.0
#: Answers that say that the service has too much to do, or was told too short a time.
_BUSY = frozenset({503, 504})
_MB = 1e6
#: Resident memory in MB of processes, by their ids and what they are.
Memory: TypeAlias = dict[tuple[int, str], float]


@dataclass
class Found:
    """What a run has seen."""

    answers: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)
    sent: int = 0


class Sender:
    """Connections that send the requests of a seed and judge the answers.

    Args:
        host, port: where the service listens.
        seed: of the requests.
        failures: the folder for requests that failed.
    """

    def __init__(self, host: str, port: int, seed: int, failures: Path) -> None:
        self._host, self._port, self._seed, self._failures = host, port, seed, failures
        self.found = Found()
        self._next = 0

    async def send(self, until: int, give_up: float) -> None:
        """Sends the requests up to a number, unless the time is over before.

        Args:
            until: the number of the first request that is not sent.
            give_up: a time of ``time.monotonic()``.
        """
        await asyncio.gather(*(self._connection(until, give_up) for _ in range(CONNECTIONS)))

    async def _connection(self, until: int, give_up: float) -> None:
        stream: Stream | None = None
        while self._next < until and time.monotonic() < give_up:
            number, self._next = self._next, self._next + 1
            asked = request(self._seed, number)
            stream = await self._one(number, asked, stream)
        if stream is not None:
            stream.close()

    async def _one(self, number: int, asked: Request, stream: Stream | None) -> Stream | None:
        self.found.sent += 1
        reused = stream is not None
        try:
            if stream is None:
                stream = await Stream.open(self._host, self._port)
            answer = await stream.ask(asked)
        except (OSError, EOFError, ValueError, TimeoutError) as error:
            if stream is not None:
                stream.close()
            if reused:
                # The service may have closed a connection that nobody used.
                self.found.sent -= 1
                return await self._one(number, asked, None)
            if asked.is_http:
                self._fail(number, asked, f"no answer: {type(error).__name__} {error}")
            else:
                self.found.answers["no answer to what is no HTTP"] += 1
            return None
        self.found.answers[f"{answer.status} {asked.kind}"] += 1
        why = judged(asked, answer)
        if why:
            self._fail(number, asked, f"{why}: {answer.body[:300]!r}")
        if answer.closes or not asked.is_http:
            stream.close()
            return None
        return stream

    def _fail(self, number: int, asked: Request, why: str) -> None:
        self._failures.mkdir(parents=True, exist_ok=True)
        path = self._failures / f"{self._seed}-{number}.http"
        path.write_bytes(asked.raw())
        line = f"{path}: {asked.kind}, {asked.method} {asked.target[:80]}: {why}"
        self.found.failed.append(line)
        if len(self.found.failed) <= 20:
            print(line)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of HTTP/1.1."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def closes(self) -> bool:
        return self.headers.get("connection", "").lower() == "close"


def judged(asked: Request, answer: Answer) -> str:
    """What is wrong with an answer; "" if nothing is."""
    if answer.status >= 500 and answer.status not in _BUSY and not (answer.status == 501 and not asked.is_http):
        return f"answered {answer.status}"
    if not asked.is_http or asked.method == "HEAD" or answer.status < 400:
        return ""
    if not answer.headers.get("content-type", "").startswith("application/problem+json"):
        return f"{answer.status} without a problem document"
    try:
        problem = json.loads(answer.body)
    except ValueError:
        return "a problem document that is not JSON"
    return "" if problem.get("status") == answer.status and problem.get("type") else "a problem of another status"


class Stream:
    """One connection, which knows only as much of HTTP as reading answers takes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, host: str, port: int) -> Stream:
        return cls(*await asyncio.open_connection(host, port, limit=1 << 22))

    async def ask(self, asked: Request) -> Answer:
        """Raises OSError, EOFError, ValueError or TimeoutError if no answer comes."""
        within_s = ANSWER_WITHIN_S if asked.is_http else DAMAGED_WITHIN_S
        async with asyncio.timeout(within_s):
            answer = asyncio.ensure_future(self._answer(asked.method))
            try:
                self._writer.write(asked.raw())
                # An answer may come before the body is sent, and the connection be closed.
                with contextlib.suppress(ConnectionError):
                    await self._writer.drain()
                    if not asked.is_http:
                        self._writer.write_eof()
                return await answer
            finally:
                if not answer.done():
                    answer.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await answer

    def close(self) -> None:
        self._writer.close()

    async def _answer(self, method: str) -> Answer:
        while True:
            first = await self._reader.readuntil(b"\r\n")
            version, _, rest = first.partition(b" ")
            if not version.startswith(b"HTTP/1."):
                raise ValueError(f"no answer of HTTP: {first[:80]!r}")
            status = int(rest[:3])
            headers = {}
            while (line := await self._reader.readuntil(b"\r\n")) != b"\r\n":
                name, _, value = line.decode("latin-1").partition(":")
                headers[name.strip().lower()] = value.strip()
            if status >= 200:
                return Answer(status, headers, await self._body(method, status, headers))

    async def _body(self, method: str, status: int, headers: dict[str, str]) -> bytes:
        if method == "HEAD" or status in (204, 304):
            return b""
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(await self._reader.readuntil(b"\r\n"), 16):
                body += (await self._reader.readexactly(size + 2))[:-2]
            await self._reader.readuntil(b"\r\n")
            return body
        if "content-length" in headers:
            return await self._reader.readexactly(int(headers["content-length"]))
        return await self._reader.read()


class Watched:
    """The processes of a service and their logs."""

    def __init__(self, root: int) -> None:
        self._tree = Tree(root)
        self._logs: dict[Path, int] = {}

    def memory(self) -> Memory:
        """Resident memory of each living process."""
        found = {}
        for process in self._tree.refresh():
            with contextlib.suppress(psutil.Error):
                if process.status() != psutil.STATUS_ZOMBIE:
                    found[process.pid, _what(process)] = process.memory_info().rss / _MB
        return found

    def logs(self) -> int:
        """Notes the files that the processes write, and how long they are. Returns how many are known."""
        for process in self._tree.refresh():
            with contextlib.suppress(psutil.Error, OSError):
                for number in Path(f"/proc/{process.pid}/fd").iterdir():
                    with contextlib.suppress(OSError):
                        path = number.readlink()
                        if path.suffix in (".log", ".err", ".out") and path.is_file():
                            self._logs.setdefault(path, path.stat().st_size)
        return len(self._logs)

    def tracebacks(self) -> list[str]:
        """What the logs say since they were noted."""
        found = []
        for path, size in self._logs.items():
            with contextlib.suppress(OSError), path.open("rb") as file:
                file.seek(size)
                text = file.read().decode("utf-8", "replace")
                at = text.find("Traceback (most recent call last)")
                if at >= 0:
                    found.append(f"{path}: {text.count('Traceback (most')} of them; the first: {text[at : at + 2000]}")
        return found


def _what(process: psutil.Process) -> str:
    """A name for the report: what a process calls itself, in a few words."""
    words = " ".join(process.cmdline()) or process.name()
    return words[:60]


class LoggedService(Service):
    """A service whose output goes to a file.

    Args:
        log: the file.
        options: of ``topfive serve``.
    """

    def __init__(self, log: Path, *options: str) -> None:
        super().__init__(*options)
        self._log = log

    @contextlib.contextmanager
    def running(self) -> Iterator[int]:
        """Yields the id of its first process."""
        with self._log.open("wb") as output:
            process = subprocess.Popen(  # noqa: S603 - our own
                self._command, stdout=output, stderr=output, start_new_session=True
            )
            self._process = process
            try:
                self._wait()
                yield process.pid
            finally:
                if process.poll() is None:
                    process.terminate()
                    process.wait(60)

    def _wait(self, within_s: float = 120) -> None:
        assert self._process is not None
        give_up = time.monotonic() + within_s
        while time.monotonic() < give_up and self._process.poll() is None:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/readyz", timeout=5, trust_env=False).status_code == 200:
                    return
            time.sleep(0.2)
        raise SystemExit(f"the service did not become ready; its output is in {self._log}")


def fuzz(options: argparse.Namespace, folder: Path) -> list[str]:
    """One run against a service of its own. Returns what failed."""
    corpus()
    log = folder / "service.log"
    service = LoggedService(log, *(("--fleet", options.fleet) if options.fleet else ()))
    with service.running() as root:
        watched = Watched(root)
        sender = Sender("127.0.0.1", service.port, options.seed, options.failures)
        give_up = time.monotonic() + 60 * options.minutes
        started = time.monotonic()
        watched.logs()
        samples, described = [], list[str]()
        for part in range(1, SAMPLES + 1):
            asyncio.run(sender.send(options.requests * part // SAMPLES, give_up))
            if options.schema and part == 1:
                described += schemathesis(service.url, options.seed, folder)
            time.sleep(QUIET_S)
            samples.append(watched.memory())
            print(f"{sender.found.sent:,} requests in {time.monotonic() - started:.0f} s", flush=True)
        print(f"{watched.logs()} logs were read")
        wrong = [*described, *sender.found.failed, *compared(samples, options.growth), *watched.tracebacks()]
    found, seconds = sender.found, time.monotonic() - started
    print(f"{found.sent:,} requests in {seconds:.0f} s, seed {options.seed}, fleet {options.fleet or 'local'}")
    for answer, count in sorted(found.answers.items()):
        print(f"{count:>9,}  {answer}")
    if found.sent < options.requests:
        print(f"the time was over after {found.sent:,} of {options.requests:,} requests")
    return wrong


def compared(samples: list[Memory], most_growth: float) -> list[str]:
    """Prints what each process has had. Returns what is wrong at the last sample, compared with the largest of the
    warm-up: a process ended, is new, or grew by more than a share."""
    wrong = []
    warm, after = samples[:WARM_SAMPLES], samples[-1]
    print("MB after each part; caches and allocators fill up in the first parts")
    for process in sorted(set().union(*samples)):
        pid, what = process
        print("".join(f"{sample.get(process, 0):8.1f}" for sample in samples), f" {pid} {what}")
        now = after.get(process)
        if not all(process in sample for sample in warm) or now is None:
            wrong.append(f"process {pid} ({what}) {'is new' if now is not None else 'ended'}")
            continue
        then = max(sample[process] for sample in warm)
        if now > then * (1 + most_growth) and now > then + 4:
            wrong.append(f"process {pid} ({what}) grew from {then:.1f} to {now:.1f} MB")
    return wrong


def schemathesis(url: str, seed: int, folder: Path) -> list[str]:
    """Has schemathesis make requests from the description of the interface. Returns whether any failed; its output says
    which."""
    program = shutil.which("schemathesis", path=str(Path(sys.executable).parent)) or shutil.which("schemathesis")
    if program is None:
        raise SystemExit("schemathesis is not installed: pip install -e '.[fuzz]'")
    settings = folder / "schemathesis.toml"
    expected = ["2xx", "3xx", "4xx", *map(str, sorted(_BUSY))]
    settings.write_text(f"[checks]\nnot_a_server_error.expected-statuses = {expected}\n")
    command = [program, "--config-file", str(settings), "run", f"{url}/openapi.json", "--seed", str(seed)]
    command += ["--checks", "not_a_server_error", "--max-examples", "300"]
    status = subprocess.run(command, check=False, cwd=folder).returncode  # noqa: S603 - our own
    return [f"schemathesis ended with status {status}"] if status else []


def replay(path: Path, url: str) -> None:
    """Sends a request that had failed to a service that runs, and prints the answer."""
    host, _, port = url.removeprefix("http://").partition(":")
    asked = Request("", "", (), path.read_bytes(), head=b"")

    async def send() -> Answer:
        stream = await Stream.open(host, int(port or 80))
        try:
            return await stream.ask(asked)
        finally:
            stream.close()

    answer = asyncio.run(send())
    print(answer.status, answer.headers, answer.body[:3000].decode("utf-8", "replace"), sep="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--minutes", type=float, default=60.0, help="no request is sent after so many minutes")
    parser.add_argument("--fleet", help="of topfive serve; its default by default")
    parser.add_argument("--growth", type=float, default=0.05, help="the share by which a process may grow")
    parser.add_argument("--failures", type=Path, default=Path(tempfile.gettempdir()) / "topfive-fuzz")
    parser.add_argument("--schema", action="store_true", help="let schemathesis make requests too")
    parser.add_argument("--replay", type=Path, help="a request that failed, to be sent again")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="of the service that --replay sends to")
    options = parser.parse_args()
    if options.replay:
        replay(options.replay, options.url)
        return
    with tempfile.TemporaryDirectory() as folder:
        wrong = fuzz(options, Path(folder))
    for line in wrong:
        print(f"WRONG: {line}")
    print("nothing failed" if not wrong else f"{len(wrong)} failures")
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
