"""What each layer costs: ``python bench/overhead.py [--rounds N] [--seconds S]``. Needs ``hey`` (Debian's package).

LeNet-5, one after the other on this machine: a bare Starlette handler and TopFive's app, both under uvicorn, and the
fleets ``local`` and ``cluster-cpu`` behind Ray Serve. In each round every server is started, loaded by hey with 64
connections and with one, and stopped; medians over the rounds and ratios between neighbours are printed.
"""

from __future__ import annotations

import argparse
import io
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
from PIL import Image

PEERS = Path(__file__).parent / "peers"
DIGIT = Path(__file__).parents[1] / "docs" / "images" / "digit.png"
FLEET = """
[ingress]
num_cpus = 0.2

[[deployment]]
variants = ["lenet5"]
num_cpus = 0.5
"""


class Figures(NamedTuple):
    """One server in one round."""

    per_second: float
    p50_ms: float
    """With one connection."""


def servers(folder: Path) -> dict[str, list[str]]:
    """The command of each server; ``{port}`` is filled in."""
    cluster = folder / "cluster.toml"
    cluster.write_text(FLEET)
    uvicorn = [sys.executable, "-m", "uvicorn", "--port", "{port}", "--log-level", "warning", "--app-dir", str(PEERS)]
    topfive = [sys.executable, "-m", "service.commands.main", "serve", "--port", "{port}", "--fleet"]
    return {
        "bare Starlette": [*uvicorn, "bare_starlette:app"],
        "app, uvicorn": [*uvicorn, "bare_api:app"],
        "local": [*topfive, "local"],
        "cluster-cpu": [*topfive, str(cluster)],
    }


@contextmanager
def running(command: list[str]) -> Iterator[str]:
    """Starts a server, waits until it is ready, yields its URL, ends it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    filled = [word.format(port=port) for word in command]
    process = subprocess.Popen(filled, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603 - our own
    try:
        for _ in range(600):
            try:
                if httpx.get(f"{url}/readyz", timeout=5).status_code == 200:
                    break
            except httpx.TransportError:
                pass
            time.sleep(0.2)
        yield url
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def hey(url: str, picture: Path, connections: int, seconds: float) -> tuple[float, float]:
    """Requests a second and the median in milliseconds; fails if a request did."""
    command = ["hey", "-z", f"{seconds}s", "-c", str(connections), "-m", "POST", "-T", "image/png", "-D", str(picture)]
    run = subprocess.run(  # noqa: S603 - bounded by -z, to loopback
        [*command, f"{url}/classify?model=lenet5"], capture_output=True, text=True, check=True
    )
    statuses = set(re.findall(r"^\s+\[(\d+)\]\s+\d+ responses", run.stdout, re.MULTILINE))
    if statuses != {"200"}:
        raise SystemExit(f"statuses {sorted(statuses)}\n{run.stdout}")
    rate = re.search(r"Requests/sec:\s+([\d.]+)", run.stdout)
    median = re.search(r"50% in ([\d.]+) secs", run.stdout)
    assert rate is not None
    assert median is not None
    return float(rate[1]), float(median[1]) * 1000


def measure(url: str, picture: Path, seconds: float) -> Figures:
    """After a short warm-up."""
    hey(url, picture, 64, 1)
    per_second, _ = hey(url, picture, 64, seconds)
    _, p50_ms = hey(url, picture, 1, seconds)
    return Figures(per_second, p50_ms)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument(
        "--picture", type=Path, help="by default an MNIST-sized PNG; README's digit is docs/images/digit.png"
    )
    options = parser.parse_args()
    if shutil.which("hey") is None:
        raise SystemExit("hey is not installed: apt-get install hey")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        picture = options.picture or folder / "digit.png"
        if options.picture is None:
            out = io.BytesIO()
            Image.open(DIGIT).convert("L").resize((28, 28), Image.Resampling.BILINEAR).save(out, "PNG")
            picture.write_bytes(out.getvalue())
        measured: dict[str, list[Figures]] = {}
        for number in range(options.rounds):
            for server, command in servers(folder).items():
                with running(command) as url:
                    figures = measure(url, picture, options.seconds)
                measured.setdefault(server, []).append(figures)
                print(
                    f"round {number + 1}: {server:15} {figures.per_second:7.0f}/s  p50 {figures.p50_ms:5.1f} ms",
                    flush=True,
                )
    show(measured)


def show(measured: dict[str, list[Figures]]) -> None:
    """Medians, and each server's ratio to the one before it."""
    print(f"\n{'server':15} {'64 conn./s':>10} {'of the one above':>17} {'1 conn. p50 ms':>15}")
    above = 0.0
    for server, rounds in measured.items():
        per_second = statistics.median(figures.per_second for figures in rounds)
        p50_ms = statistics.median(figures.p50_ms for figures in rounds)
        ratio = f"{per_second / above:.2f}" if above else ""
        print(f"{server:15} {per_second:10.0f} {ratio:>17} {p50_ms:15.1f}")
        above = per_second


if __name__ == "__main__":
    main()
