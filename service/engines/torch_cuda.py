"""The GPU engine: PyTorch with a CUDA graph for each batch size, fed from pinned memory.

A classic network is a few hundred small kernels, which a GPU finishes faster than Python can start them; a graph
starts them all at once. ``overlap.py`` moves batches through the device, ``buckets.py`` has the batch sizes; this file
has the network that is captured, and the ``Device`` of ``overlap.py`` for CUDA.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from models.checkpoints.build import build_checkpoint
from models.checkpoints.catalogue import Checkpoint
from models.checkpoints.tensors import top_k
from models.images.preprocess import Preprocess
from models.networks.layers import ConvBNReLU
from models.networks.lenet import TableConv2d
from service.domain.errors import OutOfDeviceMemoryError
from service.domain.prediction import MAX_K
from service.engines import TopK, blank
from service.engines.buckets import Buckets
from service.engines.overlap import Device, Event, LockedBlock, Overlap, Submitted, Work, is_out_of_memory
from service.engines.parked import ParkedNetwork, parked_bytes

#: Warm-up runs before a capture; the same number as in torch's helper. In the first one, libraries choose and load
#: kernels and allocate workspaces.
_RUNS_BEFORE_CAPTURE = 3


class TorchCuda:
    """Loads a checkpoint on a GPU.

    Args:
        checkpoint: the checkpoint to run.
        device: ``cuda:0``, or a ``Device`` in tests.
        precision: ``float32``, ``bfloat16`` or ``float16``, for weights and activations, except in response
            normalisation. In ``float32`` convolutions use TF32 where torch does (``torch.backends.cudnn.allow_tf32``).
        max_batch_size: the largest bucket at first. A larger batch runs in chunks; one chunk is copied while the one
            before it is computed.

    Raises:
        WeightsMissingError, WrongWeightsError: see ``models.checkpoints.build.build_checkpoint``.
        OutOfDeviceMemoryError: the weights do not fit.
    """

    def __init__(
        self, checkpoint: Checkpoint, *, device: str | Device, precision: str, max_batch_size: int = 16
    ) -> None:
        network = for_capture(build_checkpoint(checkpoint).requires_grad_(False), getattr(torch, precision))
        answers = _Answers(network, checkpoint.preprocess)

        def copied() -> tuple[Device, nn.Module]:
            on = CudaDevice(device) if isinstance(device, str) else device
            # The loading stream is never captured. While another checkpoint is captured, waiting for the default
            # stream or for the whole device would spoil the capture.
            on.loading.run(lambda: answers.to(on.where))
            on.loading.record().synchronize()
            return on, answers

        self._begin(checkpoint, copied, max_batch_size)

    @classmethod
    def _woken(cls, checkpoint: Checkpoint, device: Device, parked: ParkedNetwork, max_batch_size: int) -> TorchCuda:
        engine = cls.__new__(cls)
        engine._begin(checkpoint, lambda: (device, parked.on_device()), max_batch_size)
        return engine

    def _begin(
        self, checkpoint: Checkpoint, copied: Callable[[], tuple[Device, nn.Module]], max_batch_size: int
    ) -> None:
        """The part of a load that parked weights need too.

        Args:
            checkpoint: the checkpoint to run.
            copied: brings its ``_Answers`` onto the device.
            max_batch_size: the largest bucket at first.
        """
        self._checkpoint, self._largest = checkpoint, max_batch_size
        self._preprocess = checkpoint.preprocess
        try:
            self._device, self._answers = copied()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfDeviceMemoryError(f"the weights of {checkpoint.name} do") from None
        self.bytes_held = sum(p.numel() * p.element_size() for p in self._answers.parameters())
        classes = self._answers.get_parameter(f"network.{checkpoint.variant.last_layer}.bias").numel()
        self._buckets = Buckets(max_batch_size)
        crop = (self._preprocess.side, self._preprocess.side, self._preprocess.channels)
        self._overlap = Overlap(
            self._device, self._buckets, self._answers, crop=crop, k=min(MAX_K, classes), classes=classes
        )

    any_thread = False  # the current stream belongs to a thread

    @property
    def max_batch_size(self) -> int:
        """The most pictures in one forward pass; lower than requested once memory ran out."""
        return self._buckets.largest

    @property
    def out_of_memory(self) -> int:
        """How often memory ran out."""
        return self._buckets.out_of_memory

    def warm_up(self, largest: int) -> None:
        """Captures every bucket up to the one that holds ``largest`` pictures."""
        wanted = self._buckets.holding(min(largest, self._buckets.largest))
        # Largest first: the graphs share their memory, and the largest one allocates enough for all.
        for size in reversed(self._buckets.sizes):
            if size <= wanted:
                self.run(blank(self._preprocess, size))

    def submit(self, crops: npt.NDArray[np.uint8], whole: bool = False) -> Submitted:
        """Begins a batch without waiting for it. Its copy overlaps the computation of the batch before it.

        Raises:
            OutOfDeviceMemoryError: not even one picture fits.
        """
        return self._overlap.submit(crops, whole)

    def collect(self, batch: Submitted) -> TopK:
        """Waits for the answers of a submitted batch.

        Raises:
            OutOfDeviceMemoryError: not even one picture fits.
        """
        return self._overlap.collect(batch)

    def run(self, crops: npt.NDArray[np.uint8], whole: bool = False) -> TopK:
        """As ``Engine.run``.

        Raises:
            OutOfDeviceMemoryError: not even one picture fits.
        """
        return self.collect(self.submit(crops, whole))

    @property
    def parked_bytes(self) -> int:
        return parked_bytes(self._answers)

    def park(self) -> _Parked:
        return _Parked(self._checkpoint, self._device, ParkedNetwork(self._answers, self._device), self._largest)

    def close(self) -> None:
        # The last reference to the weights is then the overlap's.
        del self._answers
        self._overlap.close()


@dataclass(frozen=True, slots=True)
class _Parked:
    """As ``service.engines.Parked``."""

    checkpoint: Checkpoint
    device: Device
    network: ParkedNetwork
    max_batch_size: int

    @property
    def bytes_held(self) -> int:
        return self.network.bytes_held

    def wake(self) -> TorchCuda:
        return TorchCuda._woken(self.checkpoint, self.device, self.network, self.max_batch_size)

    def free(self) -> None:
        self.network.free()


class _Answers(nn.Module):
    """uint8 (N, side, side, channels) -> probabilities and class numbers (N, k), all on the device.

    The probabilities of all classes are written into ``whole``, at no extra cost, since softmax needs an output
    buffer.
    """

    def __init__(self, network: nn.Module, preprocess: Preprocess) -> None:
        super().__init__()
        self.network = network
        self.dtype = next(network.parameters()).dtype
        self.scale = preprocess.scale
        self.bgr = preprocess.colour == "bgr"
        # Buffers, because a graph cannot capture the copy from the host that a constant in ``forward`` would need.
        self.mean: torch.Tensor
        self.std: torch.Tensor
        for name, numbers in (("mean", preprocess.mean), ("std", preprocess.std)):
            self.register_buffer(name, torch.tensor(numbers).expand(preprocess.channels).reshape(1, -1, 1, 1).clone())

    def forward(self, crops: torch.Tensor, whole: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        # The crops are channels last in memory; ``permute`` keeps that.
        x = crops.permute(0, 3, 1, 2)
        x = x.flip(1) if self.bgr else x
        x = (x * self.scale - self.mean) / self.std
        return top_k(self.network(x.to(self.dtype)), MAX_K, whole)


def for_capture(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Rebuilds a network in eval mode, in place, for a graph: the same answers with less work.

    Batch norm is folded into the convolution before it. LeNet-5's connection table becomes a dense convolution, because
    laying out the table copies from the host, which a graph cannot capture.
    """
    for parent in list(network.modules()):
        if isinstance(parent, ConvBNReLU):
            parent.conv = fuse_conv_bn_eval(parent.conv, parent.bn)
            del parent.bn
        for name, layer in list(parent.named_children()):
            if isinstance(layer, TableConv2d):
                parent.add_module(name, _dense(layer))
    return network.requires_grad_(False).to(dtype).to(memory_format=torch.channels_last)


def _dense(layer: TableConv2d) -> nn.Conv2d:
    maps, channels, size, _ = layer.shape
    conv = nn.Conv2d(channels, maps, size, device="meta")
    conv.weight, conv.bias = nn.Parameter(layer.dense()), layer.bias
    return conv


class CudaStream:
    """A CUDA stream as ``overlap.Stream``."""

    def __init__(self, device: torch.device) -> None:
        self.stream: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def run(self, work: Work) -> None:
        with torch.cuda.stream(self.stream):
            work()

    def record(self) -> torch.cuda.Event:
        # A blocking event: a thread that spins while it waits would take a core from decoding.
        event: torch.cuda.Event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        event.record(self.stream)
        return event

    def wait(self, event: Event) -> None:
        assert isinstance(event, torch.cuda.Event)
        self.stream.wait_event(event)


@functools.cache
def _streams(device: torch.device) -> tuple[CudaStream, CudaStream, CudaStream]:
    """The copying, the computing and the loading stream of a device. All checkpoints share them, as they take turns
    anyway: libraries keep a workspace for each stream that they have computed on, of 32 MB on an H100."""
    return CudaStream(device), CudaStream(device), CudaStream(device)


class CudaLockedBlock:
    """Page-locked memory as ``overlap.LockedBlock``. torch's own pinned memory is for small buffers that come and go:
    it takes the next power of two, and keeps what is freed."""

    def __init__(self, size: int) -> None:
        self.memory = torch.empty(size, dtype=torch.uint8)
        # The last argument: locked for every context of this process.
        failed = int(_cudart().cudaHostRegister(self.memory.data_ptr(), size, 1))
        if failed:
            raise RuntimeError(f"{size / 1e6:.0f} MB of host memory cannot be page-locked (CUDA error {failed})")

    def free(self) -> None:
        _cudart().cudaHostUnregister(self.memory.data_ptr())
        del self.memory


def _cudart() -> Any:
    """CUDA's own functions."""
    return torch.cuda.cudart()  # type: ignore[no-untyped-call]


class CudaDevice:
    """A GPU as ``overlap.Device``.

    Args:
        name: ``cuda:0``.
    """

    def __init__(self, name: str) -> None:
        self.where = torch.device(name)
        self.copying, self.computing, self.loading = _streams(self.where)
        self._pool = torch.cuda.graph_pool_handle()

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device=self.where)

    def pinned(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, pin_memory=True)

    def locked(self, size: int) -> LockedBlock:
        try:
            return CudaLockedBlock(size)
        except RuntimeError:
            # CUDA keeps the error and would report it once more, to the next kernel that this thread starts: this one.
            with suppress(RuntimeError):
                self.loading.run(lambda: torch.ones(1, device=self.where))
            raise

    def capture(self, size: int, work: Work) -> Work:
        # On the stream of the later replays: the first run allocates that stream's workspaces.
        stream = self.computing.stream
        with torch.cuda.device(self.where), torch.cuda.stream(stream):
            # If memory runs out, it mostly does so here, where that does no harm, and not in the capture: entering the
            # capture frees what these runs took, and the graph needs no more.
            for _ in range(_RUNS_BEFORE_CAPTURE):
                work()
            graph = torch.cuda.CUDAGraph()
            # Other threads may load a checkpoint meanwhile. In the default mode their allocations would spoil the
            # capture.
            with torch.cuda.graph(graph, pool=self._pool, stream=stream, capture_error_mode="thread_local"):
                work()
        return graph.replay

    def reclaim(self) -> None:
        # A pool cannot be used again once all of its graphs are gone.
        self._pool = torch.cuda.graph_pool_handle()
        with torch.cuda.device(self.where):
            torch.cuda.empty_cache()
