"""Engines: how a checkpoint runs on a device.

choice.py       which engine runs a checkpoint, on which device
onnx_cpu.py     the exported graph in ONNX Runtime: the default on a CPU, without torch
torch_cuda.py   PyTorch on a GPU, with CUDA graphs: the default there. overlap.py copies the next batch while one is
                computed, buckets.py has the batch sizes that there are graphs for
torch_cpu.py    plain PyTorch on a CPU: the reference that the others are tested against
fake.py         no network at all, for tests
"""

from __future__ import annotations

import contextlib
import ctypes
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from models.checkpoints.catalogue import Checkpoint
from models.images.preprocess import Preprocess
from service.engines.fingerprint import Fingerprint


class DeviceError(ValueError):
    """The device that is asked for is not on this machine."""


class TopK(NamedTuple):
    """The most probable classes of a batch, most probable first: both (N, min(MAX_K, classes))."""

    probabilities: npt.NDArray[np.float32]
    indices: npt.NDArray[np.int64]
    distributions: npt.NDArray[np.float32] | None = None
    """(N, classes), in the order of the classes' numbers; only where the whole was asked for."""


class Engine(Protocol):
    """A loaded checkpoint. Its methods block, and are called from one thread at a time."""

    @property
    def bytes_held(self) -> int:
        """Bytes of weights on the device."""
        ...

    def warm_up(self, largest: int) -> None:
        """Makes ready for batches of up to that many pictures, so that no caller pays for what happens only once."""
        ...

    def run(self, crops: npt.NDArray[np.uint8], whole: bool = False) -> TopK:
        """(N, side, side, channels) as ``preprocess.crop`` makes them -> the most probable classes; with ``whole``, the
        probabilities of all classes too."""
        ...

    def close(self) -> None:
        """Gives the memory back."""
        ...


@runtime_checkable
class OverlappingEngine(Engine, Protocol):
    """An engine that takes a batch while it computes another. ``collect`` gives what ``run`` would."""

    def submit(self, crops: npt.NDArray[np.uint8], whole: bool = False) -> Any: ...

    def collect(self, batch: Any) -> TopK: ...


class EngineLoader(Protocol):
    """Loads checkpoints, each into an engine of one kind on one device."""

    def __call__(self, checkpoint: Checkpoint) -> Engine:
        """Blocks; the engine is not warm yet."""
        ...

    def prepare(self, checkpoint: Checkpoint) -> None:
        """Makes what later loads will find in the cache. Blocks; raises what loading would."""
        ...

    def fingerprint(self, checkpoint: Checkpoint) -> Fingerprint:
        """What a profile that is measured now would be measured with."""
        ...


def blank(preprocess: Preprocess, batch_size: int) -> npt.NDArray[np.uint8]:
    """A batch of black pictures."""
    return np.zeros((batch_size, preprocess.side, preprocess.side, preprocess.channels), np.uint8)


def give_memory_back() -> None:
    """Returns freed memory of this process to the system. The C library keeps what was freed in pieces for later, by
    which an unloaded network would still take a quarter of its memory; one that has no such call keeps nothing back."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
