"""Weights that wait in host memory, on a fake device: they come back as they were, and their memory is counted."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from models.checkpoints.build import build_checkpoint
from models.checkpoints.catalogue import Catalogue
from service.domain.errors import OutOfDeviceMemoryError
from service.engines import ParkingEngine
from service.engines.parked import ParkedNetwork, parked_bytes
from service.engines.torch_cuda import TorchCuda, for_capture
from tests.fake_device import FakeDevice

LENET = Catalogue().find("lenet5@mnist")
CROPS = np.random.default_rng(5).integers(0, 256, (20, 32, 32, 1), dtype=np.uint8)


class Mixed(nn.Module):
    """Tensors of several types, shapes and memory formats, one of them shared and one empty."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Linear(7, 2))
        self.layers.to(memory_format=torch.channels_last)
        self.again = self.layers[2]
        self.register_buffer("halves", torch.arange(3, dtype=torch.float16))
        self.register_buffer("expanded", torch.tensor([1.5]).expand(4))
        self.register_buffer("nothing", torch.empty(0))
        self.requires_grad_(False)


def _same(one: nn.Module, other: nn.Module) -> None:
    mine, theirs = one.state_dict(), other.state_dict()
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        assert tensor.dtype == theirs[name].dtype
        torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=0)


@pytest.mark.parametrize("eager", [(), ("load",)], ids=["late", "early"])
def test_a_network_comes_back_as_it_was(eager: tuple[str, ...]) -> None:
    network, device = Mixed(), FakeDevice(*eager)
    before = copy.deepcopy(network)
    parked = ParkedNetwork(network, device)
    # What happens to the original does not matter any more.
    for tensor in network.parameters():
        tensor.fill_(9)
    first = parked.on_device()
    _same(first, before)
    assert first.layers[0].weight.is_contiguous(memory_format=torch.channels_last)  # type: ignore[index,union-attr]
    assert first.again is first.layers[2]  # type: ignore[index]
    assert not any(parameter.requires_grad for parameter in first.parameters())
    # It can be woken again, and does not share memory with what was woken before.
    for tensor in first.parameters():
        tensor.fill_(8)
    second = parked.on_device()
    parked.free()
    _same(second, before)


def test_the_original_is_left_alone() -> None:
    network = Mixed()
    before, places = copy.deepcopy(network), [tensor.data_ptr() for tensor in network.parameters()]
    ParkedNetwork(network, FakeDevice()).free()
    _same(network, before)
    assert [tensor.data_ptr() for tensor in network.parameters()] == places


def test_host_bytes_are_counted_and_given_back() -> None:
    network, device = Mixed(), FakeDevice()
    held = parked_bytes(network)
    total = sum(t.numel() * t.element_size() for t in (*network.parameters(), *network.buffers()))
    assert total < held <= total + 256 * len(network.state_dict())
    parked = ParkedNetwork(network, device)
    assert parked.bytes_held == device.locked_bytes == held
    parked.free()
    assert device.locked_bytes == 0


def test_a_woken_network_is_in_one_block_of_the_device_and_each_tensor_is_aligned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device = FakeDevice()
    parked = ParkedNetwork(Mixed(), device)
    block = torch.empty(parked.bytes_held, dtype=torch.uint8)
    monkeypatch.setattr(device, "empty", lambda shape, dtype: block.view(shape).view(dtype))
    woken = parked.on_device()
    for tensor in (*woken.parameters(), *woken.buffers()):
        if tensor.numel():
            begins = tensor.data_ptr() - block.data_ptr()
            assert 0 <= begins < len(block)
            assert begins % 256 == 0


def test_a_checkpoint_answers_the_same_after_a_sleep() -> None:
    device = FakeDevice()
    engine = TorchCuda(LENET, device=device, precision="bfloat16", max_batch_size=8)
    assert isinstance(engine, ParkingEngine)
    expected, held = engine.run(CROPS), engine.bytes_held
    parked = engine.park()
    assert parked.bytes_held == engine.parked_bytes == device.locked_bytes >= held
    engine.close()
    for _ in range(2):
        woken = parked.wake()
        assert isinstance(woken, TorchCuda)
        found = woken.run(CROPS)
        np.testing.assert_array_equal(found.indices, expected.indices)
        np.testing.assert_array_equal(found.probabilities, expected.probabilities)
        assert (woken.bytes_held, woken.max_batch_size) == (held, 8)
        woken.close()
    parked.free()
    assert device.locked_bytes == 0


def test_parking_moves_weights_on_the_loading_stream_and_does_not_wait_for_a_batch() -> None:
    device = FakeDevice()
    engine = TorchCuda(LENET, device=device, precision="float32", max_batch_size=8)
    expected = engine.run(CROPS[:3])
    batch = engine.submit(CROPS[:3])
    device.log.clear()
    parked = engine.park()
    assert device.log == ["load", "await"]
    assert device.computing.queue
    np.testing.assert_array_equal(engine.collect(batch).indices, expected.indices)
    engine.close()
    device.log.clear()
    parked.wake()
    assert device.log == ["load", "await"]


def test_a_host_without_memory_leaves_the_engine_as_it_is() -> None:
    device = FakeDevice()
    device.locks = 1000
    engine = TorchCuda(LENET, device=device, precision="float32")
    with pytest.raises(RuntimeError, match="page-locked"):
        engine.park()
    assert len(engine.run(CROPS).indices) == 20


def test_a_device_without_memory_for_parked_weights_says_so() -> None:
    device = FakeDevice()
    engine = TorchCuda(LENET, device=device, precision="float32")
    parked = engine.park()
    engine.close()
    device.rows = 10
    with pytest.raises(OutOfDeviceMemoryError, match="weights of lenet5@mnist"):
        parked.wake()
    device.rows = float("inf")
    parked.wake().close()


def test_folded_batch_norm_and_branches_survive() -> None:
    """Compared with the network that was parked, on one picture."""
    checkpoint = Catalogue(untrained=True).find("googlenet_bn")
    network = for_capture(build_checkpoint(checkpoint).requires_grad_(False), torch.float32)
    side = checkpoint.preprocess.side
    x = torch.rand((1, 3, side, side), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = network(x)
        torch.testing.assert_close(ParkedNetwork(network, FakeDevice()).on_device()(x), expected)
