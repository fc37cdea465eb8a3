"""A network's weights in host memory, while another network has the device.

All tensors lie in one block, each where and as it lies on the device, so that one copy brings them back. The block is
page-locked: the device copies from it without the CPU, several times as fast as from other memory. This file does not
depend on CUDA: ``overlap.Device`` is the interface that it needs of a GPU.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from service.engines.overlap import Device

#: Where a tensor begins is a multiple of this many bytes: libraries have faster kernels for aligned weights.
_ALIGNED = 256


class _Layout(NamedTuple):
    """Where one tensor lies in a block."""

    begins: int
    shape: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype

    def of(self, block: torch.Tensor) -> torch.Tensor:
        """The tensor in a block of bytes."""
        size = self.shape.numel() * self.dtype.itemsize
        return block[self.begins : self.begins + size].view(self.dtype).as_strided(self.shape, self.stride)


def parked_bytes(network: nn.Module) -> int:
    """How many bytes of host memory the weights of a network take."""
    return _laid_out(network)[1]


class ParkedNetwork:
    """A copy of a network on the host. The network itself stays as it is, and may be computing meanwhile. Blocks.

    Args:
        network: on the device, its weights as they are to be later.
        device: the device.

    Raises:
        RuntimeError: the host has no page-locked memory for it.
    """

    def __init__(self, network: nn.Module, device: Device) -> None:
        self._layouts, self.bytes_held = _laid_out(network)
        self._device = device
        self._block = device.locked(self.bytes_held)
        copies = [layout.of(self._block.memory) for layout in self._layouts]

        def fetch() -> None:
            for copied, tensor in zip(copies, _tensors(network), strict=True):
                copied.copy_(tensor, non_blocking=True)

        device.loading.run(fetch)
        device.loading.record().synchronize()
        self._network = _with_tensors(network, copies)

    def on_device(self) -> nn.Module:
        """The network on the device again. The copy on the host stays. Blocks.

        Raises:
            torch.cuda.OutOfMemoryError: the device has no memory for it.
        """
        block: list[torch.Tensor] = []

        def send() -> None:
            # Allocated here, since torch keeps memory apart by the stream that it was allocated on.
            block.append(self._device.empty((self.bytes_held,), torch.uint8))
            block[0].copy_(self._block.memory, non_blocking=True)

        self._device.loading.run(send)
        self._device.loading.record().synchronize()
        return _with_tensors(self._network, [layout.of(block[0]) for layout in self._layouts])

    def free(self) -> None:
        """Gives the host memory back."""
        del self._network
        self._block.free()


def _tensors(network: nn.Module) -> list[torch.Tensor]:
    """Its parameters and buffers, each once, always in the same order."""
    return [*network.parameters(), *network.buffers()]


def _laid_out(network: nn.Module) -> tuple[list[_Layout], int]:
    """Where each of the tensors lies in a block, and the block's size in bytes."""
    layouts = []
    end = 0
    for tensor in _tensors(network):
        # The strides of a tensor without gaps in the same order of dimensions: channels last stays so.
        stride = torch.empty_like(tensor, device="meta").stride()
        layouts.append(_Layout(end, tensor.shape, stride, tensor.dtype))
        size = tensor.numel() * tensor.element_size()
        end += -(-size // _ALIGNED) * _ALIGNED
    return layouts, end


def _with_tensors(network: nn.Module, tensors: Sequence[torch.Tensor]) -> nn.Module:
    """A copy of a network with other tensors in the place of its own, in their order."""
    memo: dict[int, object] = {
        id(before): nn.Parameter(after, requires_grad=False) if isinstance(before, nn.Parameter) else after
        for before, after in zip(_tensors(network), tensors, strict=True)
    }
    return copy.deepcopy(network, memo)
