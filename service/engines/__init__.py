"""Engines: how a checkpoint runs on a device.

loader.py       the table of engines, and which of them runs a checkpoint on which device
onnx_cpu.py     the exported graph in ONNX Runtime, without torch: the default on a CPU
torch_cuda.py   PyTorch with CUDA graphs: the default on a GPU. overlap.py copies the next batch while one is computed,
                buckets.py has the batch sizes that graphs are captured for, parked.py keeps weights on the
                host while another network has the device
torch_cpu.py    plain PyTorch on a CPU: the reference that the other engines are tested against
jpeg_gpu.py     JPEG files -> crops on a GPU
fake.py         an engine without a network, for tests
pretend.py      the same as a device that takes its time: measures everything around a network
fingerprint.py  what a checkpoint runs with: device, engine, precision, library versions, weights

This file has the interface that they share.
"""

from __future__ import annotations

import contextlib
import ctypes
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from models.images.preprocess import Preprocess


class DeviceError(ValueError):
    """This machine does not have the device that is asked for, or the engine does not run on it."""


class TopK(NamedTuple):
    """The most probable classes of a batch, most probable first: both arrays are (N, min(MAX_K, classes))."""

    probabilities: npt.NDArray[np.float32]
    indices: npt.NDArray[np.int64]
    distributions: npt.NDArray[np.float32] | None = None
    """(N, classes): the probabilities of all classes, in the order of their numbers; only if ``whole`` was set."""


class Engine(Protocol):
    """A loaded checkpoint. Its methods block, and only one thread at a time may call them."""

    @property
    def bytes_held(self) -> int:
        """Bytes of weights on the device."""
        ...

    @property
    def any_thread(self) -> bool:
        """Whether each call may come from another thread: nothing of the engine belongs to a thread."""
        ...

    def warm_up(self, largest: int) -> None:
        """Prepares for batches of up to ``largest`` pictures, so that no request pays for one-time work."""
        ...

    def run(self, crops: npt.NDArray[np.uint8], whole: bool = False) -> TopK:
        """Computes the most probable classes of a batch.

        Args:
            crops: (N, side, side, channels), as ``preprocess.crop`` makes them.
            whole: also return the probabilities of all classes.
        """
        ...

    def close(self) -> None:
        """Frees the memory. The engine cannot be used afterwards."""
        ...


@runtime_checkable
class OverlappingEngine(Engine, Protocol):
    """An engine that accepts a batch while it computes another one. ``collect(submit(x))`` equals ``run(x)``."""

    def submit(self, crops: npt.NDArray[np.uint8], whole: bool = False) -> Any: ...

    def collect(self, batch: Any) -> TopK: ...


class Parked(Protocol):
    """The weights of a checkpoint in host memory, after its engine was closed."""

    @property
    def bytes_held(self) -> int:
        """Bytes of host memory."""
        ...

    def wake(self) -> Engine:
        """Loads the checkpoint again. Blocks; the engine is not warm yet. The parked weights stay until ``free``.

        Raises:
            OutOfDeviceMemoryError: the device has no memory for them.
        """
        ...

    def free(self) -> None:
        """Gives the host memory back. Blocks."""
        ...


@runtime_checkable
class ParkingEngine(Engine, Protocol):
    """An engine whose weights can wait in host memory for the checkpoint's next load."""

    @property
    def parked_bytes(self) -> int:
        """Bytes of host memory that they take there."""
        ...

    def park(self) -> Parked:
        """Copies the weights to the host. Blocks, for any thread and beside a running batch; ``close`` comes later.

        Raises:
            RuntimeError: the host has no memory for them.
        """
        ...


def blank(preprocess: Preprocess, batch_size: int) -> npt.NDArray[np.uint8]:
    """A batch of black pictures."""
    return np.zeros((batch_size, preprocess.side, preprocess.side, preprocess.channels), np.uint8)


def give_memory_back() -> None:
    """Returns freed memory of this process to the operating system.

    glibc keeps small freed blocks for later, about a quarter of an unloaded network. A C library without
    ``malloc_trim`` does not do that.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
