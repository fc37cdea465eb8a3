"""One real measurement, in a process of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.checkpoints.catalogue import Catalogue
from service.engines.loader import Loader
from service.profiling import measure as measuring
from service.profiling.profiler import measure_apart
from service.profiling.profiles import SIZE_CLASSES, size_class

LENET = Catalogue().find("lenet5@mnist")


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


class Looks:
    """What one look after another finds: seconds of forward passes of one and of four pictures."""

    def __init__(self, *found: tuple[float, float]) -> None:
        self._found = iter(found)
        self.count = 0

    def __call__(self) -> dict[int, list[float]]:
        self.count += 1
        one, four = next(self._found)
        return {1: [one, one], 4: [four]}


@pytest.mark.parametrize(
    ("found", "looks", "expected"),
    [
        ([(1.0, 4.0), (1.0, 4.0)], 2, {1: [1.0] * 4, 4: [4.0] * 2}),
        ([(1.0, 4.0), (1.09, 3.7)], 2, {1: [1.0, 1.0, 1.09, 1.09], 4: [4.0, 3.7]}),
        # Each batch size must agree, and any two looks may.
        ([(1.0, 4.0), (1.0, 4.5), (2.0, 4.0), (1.05, 4.05)], 4, {1: [1.0, 1.0, 1.05, 1.05], 4: [4.0, 4.05]}),
        # No two of eight agree: the two that differ least.
        (
            [(2.0**n, 1.0) for n in range(6)] + [(1e3, 1.0), (1.5e3, 1.0)],
            8,
            {1: [1e3, 1e3, 1.5e3, 1.5e3], 4: [1.0, 1.0]},
        ),
    ],
)
def test_looks_are_repeated_until_two_agree(
    found: list[tuple[float, float]], looks: int, expected: dict[int, list[float]]
) -> None:
    look = Looks(*found)
    assert measuring.agreed(look) == expected
    assert look.count == looks


@pytest.mark.parametrize("name", measuring._SIDES)
def test_pictures_fall_into_the_size_class_that_they_stand_for(name: str) -> None:
    assert size_class(len(measuring.photograph(measuring._SIDES[name]))) == name


def test_batch_sizes() -> None:
    assert measuring._batch_sizes(12, quick=False) == [1, 2, 4, 8, 12]
    assert measuring._batch_sizes(16, quick=False) == [1, 2, 4, 8, 16]
    assert measuring._batch_sizes(12, quick=True) == [1, 4]
    assert measuring._batch_sizes(1, quick=True) == measuring._batch_sizes(1, quick=False) == [1]
