"""Overlap and running out of memory, on a fake device: its streams run as late, or as early, as their events allow, and
it has memory for as many pictures as a test says."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.checkpoints.build import build_checkpoint
from models.checkpoints.catalogue import Catalogue
from service.domain.errors import OutOfDeviceMemoryError
from service.engines import TopK
from service.engines.buckets import Buckets
from service.engines.overlap import is_out_of_memory
from service.engines.torch_cuda import TorchCuda
from tests.fake_device import FakeDevice

LENET = Catalogue().find("lenet5@mnist")


def _engine(device: FakeDevice, max_batch_size: int = 16) -> TorchCuda:
    return TorchCuda(LENET, device=device, precision="float32", max_batch_size=max_batch_size)


SCHEDULES = st.sampled_from([(), ("copy",), ("compute",), ("copy", "compute")])
CROPS = (np.random.default_rng(5).random((200, 32, 32, 1)) ** 3 * 255).astype(np.uint8)
"""Different pictures, taken from the front."""


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """For so small a network, two threads mostly wait for each other while other tests need the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def expected() -> npt.NDArray[np.float32]:
    """(pictures, classes), by the plain network."""
    p = LENET.preprocess
    x = (torch.from_numpy(CROPS).permute(0, 3, 1, 2) * p.scale - p.mean[0]) / p.std[0]
    with torch.inference_mode():
        probabilities: npt.NDArray[np.float32] = torch.softmax(build_checkpoint(LENET)(x), 1).numpy()
    return probabilities


def _check(top: TopK, expected: npt.NDArray[np.float32]) -> None:
    """LeNet-5 has ten classes and all of them are answered, so that ties in their order do not matter."""
    assert top.probabilities.shape == top.indices.shape == expected.shape
    dense = np.zeros_like(expected)
    np.put_along_axis(dense, top.indices, top.probabilities, axis=1)
    np.testing.assert_allclose(dense, expected, atol=1e-6)
    assert (np.diff(top.probabilities, axis=1) <= 0).all()


@settings(deadline=None, max_examples=20)
@given(SCHEDULES, st.integers(1, 16), st.lists(st.integers(1, 40), min_size=1, max_size=4))
def test_batches_of_any_size_get_the_answers_of_the_plain_network(
    expected: npt.NDArray[np.float32], schedule: tuple[str, ...], cap: int, sizes: list[int]
) -> None:
    engine = _engine(FakeDevice(*schedule), cap)
    for start, size in enumerate(sizes):
        _check(engine.run(CROPS[start : start + size]), expected[start : start + size])


@settings(deadline=None, max_examples=20)
@given(SCHEDULES, st.lists(st.integers(1, 20), min_size=2, max_size=5), st.data())
def test_batches_under_way_together_do_not_mix(
    expected: npt.NDArray[np.float32], schedule: tuple[str, ...], sizes: list[int], data: st.DataObject
) -> None:
    """Some with whole distributions, some without."""
    engine = _engine(FakeDevice(*schedule), 8)
    starts = np.cumsum([0, *sizes]).tolist()
    wholes = data.draw(st.lists(st.booleans(), min_size=len(sizes), max_size=len(sizes)))
    batches = [engine.submit(CROPS[a:b], whole) for (a, b), whole in zip(pairwise(starts), wholes, strict=True)]
    for number in data.draw(st.permutations(range(len(sizes)))):
        top, wanted = engine.collect(batches[number]), expected[starts[number] : starts[number + 1]]
        _check(top, wanted)
        assert (top.distributions is not None) == wholes[number]
        if top.distributions is not None:
            np.testing.assert_allclose(top.distributions, wanted, atol=1e-6)


def test_the_next_batch_is_copied_before_the_previous_one_is_awaited() -> None:
    device = FakeDevice()
    engine = _engine(device)
    device.log.clear()
    first, second = engine.submit(CROPS[:5]), engine.submit(CROPS[5:9])
    assert device.log == ["copy", "compute", "copy", "compute"]
    engine.collect(first)
    third = engine.submit(CROPS[9:10])
    engine.collect(second)
    engine.collect(third)
    assert device.log[4:] == ["await", "copy", "compute", "await", "await"]


def test_weights_are_copied_on_a_stream_of_their_own_and_are_there_before_a_batch() -> None:
    device = FakeDevice()
    _engine(device)
    assert device.log == ["load", "await"]
    assert not device.loading.queue


def test_chunks_of_a_large_batch_overlap() -> None:
    device = FakeDevice()
    engine = _engine(device, 4)
    device.log.clear()
    engine.run(CROPS[:11])
    one = ["copy", "compute"]
    assert device.log == [*one, *one, "await", *one, "await", "await"]
    assert device.captured == [4]  # 4 + 4 + 3


def test_warm_up_captures_every_bucket_largest_first_and_later_runs_capture_none() -> None:
    device = FakeDevice()
    engine = _engine(device, 12)
    engine.warm_up(12)
    assert device.captured == [12, 8, 4, 2, 1]
    for size in (1, 3, 12, 30):
        engine.run(CROPS[:size])
    assert len(device.captured) == 5


def test_memory_that_runs_out_halves_the_batch_for_good(expected: npt.NDArray[np.float32]) -> None:
    device = FakeDevice()
    device.fits = 5
    engine = _engine(device)
    before = Buckets.halvings
    _check(engine.run(CROPS[:15]), expected[:15])
    assert (engine.max_batch_size, engine.out_of_memory) == (4, 2)
    assert Buckets.halvings - before == 2
    assert device.captured == [16, 8, 4]
    device.fits = 100
    _check(engine.run(CROPS[:16]), expected[:16])
    assert (engine.max_batch_size, engine.out_of_memory) == (4, 2)


@pytest.mark.parametrize("what", ["replays", "rows"])
def test_memory_that_runs_out_in_a_replay_or_an_allocation_halves_the_batch(
    what: str, expected: npt.NDArray[np.float32]
) -> None:
    device = FakeDevice("copy", "compute")
    setattr(device, what, 3)
    engine = _engine(device, 12)
    _check(engine.run(CROPS[:20]), expected[:20])
    assert (engine.max_batch_size, engine.out_of_memory) == (3, 2)


def test_a_copy_that_is_pending_is_done_before_its_memory_is_freed(expected: npt.NDArray[np.float32]) -> None:
    """A launch that fails leaves the copy before it in its stream. ``FakeDevice.reclaim`` finds it there."""
    device = FakeDevice()
    engine = _engine(device)
    device.computing.refused = 1
    _check(engine.run(CROPS[:12]), expected[:12])
    assert (engine.max_batch_size, device.log.count("reclaim")) == (8, 1)


def test_a_small_batch_that_finds_no_memory_halves_the_largest_bucket(expected: npt.NDArray[np.float32]) -> None:
    """The memory is allocated for the largest bucket, so that is what must shrink."""
    device = FakeDevice()
    engine = _engine(device)
    device.computing.refused = 1
    _check(engine.run(CROPS[:3]), expected[:3])
    assert (engine.max_batch_size, engine.out_of_memory) == (8, 1)


def test_a_batch_under_way_keeps_its_answers_when_memory_runs_out(expected: npt.NDArray[np.float32]) -> None:
    device = FakeDevice()
    engine = _engine(device)
    before = engine.submit(CROPS[:4])
    device.fits = 2
    after = engine.submit(CROPS[4:17])
    assert engine.max_batch_size == 2
    _check(engine.collect(after), expected[4:17])
    _check(engine.collect(before), expected[:4])


def test_a_single_picture_that_does_not_fit_raises_an_error_and_the_engine_stays_usable(
    expected: npt.NDArray[np.float32],
) -> None:
    device = FakeDevice()
    device.fits = 0
    engine = _engine(device, 2)
    for times in (2, 3):
        with pytest.raises(OutOfDeviceMemoryError, match=r"a single picture does not fit .* TOPFIVE_PRECISION"):
            engine.run(CROPS[:2])
        assert (engine.max_batch_size, engine.out_of_memory) == (1, times)
    device.fits = 1
    _check(engine.run(CROPS[:3]), expected[:3])


def test_other_errors_do_not_halve_the_batch(expected: npt.NDArray[np.float32]) -> None:
    engine = _engine(FakeDevice("copy"))
    for _ in range(3):  # as often as there are places, and once more
        with pytest.raises(ValueError, match="broadcast"):
            engine.run(CROPS[:2, :9])
    assert (engine.max_batch_size, engine.out_of_memory) == (16, 0)
    _check(engine.run(CROPS[:2]), expected[:2])


def test_a_lack_of_memory_is_recognised_behind_the_error_of_a_capture() -> None:
    over = RuntimeError("CUDA error: operation failed due to a previous error during capture")
    assert not is_out_of_memory(over)
    over.__context__ = torch.cuda.OutOfMemoryError("CUDA out of memory.")
    assert is_out_of_memory(over)
    assert is_out_of_memory(RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"))
    assert not is_out_of_memory(RuntimeError("CUDA error: an illegal memory access was encountered"))


@pytest.mark.parametrize(("precision", "bytes_each"), [("float32", 4), ("bfloat16", 2)])
def test_bytes_held_are_those_of_the_captured_network(precision: str, bytes_each: int) -> None:
    """LeNet-5 with its table of 60 connections laid out as a dense convolution of 96: 36 kernels of 5 x 5 more."""
    engine = TorchCuda(LENET, device=FakeDevice(), precision=precision)
    assert engine.bytes_held == (60_850 + 36 * 25) * bytes_each


def test_close_waits_for_the_device() -> None:
    device = FakeDevice()
    engine = _engine(device)
    engine.submit(CROPS[:3])
    engine.close()
    assert not device.computing.queue
    assert device.log[-1] == "reclaim"
