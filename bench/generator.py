"""The load generator's own limits, on one core, against a stub that answers at once with fixed bytes.

``python bench/generator.py`` prints requests a second of a closed loop at full speed, and what the generator adds to
the median latency of an open loop: what it reports, less what bare sockets that spin on one core see from the same stub
at the same rate. The stub has a core of its own where there are two. Rounds alternate; medians are printed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[1]
_CONNECTIONS = 64
_WARM_UP_S = 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rates", type=float, nargs="+", default=[500.0, 1500.0, 2000.0, 2500.0])
    parser.add_argument("--seconds", type=float, default=5.0, help="of each run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--reference", metavar="URL", help="only the bare client, at --rates' first; for internal use")
    options = parser.parse_args()
    if options.reference:
        print(json.dumps(reference(options.reference, options.rates[0], options.seconds)))
        return
    cores = sorted(os.sched_getaffinity(0))
    port = _free_port()
    stub = _pinned([sys.executable, "-m", "loadtest._stub", "--port", str(port)], cores[-1])
    try:
        _wait_for(port)
        _measure(f"http://127.0.0.1:{port}", cores[0], options)
    finally:
        stub.terminate()
        stub.wait(10)


def _measure(url: str, core: int, options: argparse.Namespace) -> None:
    closed: list[tuple[float, float]] = []
    added: dict[float, list[tuple[float, ...]]] = {rate: [] for rate in options.rates}
    for _ in range(options.rounds):
        results = _locust(url, core, options.seconds, "-u", "8")
        closed.append((results["answered"] / results["window_s"], _cpu_us(results)))
        for rate in options.rates:
            results = _locust(
                url, core, options.seconds, "-u", str(_CONNECTIONS), "--arrivals", "poisson", "--rate", f"{rate:g}"
            )
            bare = _bare(url, core, rate, options.seconds)
            done = results["answered"] / results["window_s"]
            p50 = results["latency_ms"]["p50"]
            added[rate].append((done, p50, bare["p50_ms"], results["lag_ms"]["p50"], _cpu_us(results)))
    done, cpu_us = (median(values) for values in zip(*closed, strict=True))
    print(f"closed loop, 8 users: {done:.0f} requests/s, {cpu_us:.0f} us of CPU each")
    print("open loop:  asked/s  done/s  p50 ms  bare p50 ms  added ms  lag p50 ms  CPU us each")
    for rate, runs in added.items():
        done, p50, bare_p50, lag, cpu_us = (median(values) for values in zip(*runs, strict=True))
        print(
            f"            {rate:7.0f}  {done:6.0f}  {p50:6.2f}  {bare_p50:11.2f}  {p50 - bare_p50:8.2f}"
            f"  {lag:10.2f}  {cpu_us:11.0f}"
        )


def _cpu_us(results: dict[str, Any]) -> float:
    """What a request took of this core, which others' work on a shared machine changes least."""
    return float(1e6 * results["generator"]["cpu_share"] * results["window_s"] / results["sent"])


def _locust(url: str, core: int, seconds: float, *options: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "results.json"
        command = [
            *(sys.executable, "-m", "locust", "-f", "loadtest/", "--headless", "--only-summary", "--host", url),
            *("-t", f"{seconds + _WARM_UP_S:.0f}s", "--warm-up", f"{_WARM_UP_S:g}", "-r", "100"),
            *("--pictures", "digits", "--results", str(file), *options, "ClassifyUser"),
        ]
        if _pinned(command, core).wait(seconds + 60) != 0:
            raise SystemExit("Locust ended with an error")
        results: dict[str, Any] = json.loads(file.read_text())
    return results


def _bare(url: str, core: int, rate: float, seconds: float) -> dict[str, Any]:
    command = [sys.executable, __file__, "--reference", url, "--rates", f"{rate:g}", "--seconds", f"{seconds:g}"]
    process = _pinned(command, core, stdout=subprocess.PIPE)
    output, _ = process.communicate(timeout=seconds + 60)
    found: dict[str, Any] = json.loads(output)
    return found


def reference(url: str, rate: float, seconds: float) -> dict[str, Any]:
    """An open loop over bare sockets that spins on its core: what the stub and the kernel take."""
    port = int(url.rpartition(":")[2])
    picture = b"\x89PNG" + bytes(300) + b"IEND\xaeB`\x82"
    head = "POST /classify?model=googlenet HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    request = f"{head}Content-Length: {len(picture)}\r\n\r\n".encode() + picture
    sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(_CONNECTIONS)]
    poll = select.epoll()
    for connection in sockets:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        poll.register(connection, select.EPOLLIN)
    took = _spin(request, {connection.fileno(): connection for connection in sockets}, poll, rate, seconds)
    for connection in sockets:
        connection.close()
    return {"count": len(took), "p50_ms": 1000 * median(took)}


def _spin(
    request: bytes, sockets: dict[int, socket.socket], poll: select.epoll, rate: float, seconds: float
) -> Sequence[float]:
    source = random.Random(8)  # noqa: S311 - not for secrets
    idle, due_at, took = list(sockets), {}, []
    began = time.perf_counter()
    due = began + source.expovariate(rate)
    while due < began + seconds or due_at:
        if due <= time.perf_counter() and due < began + seconds and idle:
            number = idle.pop()
            due_at[number] = due
            sockets[number].sendall(request)
            due += source.expovariate(rate)
        for number, _ in poll.poll(0):
            # The stub writes an answer at once, and it fits one packet of the loopback.
            if sockets[number].recv(65536):
                took.append(time.perf_counter() - due_at.pop(number))
                idle.append(number)
    return took


def _pinned(command: list[str], core: int, **options: Any) -> subprocess.Popen[bytes]:
    options.setdefault("stdout", subprocess.DEVNULL)
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=ROOT, **options)  # noqa: S603 - our own
    os.sched_setaffinity(process.pid, {core})
    return process


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int, within_s: float = 20) -> None:
    give_up = time.monotonic() + within_s
    while time.monotonic() < give_up:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise SystemExit("the stub did not start")


if __name__ == "__main__":
    main()
