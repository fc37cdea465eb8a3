"""The GPU engine: rebuilding a network for a capture is tested on a CPU, the engine itself only where there is CUDA."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from models.checkpoints.build import build_checkpoint
from models.checkpoints.catalogue import Catalogue, Checkpoint
from models.images.preprocess import PRESETS
from models.networks.layers import LRN_CAFFE, LocalResponseNorm
from models.networks.lenet import TableConv2d
from models.networks.variants import VARIANTS
from service.domain.errors import OutOfDeviceMemoryError
from service.domain.prediction import MAX_K
from service.engines import TopK, torch_cuda
from service.engines.torch_cuda import TorchCuda, for_capture

UNTRAINED = Catalogue(untrained=True)
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
#: Random weights for VGG and AlexNet take half a minute.
ALL = [pytest.param(name, marks=[pytest.mark.slow] if row.params > 3e7 else []) for name, row in VARIANTS.items()]


def _crops(checkpoint: Checkpoint, pictures: int, seed: int = 7) -> npt.NDArray[np.uint8]:
    side, channels = checkpoint.preprocess.side, checkpoint.preprocess.channels
    return np.random.default_rng(seed).integers(0, 256, (pictures, side, side, channels), dtype=np.uint8)


def _logits(checkpoint: Checkpoint, network: nn.Module, crops: npt.NDArray[np.uint8]) -> torch.Tensor:
    """By the book, one number after the other, in float32."""
    p = checkpoint.preprocess
    x = crops[..., ::-1] if p.colour == "bgr" else crops
    x = (x.astype(np.float64) * p.scale - np.array(p.mean)) / np.array(p.std)
    with torch.inference_mode():
        logits: torch.Tensor = network(torch.from_numpy(x.transpose(0, 3, 1, 2)).float())
    return logits


@functools.lru_cache(maxsize=1)
def _lively(name: str) -> nn.Module:
    """A network whose batch norm has something to do, and whose logits differ by 3: random weights alone give every
    class the same probability, which any engine would get right."""
    checkpoint = UNTRAINED.find(name)
    network = build_checkpoint(checkpoint).requires_grad_(False)
    random = torch.Generator().manual_seed(3)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            layer.running_mean.normal_(0, 0.3, generator=random)
            layer.running_var.uniform_(0.3, 2, generator=random)
            layer.weight.uniform_(0.7, 1.6, generator=random)
            layer.bias.normal_(0, 0.3, generator=random)
    logits = _logits(checkpoint, network, _crops(checkpoint, 2))
    last = network.get_submodule(checkpoint.variant.last_layer)
    assert isinstance(last, nn.Conv2d | nn.Linear)
    last.weight *= 3 / logits.std()
    assert last.bias is not None
    last.bias *= 3 / logits.std()
    return network


@pytest.mark.parametrize("name", ["lenet5", "googlenet_bn", pytest.param("inception_v2", marks=pytest.mark.slow)])
def test_a_network_for_capture_gives_the_same_logits(name: str) -> None:
    checkpoint = UNTRAINED.find(name)
    network = for_capture(copy.deepcopy(_lively(name)), torch.float32)
    assert not any(isinstance(layer, nn.BatchNorm2d | TableConv2d) for layer in network.modules())
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in network.parameters() if p.dim() == 4)
    crops = _crops(checkpoint, 2)
    expected = _logits(checkpoint, _lively(name), crops)
    difference = (_logits(checkpoint, network, crops) - expected).abs().max()
    assert difference < 1e-5 * expected.std()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_response_normalisation_survives_half_precision(dtype: torch.dtype) -> None:
    """Activations as large as those of Caffe's networks; their squares exceed float16."""
    x = torch.randn(2, 16, 5, 5, generator=torch.Generator().manual_seed(1)) * 1000
    plain = LocalResponseNorm(LRN_CAFFE)
    network = for_capture(nn.Sequential(LocalResponseNorm(LRN_CAFFE)), dtype)
    answer = network(x.to(dtype))
    assert answer.dtype == dtype
    torch.testing.assert_close(answer.float(), plain(x), rtol=1e-2, atol=1e-2)
    # What float16 itself would make of it.
    assert not torch.isfinite(x.half() * x.half()).all()


@pytest.mark.parametrize("preset", ["caffe-227", "half-224", "mnist"])
def test_crops_are_normalised_on_the_device(preset: str) -> None:
    """From crops as they are in memory to the top-k of a network that got correctly normalised numbers."""
    checkpoint = replace(UNTRAINED.find("googlenet"), preprocess=PRESETS[preset])
    crops = _crops(checkpoint, 2)
    network = nn.Sequential(nn.AvgPool2d(9), nn.Conv2d(crops.shape[3], 10, 3), nn.AdaptiveMaxPool2d(1), nn.Flatten())
    network.requires_grad_(False)
    expected = torch.softmax(_logits(checkpoint, network, crops), 1)
    whole = torch.empty(2, 10)
    probabilities, indices = torch_cuda._Answers(network, checkpoint.preprocess)(torch.from_numpy(crops), whole)
    torch.testing.assert_close(probabilities, expected.gather(1, indices), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(whole, expected, rtol=1e-5, atol=1e-6)


@pytest.fixture
def lively(monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines load the networks of ``_lively``."""
    monkeypatch.setattr(torch_cuda, "build_checkpoint", lambda row: copy.deepcopy(_lively(row.variant.name)))


@pytest.fixture
def no_tf32() -> Iterator[None]:
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def _check(top: TopK, logits: torch.Tensor, atol: float) -> None:
    """Each probability is that of its class, and no class that is left out has a larger one."""
    expected = torch.softmax(logits.float(), 1).numpy()
    assert top.probabilities.shape == top.indices.shape == (len(expected), MAX_K)
    np.testing.assert_allclose(top.probabilities, np.take_along_axis(expected, top.indices, 1), rtol=0, atol=atol)
    np.testing.assert_allclose(top.probabilities, -np.sort(-expected, axis=1)[:, :MAX_K], rtol=0, atol=atol)


@needs_cuda
@pytest.mark.usefixtures("lively", "no_tf32")
@pytest.mark.parametrize("name", ALL)
def test_every_variant_answers_like_the_cpu(name: str) -> None:
    checkpoint = UNTRAINED.find(name)
    crops = _crops(checkpoint, 5, seed=8)
    expected = _logits(checkpoint, _lively(name), crops)
    engine = TorchCuda(checkpoint, device="cuda:0", precision="float32", max_batch_size=4)
    _check(engine.run(crops), expected, 1e-4)
    whole = engine.run(crops, True).distributions
    assert whole is not None
    np.testing.assert_allclose(whole, torch.softmax(expected, 1).numpy(), rtol=0, atol=1e-4)
    engine.close()
    # On a CPU these are within 0.01 and 0.001; LeNet-5's ten classes have the larger probabilities.
    engine = TorchCuda(checkpoint, device="cuda:0", precision="bfloat16", max_batch_size=4)
    _check(engine.run(crops), expected, 0.05)
    engine.close()


@needs_cuda
@pytest.mark.usefixtures("lively", "no_tf32")
@pytest.mark.parametrize("name", ["lenet5", "googlenet", "googlenet_bn"])
def test_float16_answers_like_the_cpu(name: str) -> None:
    checkpoint = UNTRAINED.find(name)
    crops = _crops(checkpoint, 3, seed=8)
    engine = TorchCuda(checkpoint, device="cuda:0", precision="float16", max_batch_size=4)
    _check(engine.run(crops), _logits(checkpoint, _lively(name), crops), 0.01)
    engine.close()


@needs_cuda
@pytest.mark.usefixtures("lively", "no_tf32")
def test_every_bucket_replays_with_other_pictures_each_time() -> None:
    checkpoint = UNTRAINED.find("googlenet")
    crops = _crops(checkpoint, 45)
    expected = _logits(checkpoint, _lively("googlenet"), crops)
    engine = TorchCuda(checkpoint, device="cuda:0", precision="float32", max_batch_size=12)
    engine.warm_up(12)
    for size in (*range(1, 13), 25, 45):
        for start in (0, 45 - size):
            _check(engine.run(crops[start : start + size]), expected[start : start + size], 1e-4)
    batches = [engine.submit(crops[start : start + 9]) for start in range(0, 45, 9)]
    for number, batch in enumerate(batches):
        _check(engine.collect(batch), expected[9 * number : 9 * number + 9], 1e-4)
    engine.close()


@needs_cuda
@pytest.mark.usefixtures("lively", "no_tf32")
def test_memory_that_runs_out_halves_the_batch() -> None:
    checkpoint = UNTRAINED.find("googlenet")
    crops = _crops(checkpoint, 8)
    expected = _logits(checkpoint, _lively("googlenet"), crops)
    engine = TorchCuda(checkpoint, device="cuda:0", precision="float32", max_batch_size=512)
    _check(engine.run(crops[:1]), expected[:1], 1e-4)
    torch.cuda.empty_cache()
    # Half a gigabyte more: 512 pictures need 1.6 GB for the first convolution's output alone.
    allowed = torch.cuda.memory_reserved() + 5 * 10**8
    torch.cuda.set_per_process_memory_fraction(allowed / torch.cuda.mem_get_info()[1])
    try:
        top = engine.run(np.tile(crops, (64, 1, 1, 1)))
        assert engine.out_of_memory > 0
        assert engine.max_batch_size < 512
        _check(top, expected.tile(64, 1), 1e-4)
        _check(engine.run(crops), expected, 1e-4)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        engine.close()


@needs_cuda
def test_weights_that_do_not_fit_say_so() -> None:
    torch.cuda.empty_cache()
    allowed = torch.cuda.memory_reserved() + 10**7  # the weights need 95 MB
    torch.cuda.set_per_process_memory_fraction(allowed / torch.cuda.mem_get_info()[1])
    try:
        with pytest.raises(OutOfDeviceMemoryError, match="weights of inception_v3"):
            TorchCuda(UNTRAINED.find("inception_v3"), device="cuda:0", precision="float32")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@needs_cuda
def test_closing_gives_the_memory_back() -> None:
    left = []
    for _ in range(2):
        engine = TorchCuda(UNTRAINED.find("googlenet"), device="cuda:0", precision="float32")
        engine.warm_up(16)
        assert torch.cuda.memory_allocated() > engine.bytes_held
        engine.close()
        left.append(torch.cuda.memory_reserved())
    # What the first leaves are the libraries' workspaces, which the second uses again.
    assert left[1] <= left[0]


@needs_cuda
@pytest.mark.usefixtures("lively", "no_tf32")
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_parked_weights_wake_with_the_same_answers_and_give_all_memory_back(precision: str) -> None:
    checkpoint = UNTRAINED.find("googlenet")
    crops = _crops(checkpoint, 6)
    engine = TorchCuda(checkpoint, device="cuda:0", precision=precision, max_batch_size=4)
    expected = engine.run(crops)
    parked = engine.park()
    # It goes on as before, until it is closed.
    np.testing.assert_array_equal(engine.run(crops).probabilities, expected.probabilities)
    engine.close()
    closed = torch.cuda.memory_allocated()
    assert parked.network._block.memory.is_pinned()
    assert torch.cuda.memory_allocated() < engine.bytes_held
    woken = parked.wake()
    assert torch.cuda.memory_allocated() >= closed + woken.bytes_held
    parked.free()
    found = woken.run(crops)
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_allclose(found.probabilities, expected.probabilities, rtol=1e-3)
    woken.close()
    assert torch.cuda.memory_allocated() <= closed


@needs_cuda
@pytest.mark.usefixtures("lively", "no_tf32")
def test_a_network_is_parked_and_woken_beside_a_batch_and_a_capture_of_another() -> None:
    """On other threads, as in the service."""
    checkpoint = UNTRAINED.find("googlenet")
    crops = _crops(checkpoint, 8)
    expected = _logits(checkpoint, _lively("googlenet"), crops)
    moved = TorchCuda(checkpoint, device="cuda:0", precision="float32", max_batch_size=8)
    moved.run(crops)
    with ThreadPoolExecutor(1) as thread:
        for _ in range(3):
            parked = thread.submit(moved.park)
            other = TorchCuda(checkpoint, device="cuda:0", precision="float32", max_batch_size=8)
            other.warm_up(8)
            _check(other.run(crops), expected, 1e-4)
            moved.close()
            waking = thread.submit(parked.result().wake)
            other.close()
            moved = waking.result()
            parked.result().free()
            _check(moved.run(crops), expected, 1e-4)
    moved.close()


@needs_cuda
def test_host_memory_that_cannot_be_locked_is_an_error_and_the_device_goes_on() -> None:
    device = torch_cuda.CudaDevice("cuda:0")
    with pytest.raises(RuntimeError, match=r"page-locked|allocate memory"):
        device.locked(2**46)
    assert torch.ones(3, device="cuda:0").sum() == 3
    block = device.locked(10**6)
    assert len(block.memory) == 10**6
    block.free()
