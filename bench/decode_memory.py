"""What decoding takes at the worst: eight at once of the dearest pictures that the default settings permit.

python bench/decode_memory.py                     in one process, and in a front with its device owner
python bench/decode_memory.py --only png-alpha    one kind of picture

Each round sends a service without Ray eight copies of one picture at the same time. Printed are the memory of all
processes above rest at the peak, by the kernel's high-water mark of each process; the statuses; the slowest answer; and
how long another caller's digit took meanwhile, at the 99th percentile and at most.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import struct
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
from PIL import Image
from processes import Tree
from servers import free_port

Image.MAX_IMAGE_PIXELS = None
#: The most pixels of a square picture that the default settings permit.
_SIDE = 8_944
_AT_ONCE = 8
_READY_WITHIN_S = 240
_LINE = "{:18} {:>10} {:>6} {:>14} {:>10} {:>10} {:>8}"
_FLEET = 'ray = false\nfronts = {fronts}\n[[deployment]]\nvariants = ["lenet5", "googlenet"]\n'


def main() -> int:
    """Runs all rounds. Returns 1 if a peak is above 400 MB or an answer is a 500."""
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--only", help="the kinds of picture whose name has this text")
    reader.add_argument("--fronts", type=int, choices=(0, 1), help="0: one process; by default both are measured")
    options = reader.parse_args()
    kinds = {name: make for name, make in KINDS.items() if not options.only or options.only in name}
    failed = False
    for fronts in (0, 1) if options.fronts is None else (options.fronts,):
        print(f"\n{'a front and an owner' if fronts else 'one process'}:")
        print(_LINE.format("picture", "bytes", "MB", "statuses", "slowest s", "digit p99", "most ms"))
        for name, make in kinds.items():
            failed |= _round(name, make(), fronts)
    return int(failed)


def _round(name: str, data: bytes, fronts: int) -> bool:
    with tempfile.TemporaryDirectory(prefix="topfive-decode-") as folder:
        fleet, port = Path(folder) / "fleet.toml", free_port()
        fleet.write_text(_FLEET.format(fronts=fronts))
        log = Path(folder) / "log"
        words = [
            sys.executable,
            "-m",
            "service.commands",
            "serve",
            "--fleet",
            str(fleet),
            "--port",
            str(port),
            "--untrained",
        ]
        with log.open("wb") as out:
            process = psutil.Popen(words, stdout=out, stderr=out, start_new_session=True)
        tree, url = Tree(process.pid), f"http://127.0.0.1:{port}"
        try:
            _until_ready(url, process, log)
            _warm(url)
            tree.refresh()
            before = _resident(tree, reset=True)
            statuses, slowest_s, digits = _attack(url, data)
            above = (_high_water(tree) - before) / 1e6
        finally:
            process.terminate()
            with suppress(psutil.TimeoutExpired):
                process.wait(60)
            tree.end()
    p99 = statistics.quantiles(digits, n=100)[98] if len(digits) > 1 else float("nan")
    found = " ".join(f"{count}x{status}" for status, count in sorted(statuses.items()))
    times = f"{slowest_s:.1f}", f"{1000 * p99:.1f}", f"{1000 * max(digits):.1f}"
    print(_LINE.format(name, f"{len(data):,}", f"{above:.0f}", found, *times), flush=True)
    return above > 400 or 500 in statuses


def _until_ready(url: str, process: Any, log: Path) -> None:
    until = time.monotonic() + _READY_WITHIN_S
    while time.monotonic() < until and process.poll() is None:
        with suppress(httpx.HTTPError):
            if httpx.get(f"{url}/readyz").status_code == 200:
                return
        time.sleep(0.5)
    raise SystemExit(log.read_text(errors="replace")[-2000:])


def _warm(url: str) -> None:
    """Sends photographs and digits until every thread and buffer is there."""
    photo = _saved(Image.effect_noise((1600, 1200), 60).convert("RGB"), "JPEG")
    with httpx.Client(timeout=60) as client:
        for _ in range(3):
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                for answer in pool.map(
                    lambda _: client.post(f"{url}/classify?model=googlenet", content=photo), range(16)
                ):
                    answer.raise_for_status()
            client.post(f"{url}/classify?model=lenet5", content=_DIGIT).raise_for_status()


def _attack(url: str, data: bytes) -> tuple[Counter[int], float, list[float]]:
    """Eight callers at once, and one who sends digits as long as they wait."""
    digits: list[float] = []
    over = threading.Event()

    def polite() -> None:
        with httpx.Client(timeout=120) as client:
            while not over.is_set():
                started = time.perf_counter()
                client.post(f"{url}/classify?model=lenet5", content=_DIGIT).raise_for_status()
                digits.append(time.perf_counter() - started)
                time.sleep(0.05)

    def rude(_: int) -> tuple[int, float]:
        started = time.perf_counter()
        answer = httpx.post(f"{url}/classify?model=googlenet", content=data, timeout=120)
        return answer.status_code, time.perf_counter() - started

    beside = threading.Thread(target=polite)
    beside.start()
    try:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            answers = list(pool.map(rude, range(_AT_ONCE)))
    finally:
        over.set()
        beside.join()
    return Counter(status for status, _ in answers), max(took_s for _, took_s in answers), digits


def _resident(tree: Tree, *, reset: bool) -> int:
    """The memory of all processes now; with ``reset``, their high-water marks begin anew."""
    total = 0
    for process in tree.refresh():
        with suppress(psutil.Error, OSError):
            total += process.memory_info().rss
            if reset:
                Path(f"/proc/{process.pid}/clear_refs").write_text("5")
    return total


def _high_water(tree: Tree) -> int:
    total = 0
    for process in tree.refresh():
        with suppress(psutil.Error, OSError):
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            total += next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    return total


def _saved(picture: Image.Image, format: str, **options: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, format, **options)
    return out.getvalue()


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _png(depth: int, colour: int, samples: int, *, interlaced: bool = False, more: bytes = b"") -> bytes:
    """A PNG of zeros."""
    packer, pixels = zlib.compressobj(), b""
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    for left, top, across, down in passes if interlaced else ((0, 0, 1, 1),):
        width, height = -(-(_SIDE - left) // across), -(-(_SIDE - top) // down)
        row = bytes(1 + (width * samples * depth + 7) // 8)
        pixels += b"".join(packer.compress(row) for _ in range(height))
    head = struct.pack(">IIBBBBB", _SIDE, _SIDE, depth, colour, 0, 0, interlaced)
    parts = ((b"IHDR", head), (b"IDAT", pixels + packer.flush()), (b"IEND", b""))
    header, data, end = (_chunk(kind, body) for kind, body in parts)
    return b"\x89PNG\r\n\x1a\n" + header + more + data + end


def _runs() -> bytes:
    """A BMP of the longest runs."""
    row, rest = divmod(_SIDE, 255)
    body = (b"\xff\1" * row + bytes((rest, 1)) + b"\0\0") * _SIDE + b"\0\1"
    head = struct.pack("<IiiHHIIiiII", 40, _SIDE, _SIDE, 1, 8, 1, len(body), 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 1024 + len(body), 0, 0, 54 + 1024) + head + bytes(1024) + body


def _square(mode: str = "RGB", side: int = _SIDE) -> Image.Image:
    return Image.new(mode, (side, side))


_PALETTE = _chunk(b"PLTE", bytes(768)) + _chunk(b"tRNS", bytes(256))
_DIGIT = _saved(Image.new("L", (28, 28), 7), "PNG")
KINDS: dict[str, Callable[[], bytes]] = {
    "photograph": lambda: _saved(Image.effect_noise((4000, 3000), 60).convert("RGB"), "JPEG"),
    "png-palette": lambda: _png(8, 3, 1, more=_PALETTE),
    "png-alpha": lambda: _png(8, 6, 4),
    "png-16-bit": lambda: _png(16, 0, 1),
    "png-16-bit-key": lambda: _png(16, 2, 3, more=_chunk(b"tRNS", bytes(6))),
    "png-interlaced": lambda: _png(8, 6, 4, interlaced=True),
    "jpeg-progressive": lambda: _saved(_square(), "JPEG", progressive=True),
    "jpeg-444": lambda: _saved(_square(), "JPEG", progressive=True, subsampling=0),
    "jpeg-long": lambda: _saved(Image.new("RGB", (65_500, 1_000)), "JPEG"),
    "webp-24-mp": lambda: _saved(_square(side=4_900), "WEBP", method=0),
    "webp-lossless": lambda: _saved(_square("RGBA", side=5_200), "WEBP", lossless=True, method=0),
    "webp-large": lambda: _saved(_square(), "WEBP", method=0),
    "gif": lambda: _saved(_square("P"), "GIF"),
    "bmp-runs": _runs,
}

if __name__ == "__main__":
    os.chdir(Path(__file__).parents[1])
    sys.exit(main())
