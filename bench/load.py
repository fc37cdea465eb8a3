"""The load: closed loops, the pictures that it posts, and the bare limit in the same terms."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from processes import Strangers, Watch
from servers import PEERS, ROOT, Body, Running

DIGIT = ROOT / "docs" / "images" / "digit.png"
SEED = 5
_ANSWER_WITHIN_S = 60
#: Part of their time that connections must have been waiting for an answer; the rest is connections that got none.
_BUSY = 0.9


@dataclass(frozen=True, slots=True)
class Workload:
    """One network under so many connections."""

    network: str
    connections: int
    seconds: float

    @property
    def name(self) -> str:
        return f"{self.network} x{self.connections}"

    @property
    def batch(self) -> int:
        """Pictures that can meet in a batch."""
        return min(16, self.connections)


@dataclass(frozen=True, slots=True)
class Picture:
    """What a network is asked about."""

    path: Path
    content_type: str


def digit(folder: Path) -> Picture:
    """README's digit at the size of MNIST's, 28x28."""
    path = folder / "digit.png"
    Image.open(DIGIT).convert("L").resize((28, 28), Image.Resampling.BILINEAR).save(path)
    return Picture(path, "image/png")


def photograph(folder: Path) -> Picture:
    """A JPEG of 500x375 with the size of a photograph's file: soft shapes, and the grain that fills a JPEG."""
    random = np.random.default_rng(SEED)
    picture = Image.new("RGB", (500, 375), (120, 150, 190))
    draw = ImageDraw.Draw(picture)
    for _ in range(60):
        x, y, w, h = random.integers(-60, 500), random.integers(-60, 375), *random.integers(20, 200, 2)
        colour = tuple(int(c) for c in random.integers(0, 256, 3))
        (draw.ellipse if random.random() < 0.6 else draw.rectangle)((int(x), int(y), int(x + w), int(y + h)), colour)
    pixels = np.asarray(picture.filter(ImageFilter.GaussianBlur(3)), np.float32)
    pixels = pixels + random.normal(0, 9, pixels.shape)
    path = folder / "photograph.jpg"
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, "JPEG", quality=85)
    return Picture(path, "image/jpeg")


def hey(url: str, file: Path, body: Body, connections: int, seconds: float) -> list[dict[str, str]]:
    """A row for each request that got an answer; hey's CSV is silent on the others."""
    command = ["hey", "-z", f"{seconds}s", "-c", str(connections), "-t", str(_ANSWER_WITHIN_S), "-m", "POST"]
    command += ["-T", body.content_type, "-D", str(file), "-o", "csv", url]
    return _rows(command, seconds)


def python_loop(url: str, file: Path, body: Body, connections: int, seconds: float) -> list[dict[str, str]]:
    """The same from ``closed_loop.py``, which takes a third of hey's CPU time for a request."""
    command = [sys.executable, str(Path(__file__).parent / "closed_loop.py"), url, "--body", str(file)]
    command += ["--content-type", body.content_type, "--connections", str(connections), "--seconds", str(seconds)]
    return _rows(command, seconds)


def _rows(command: list[str], seconds: float) -> list[dict[str, str]]:
    run = subprocess.run(  # noqa: S603 - to loopback
        command, capture_output=True, text=True, check=True, timeout=seconds + _ANSWER_WITHIN_S + 30
    )
    return list(csv.DictReader(io.StringIO(run.stdout)))


def measure(
    running: Running,
    body: Body,
    workload: Workload,
    warm_up_s: float,
    folder: Path,
    generate: Callable[[str, Path, Body, int, float], list[dict[str, str]]] = hey,
) -> dict[str, Any]:
    """The figures of one cell: after a warm-up of the same load, a window of it.

    Args:
        generate: the closed loop, ``hey`` or ``python_loop``.
    """
    file = folder / "body"
    file.write_bytes(body.content)
    generate(running.url, file, body, workload.connections, warm_up_s)
    strangers = Strangers()
    with Watch(running.tree) as use:
        rows = generate(running.url, file, body, workload.connections, workload.seconds)
    others = round(strangers.cores(use.cpu_s), 2)
    statuses = Counter(row["status-code"] for row in rows)
    times = np.array([float(row["response-time"]) for row in rows])
    offsets = np.array([float(row["offset"]) for row in rows])
    errors = len(rows) - statuses["200"]
    lost = 1.0
    if len(rows):
        ended = float((offsets + times).max())
        # hey goes on until its running requests are answered, so a connection may rest after the window.
        lost = 1 - float(times.sum()) / (workload.connections * min(ended, workload.seconds))
    if errors or lost > 1 - _BUSY:
        return {"errors": max(errors, 1), "statuses": dict(statuses), "unanswered": round(lost, 3)}
    return {
        "errors": 0,
        "requests": len(rows),
        "per_second": len(rows) / ended,
        "p50_ms": float(np.quantile(times, 0.5)) * 1000,
        "p99_ms": float(np.quantile(times, 0.99)) * 1000,
        "cpu_s_per_picture": use.cpu_s / len(rows),
        "rss_mb": use.peak_rss_mb,
        "rss_largest_mb": use.peak_largest_mb,
        "processes": use.processes,
        "others_cores": others,
    }


def limit(workload: Workload, picture: Picture, threads: int) -> dict[str, Any]:
    """The same figures of decode and engine in a loop, in a process of its own."""
    command = [sys.executable, str(PEERS / "limit.py"), workload.network, "--picture", str(picture.path)]
    command += ["--seconds", str(workload.seconds), "--batch", str(workload.batch), "--threads", str(threads)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    strangers = Strangers()
    answer = subprocess.check_output(command, text=True, env=environment, timeout=workload.seconds + 240)  # noqa: S603
    figures: dict[str, Any] = {"errors": 0, **json.loads(answer.splitlines()[-1])}
    others = round(strangers.cores(), 2)
    return {**figures, "rss_largest_mb": figures["rss_mb"], "processes": 1, "others_cores": others}


def described(workload: Workload) -> dict[str, Any]:
    return asdict(workload)
