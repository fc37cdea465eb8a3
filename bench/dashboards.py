"""The dashboards of README and docs/operating.md: ``python bench/dashboards.py [--minutes M]`` (needs Prometheus).

Serves all sixteen networks, untrained, in a third of the memory that they need together; a real Prometheus with the
product's own configuration scrapes it. Callers with mixed budgets come at random, with a wave of three times as many in
the middle; now and then somebody asks for VGG-16 or for any network at all, or sends what is no picture. Then draws
each dashboard.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from load import photograph
from open_loop import arrivals, send
from running import Service

ROOT = Path(__file__).parents[1]
OBSERVABILITY = ROOT / "service" / "observability"
MEMORY_LIMIT_MB = 3000
#: Requests a second: what two cores can do for most of them, and not for the wave.
RATE, WAVE = 6.0, 3.0


@contextmanager
def prometheus(service_url: str, folder: Path) -> Iterator[str]:
    """The product's configuration, with this machine's addresses -> its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    shutil.copytree(OBSERVABILITY / "rules", folder / "rules")
    config = (OBSERVABILITY / "prometheus.yml").read_text()
    config = config.replace("http://topfive:8000", service_url).replace("localhost:9090", address)
    (folder / "prometheus.yml").write_text(config)
    process = subprocess.Popen(  # noqa: S603 - a fixed command
        [
            shutil.which("prometheus") or sys.exit("needs Prometheus: apt-get install prometheus"),
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={address}",
        ],
        stderr=subprocess.DEVNULL,
    )
    try:
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(60)


async def strays(url: str, names: list[str], picture: bytes, seconds: float) -> None:
    """Whoever asks for VGG-16, for any network, and whoever sends junk."""
    source = random.Random(7)  # noqa: S311 - not for secrets
    loop = asyncio.get_running_loop()
    ends = loop.time() + seconds
    async with httpx.AsyncClient(timeout=120, trust_env=False) as client:
        while loop.time() < ends:
            content = source.choice([picture, picture, picture, b"this is no picture"])
            name = source.choice(["vgg16", "vgg16", source.choice(names)])
            await client.post(f"{url}/classify?model={name}", content=content)
            await asyncio.sleep(source.expovariate(1 / 3))


async def mixture(url: str, names: list[str], picture: bytes, seconds: float) -> None:
    part = seconds / 5
    due = arrivals(RATE, 2 * part, 1) + arrivals(WAVE * RATE, part, 2, 2 * part) + arrivals(RATE, 2 * part, 3, 3 * part)
    await asyncio.gather(send(url, picture, due, resend=False), strays(url, names, picture, seconds))


def main(minutes: float, out: Path) -> None:
    service = Service("--untrained", "--memory-limit-mb", str(MEMORY_LIMIT_MB))
    service.start(within_s=900)
    try:
        names = [row["variant"] for row in httpx.get(f"{service.url}/models", timeout=60).json()["models"]]
        with tempfile.TemporaryDirectory() as scratch:
            picture = photograph(Path(scratch)).path.read_bytes()
            folder = Path(scratch) / "prometheus"
            folder.mkdir()
            with prometheus(service.url, folder) as url:
                asyncio.run(mixture(service.url, names, picture, 60 * minutes))
                render = [sys.executable, "-m", "docs.render", "--prometheus", url]
                options = ["--minutes", f"{minutes:g}", "--out", str(out), "--strict"]
                subprocess.run([*render, *options], check=True, cwd=ROOT)  # noqa: S603 - our own
    finally:
        service.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images")
    arguments = parser.parse_args()
    main(arguments.minutes, arguments.out.resolve())
