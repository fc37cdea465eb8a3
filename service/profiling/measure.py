"""Measures the profile of one checkpoint, in a process of its own, so that its memory can be measured.

python -m service.profiling.measure googlenet --cache-dir DIR ...    prints the profile as JSON
"""

from __future__ import annotations

import contextlib
import importlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
import psutil

from models.checkpoints.catalogue import Checkpoint
from models.images.preprocess import picture_to_crop
from models.images.rates import measure_rates, photograph
from service.engines import Engine, Parked, ParkingEngine, blank
from service.engines.loader import Loader
from service.profiling.child import parsed, parser
from service.profiling.profiles import Latency, Profile

#: Seconds of forward passes, by batch size.
Times: TypeAlias = dict[int, list[float]]

#: Sides in pixels of the pictures that represent the size classes of ``profiles.py``.
_SIDES = {"thumbnail": 48, "small": 256, "medium": 900, "large": 2600, "huge": 6400}
#: Seconds of forward passes in one round of a quick measurement.
_ROUND_S = 1.0
#: A quick measurement repeats rounds until two of them agree within this share at each batch size, at most this many
#: times: otherwise one noisy second would decide what the service predicts until the next measurement.
_AGREE_WITHIN, _MOST_ROUNDS = 0.1, 8
#: Decodes of each size class, in a quick measurement and in a thorough one.
_QUICK_DECODES, _DECODES = 5, 9


def measure(checkpoint: Checkpoint, loader: Loader, *, seconds: float, quick: bool) -> Profile:
    """Loads a checkpoint and measures it. The process must not have loaded another one before.

    Args:
        checkpoint: a loadable checkpoint.
        loader: loads it into an engine on a device.
        seconds: seconds of forward passes; each batch size runs at least three times.
        quick: only one and four pictures in a batch, on a GPU each fourfold up to the largest too, in rounds until two
            of them agree.

    Raises:
        WeightsMissingError, WrongWeightsError, RuntimeError, ArithmeticError: it cannot be loaded.
    """
    cold_s = _prepare(checkpoint, loader, quick=quick)
    memory: Memory = HostMemory() if loader.device == "cpu" else DeviceMemory(loader.device)
    started = time.perf_counter()
    engine = loader(checkpoint)
    engine.warm_up(loader.max_batch_size)
    loaded_s = time.perf_counter() - started
    load_peak = memory.peak()
    engine.run(blank(checkpoint.preprocess, loader.max_batch_size))
    footprint = memory.peak()
    sizes = _batch_sizes(loader.max_batch_size, quick, on_cpu=loader.device == "cpu")
    if quick:
        times = agreed(lambda: _forward(engine, checkpoint, sizes, _ROUND_S))
    else:
        times = _forward(engine, checkpoint, sizes, seconds)
    wake_s = _wake(engine, loader.max_batch_size)
    return Profile(
        checkpoint=checkpoint.name,
        fingerprint=loader.fingerprint(checkpoint),
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        quick=quick,
        forward={size: Latency.of(took) for size, took in times.items()},
        decode=_decode(checkpoint, _QUICK_DECODES if quick else _DECODES),
        decode_rates=None if quick else measure_rates(),
        load_cold_ms=None if cold_s is None else round(1000 * (cold_s + loaded_s), 1),
        load_cached_ms=round(1000 * loaded_s, 1),
        footprint_bytes=max(1, footprint),
        load_peak_bytes=max(1, load_peak),
        wake_ms=None if wake_s is None else round(1000 * wake_s, 1),
    )


def _prepare(checkpoint: Checkpoint, loader: Loader, *, quick: bool) -> float | None:
    """Prepares the load; returns how many seconds that takes with an empty cache. Returns None in a quick measurement
    if the cache has the graph already: exporting it again would take too long."""
    from models.onnx.graph_cache import export_apart, graph_path

    started = time.perf_counter()
    if not loader.row.runs_graph or not graph_path(checkpoint, loader.cache_dir).is_file():
        loader.prepare(checkpoint)
        return time.perf_counter() - started
    if quick:
        return None
    with tempfile.TemporaryDirectory(prefix="topfive-cold-", dir=loader.cache_dir) as folder:
        started = time.perf_counter()
        export_apart(checkpoint, loader.cache_dir, Path(folder) / "cold.onnx")
        return time.perf_counter() - started


def _wake(engine: Engine, largest: int) -> float | None:
    """Seconds from parked weights to a warm engine; None if they cannot be parked. Closes the engine."""
    parked: Parked | None = None
    # The host may have no memory for them.
    with contextlib.suppress(RuntimeError):
        parked = engine.park() if isinstance(engine, ParkingEngine) else None
    engine.close()
    if parked is None:
        return None
    started = time.perf_counter()
    engine = parked.wake()
    engine.warm_up(largest)
    took_s = time.perf_counter() - started
    engine.close()
    parked.free()
    return took_s


def _batch_sizes(largest: int, quick: bool, *, on_cpu: bool) -> list[int]:
    if not quick:
        return sorted({1 << n for n in range(largest.bit_length())} | {largest})
    if on_cpu:
        return sorted({1, min(4, largest)})
    # A GPU is hardly busy with four pictures, so that its large batches cannot be told from small ones; they are quick.
    return sorted({4**n for n in range(largest.bit_length()) if 4**n <= largest} | {largest})


def agreed(measure_round: Callable[[], Times]) -> Times:
    """Repeats rounds until two of them agree, and returns the times of both; if none agree, of the two that differ
    least."""
    rounds = [measure_round()]
    nearest: tuple[float, Times] | None = None
    while len(rounds) < _MOST_ROUNDS:
        latest = measure_round()
        for earlier in rounds:
            apart = max(_apart(earlier[size], latest[size]) for size in latest)
            if nearest is None or apart < nearest[0]:
                nearest = apart, {size: [*earlier[size], *latest[size]] for size in latest}
        rounds.append(latest)
        assert nearest is not None
        if nearest[0] <= _AGREE_WITHIN:
            break
    assert nearest is not None
    return nearest[1]


def _apart(first: Sequence[float], second: Sequence[float]) -> float:
    """How far the means of two rounds are apart, as a share of the smaller."""
    low, high = sorted((statistics.fmean(first), statistics.fmean(second)))
    return high / low - 1


def _forward(engine: Engine, checkpoint: Checkpoint, sizes: Iterable[int], seconds: float) -> Times:
    """Runs the batch sizes in turn, so that a slow moment of the machine affects all of them."""
    batches = {size: blank(checkpoint.preprocess, size) for size in sizes}
    random = np.random.default_rng(0)
    for batch in batches.values():
        batch[:] = random.integers(0, 256, batch.shape, np.uint8)
    times: dict[int, list[float]] = {size: [] for size in batches}
    until = time.perf_counter() + seconds
    while len(times[1]) < 3 or time.perf_counter() < until:
        for size, batch in batches.items():
            times[size].append(_timed(partial(engine.run, batch)))
    return times


def _decode(checkpoint: Checkpoint, runs: int) -> dict[str, Latency]:
    decoded = {}
    for name, side in _SIDES.items():
        picture = photograph(side)
        decode = partial(picture_to_crop, picture, checkpoint.preprocess, max_pixels=80_000_000)
        if name == "thumbnail":
            decode()  # Pillow and numpy do some work only once
        decoded[name] = Latency.of([_timed(decode) for _ in range(runs)])
    return decoded


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


class Memory(Protocol):
    """Measures the bytes that are held on a device beyond those at its creation."""

    def peak(self) -> int:
        """The most bytes that were held since the last call, or since the creation."""
        ...


class HostMemory:
    """Measures the growth of this process's resident set, by the kernel's high-water mark."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._before = self._process.memory_info().rss
        self._reset()

    def peak(self) -> int:
        # The mark may lag behind: threads account for their memory with a delay.
        peak = max(self._high_water(), self._process.memory_info().rss) - self._before
        self._reset()
        return int(peak)

    @staticmethod
    def _high_water() -> int:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        return 0

    @staticmethod
    def _reset() -> None:
        # Without the permission to reset the mark, the load's peak counts as the footprint: too much, never too little.
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")


class DeviceMemory:
    """Measures the peak of bytes that torch allocates on a GPU, plus the CUDA context of this process."""

    def __init__(self, device: str) -> None:
        import torch

        free_before, _ = torch.cuda.mem_get_info(device)
        torch.zeros(1, device=device)
        free_after, _ = torch.cuda.mem_get_info(device)
        self._torch, self._device = torch, device
        self._context = max(0, free_before - free_after - torch.cuda.memory_reserved(device))
        torch.cuda.reset_peak_memory_stats(device)

    def peak(self) -> int:
        peak = int(self._torch.cuda.max_memory_allocated(self._device)) + self._context
        self._torch.cuda.reset_peak_memory_stats(self._device)
        return peak


def main(arguments: list[str] | None = None) -> int:
    """Measures the checkpoint that the command line names, and prints its profile."""
    reader = parser("service.profiling.measure")
    reader.add_argument("--quick", action="store_true")
    reader.add_argument("--seconds", type=float, required=True)
    checkpoint, loader, options = parsed(reader, arguments)
    # The memory of the engine's library belongs to the process, not to the network.
    importlib.import_module(loader.row.library)
    profile = measure(checkpoint, loader, seconds=options.seconds, quick=options.quick)
    sys.stdout.write(profile.model_dump_json() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
