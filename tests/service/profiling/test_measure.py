"""Measuring a checkpoint: for real in a process of its own, and with an engine that takes a known time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.checkpoints.catalogue import Catalogue, Checkpoint
from models.onnx import graph_cache
from service.engines import TopK
from service.engines.fake import FakeEngine
from service.engines.fingerprint import Fingerprint
from service.engines.loader import ENGINES, Loader
from service.profiling import measure as measuring
from service.profiling.profiler import measure_apart
from service.profiling.profiles import SIZE_CLASSES, size_class
from tests.profiles import FINGERPRINT

LENET = Catalogue().find("lenet5@mnist")


class Clock:
    """Advances only when something takes time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(measuring.time, "perf_counter", lambda: self.now)


class Timed(FakeEngine):
    """An engine whose warm-up takes 7 s, and whose batches take 0.1 s and 0.01 s a picture more."""

    clock: Clock
    largest: int | None = None

    def warm_up(self, largest: int) -> None:
        self.largest = largest
        self.clock.now += 7

    def run(self, crops: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], whole: bool = False) -> TopK:
        self.clock.now += 0.1 + 0.01 * len(crops)
        return super().run(crops, whole)


class Loading:
    """A ``Loader`` whose preparations take 3 s and whose loads take 5 s."""

    device, engine, max_batch_size = "cpu", "torch_cpu", 6
    row = ENGINES["torch_cpu"]

    def __init__(self, clock: Clock, cache_dir: Path) -> None:
        self.clock, self.cache_dir = clock, cache_dir
        self.made: list[Timed] = []
        self.closed = 0

    def prepare(self, _checkpoint: Checkpoint) -> None:
        self.clock.now += 3

    def __call__(self, checkpoint: Checkpoint) -> Timed:
        self.clock.now += 5
        engine = Timed(checkpoint)
        engine.clock, engine.close = self.clock, self._close  # type: ignore[method-assign]
        self.made.append(engine)
        return engine

    def _close(self) -> None:
        self.closed += 1

    def fingerprint(self, _checkpoint: Checkpoint) -> Fingerprint:
        return FINGERPRINT


@pytest.fixture
def loading(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Loading:
    """On a machine whose memory peaks at 400 bytes during the load and at 300 bytes afterwards."""

    class Memory:
        def __init__(self) -> None:
            self.peaks = [400, 300]

        def peak(self) -> int:
            return self.peaks.pop(0)

    monkeypatch.setattr(measuring, "HostMemory", Memory)
    monkeypatch.setattr(measuring, "_decode", lambda _checkpoint, runs: {"small": measuring.Latency.of([0.002] * runs)})
    return Loading(Clock(monkeypatch), tmp_path)


@pytest.mark.parametrize(
    ("quick", "sizes", "decodes"), [(True, [1, 4], 5), (False, [1, 2, 4, 6], 9)], ids=["quick", "thorough"]
)
def test_each_figure_of_a_profile_is_measured_at_its_own_step(
    loading: Loading, quick: bool, sizes: list[int], decodes: int
) -> None:
    profile = measuring.measure(LENET, loading, seconds=0, quick=quick)  # type: ignore[arg-type]
    assert (profile.checkpoint, profile.fingerprint, profile.quick) == ("lenet5@mnist", FINGERPRINT, quick)
    # The preparation is a part of a cold load alone; the warm-up is a part of both.
    assert (profile.load_cold_ms, profile.load_cached_ms) == (15_000, 12_000)
    assert (profile.load_peak_bytes, profile.footprint_bytes) == (400, 300)
    assert {size: latency.mean_ms for size, latency in profile.forward.items()} == pytest.approx(
        {size: 100 + 10 * size for size in sizes}
    )
    assert profile.decode["small"].runs == decodes
    (engine,) = loading.made
    # One batch of the largest size for the footprint; then three rounds at least, the sizes in turn.
    assert (engine.largest, engine.batches[0]) == (6, 6)
    assert engine.batches[1:7] == (sizes * 3)[:6]
    assert loading.closed == 1


def test_waking_is_measured_where_weights_are_parked(loading: Loading) -> None:
    """The copy takes 2 s there and 0.3 s back; the warm-up is a part of the time."""

    class Parks(Timed):
        parked_bytes = 9

        def park(self) -> Parks:
            self.clock.now += 2
            return self

        def wake(self) -> Parks:
            assert closed == ["close"]
            self.clock.now += 0.3
            return self

        def close(self) -> None:
            closed.append("close")

        def free(self) -> None:
            closed.append("free")

    closed: list[str] = []
    engine = Parks(LENET)
    engine.clock = loading.clock
    assert measuring._wake(engine, 6) == pytest.approx(7.3)
    assert (engine.largest, closed) == (6, ["close", "close", "free"])
    assert measuring.measure(LENET, loading, seconds=0, quick=True).wake_ms is None  # type: ignore[arg-type]


def test_a_host_without_memory_for_parked_weights_has_a_profile_all_the_same(loading: Loading) -> None:
    class Refused(Timed):
        parked_bytes = 9

        def park(self) -> Refused:
            raise RuntimeError("cannot be page-locked")

        def close(self) -> None:
            closed.append("close")

    closed: list[str] = []
    assert measuring._wake(Refused(LENET), 6) is None
    assert closed == ["close"]


@pytest.mark.parametrize(("seconds", "rounds"), [(0, 3), (3 * 0.25, 3), (3 * 0.25 + 0.01, 4), (10 * 0.25, 10)])
def test_forward_passes_run_for_the_seconds_that_are_asked_for(loading: Loading, seconds: float, rounds: int) -> None:
    """A round of one and of four pictures takes 0.11 s and 0.14 s."""
    engine = loading(LENET)
    assert measuring._forward(engine, LENET, [1, 4], seconds - 1e-6).keys() == {1, 4}
    assert engine.batches == [1, 4] * rounds


def test_a_graph_in_the_cache_is_exported_again_only_for_a_thorough_profile(
    loading: Loading, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported: list[Path] = []

    def export(_checkpoint: Checkpoint, _cache_dir: Path, to: Path) -> None:
        exported.append(to)
        loading.clock.now += 20

    monkeypatch.setattr(graph_cache, "export_apart", export)
    loading.row = ENGINES["onnx_cpu"]
    path = graph_cache.graph_path(LENET, loading.cache_dir)
    assert measuring._prepare(LENET, loading, quick=True) == 3  # type: ignore[arg-type]
    path.parent.mkdir(parents=True)
    path.touch()
    assert measuring._prepare(LENET, loading, quick=True) is None  # type: ignore[arg-type]
    assert exported == []
    assert measuring._prepare(LENET, loading, quick=False) == 20  # type: ignore[arg-type]
    # Elsewhere: what is served stays as it is, and nothing is left of it.
    assert len(exported) == 1
    assert exported[0] != path
    assert not exported[0].parent.exists()


def test_what_is_done_only_once_is_not_a_part_of_a_decode(monkeypatch: pytest.MonkeyPatch) -> None:
    """The very first picture takes 9 s, all others 0.5 s."""
    clock, decoded = Clock(monkeypatch), list[bytes]()

    def decode(picture: bytes, *_: object, **__: object) -> None:
        clock.now += 0.5 if decoded else 9
        decoded.append(picture)

    monkeypatch.setattr(measuring, "picture_to_crop", decode)
    found = measuring._decode(LENET, 3)
    assert {kind: (latency.p99_ms, latency.runs) for kind, latency in found.items()} == dict.fromkeys(
        SIZE_CLASSES, (500, 3)
    )
    assert len(decoded) == 1 + 3 * len(SIZE_CLASSES)


def test_the_resident_set_is_measured_by_its_peak() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pytest.skip("this kernel does not reset the mark")
    size = 100_000_000
    memory = measuring.HostMemory()
    block = np.ones(size, np.uint8)
    del block
    assert size * 0.9 < memory.peak() < size * 2
    # The next measurement begins anew.
    assert memory.peak() < size / 2


class Rounds:
    """What one round after another measures: seconds of forward passes of one and of four pictures."""

    def __init__(self, *found: tuple[float, float]) -> None:
        self._found = iter(found)
        self.count = 0

    def __call__(self) -> dict[int, list[float]]:
        self.count += 1
        one, four = next(self._found)
        return {1: [one, one], 4: [four]}


@pytest.mark.parametrize(
    ("found", "rounds", "expected"),
    [
        ([(1.0, 4.0), (1.0, 4.0)], 2, {1: [1.0] * 4, 4: [4.0] * 2}),
        ([(1.0, 4.0), (1.09, 3.7)], 2, {1: [1.0, 1.0, 1.09, 1.09], 4: [4.0, 3.7]}),
        # Ten percent is the limit.
        ([(1.0, 8.0), (1.0, 8.79)], 2, {1: [1.0] * 4, 4: [8.0, 8.79]}),
        ([(1.0, 8.0), (1.0, 8.81), (1.0, 8.81)], 3, {1: [1.0] * 4, 4: [8.81, 8.81]}),
        # Each batch size must agree, and any two rounds may.
        ([(1.0, 4.0), (1.0, 4.5), (2.0, 4.0), (1.05, 4.05)], 4, {1: [1.0, 1.0, 1.05, 1.05], 4: [4.0, 4.05]}),
        # No two of eight agree: the two that differ least.
        (
            [(2.0**n, 1.0) for n in range(6)] + [(1e3, 1.0), (1.5e3, 1.0)],
            8,
            {1: [1e3, 1e3, 1.5e3, 1.5e3], 4: [1.0, 1.0]},
        ),
    ],
)
def test_rounds_are_repeated_until_two_agree(
    found: list[tuple[float, float]], rounds: int, expected: dict[int, list[float]]
) -> None:
    measure_round = Rounds(*found)
    assert measuring.agreed(measure_round) == expected
    assert measure_round.count == rounds


@pytest.mark.parametrize("name", measuring._SIDES)
def test_pictures_belong_to_the_size_class_that_they_represent(name: str) -> None:
    assert size_class(len(measuring.photograph(measuring._SIDES[name]))) == name


def test_batch_sizes() -> None:
    for on_cpu in (True, False):
        assert measuring._batch_sizes(12, quick=False, on_cpu=on_cpu) == [1, 2, 4, 8, 12]
        assert measuring._batch_sizes(16, quick=False, on_cpu=on_cpu) == [1, 2, 4, 8, 16]
        for quick in (True, False):
            assert measuring._batch_sizes(1, quick, on_cpu=on_cpu) == [1]
    assert measuring._batch_sizes(12, quick=True, on_cpu=True) == [1, 4]
    assert measuring._batch_sizes(128, quick=True, on_cpu=False) == [1, 4, 16, 64, 128]
    assert measuring._batch_sizes(64, quick=True, on_cpu=False) == [1, 4, 16, 64]
    assert measuring._batch_sizes(3, quick=True, on_cpu=False) == [1, 3]


def test_a_network_is_measured(tmp_path: Path) -> None:
    loader = Loader("onnx_cpu", "cpu", "float32", 1, tmp_path, 8)
    profile = measure_apart(LENET, loader, seconds=0, quick=True)
    assert (profile.checkpoint, profile.quick) == ("lenet5@mnist", True)
    assert profile.fingerprint == loader.fingerprint(LENET)
    assert list(profile.forward) == [1, 4]
    assert list(profile.decode) == list(SIZE_CLASSES)
    assert {latency.runs for latency in profile.decode.values()} == {5}
    for latency in (*profile.forward.values(), *profile.decode.values()):
        assert latency.p50_ms <= latency.p95_ms <= latency.p99_ms
    assert profile.decode["thumbnail"].p50_ms < profile.decode["huge"].p50_ms
    # The cache was empty: the graph had to be exported first.
    assert profile.load_cold_ms is not None
    assert profile.load_cold_ms > profile.load_cached_ms > profile.forward[1].p50_ms
    # What is measured is the network, not the libraries, which take more than a hundred of it.
    weights = 4 * LENET.variant.params
    assert 0 < weights < profile.footprint_bytes < 100 * weights
    assert profile.load_peak_bytes > 0
