"""Which engine runs a checkpoint, and on which device."""

from __future__ import annotations

import functools
import os
import re
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from models.checkpoints.catalogue import Checkpoint
from service.engines import DeviceError, Engine
from service.profiling.profiles import Fingerprint, weights_digest

EngineName = Literal["onnx_cpu", "torch_cpu", "torch_cuda"]


@dataclass(frozen=True, slots=True)
class Loader:
    """Loads checkpoints, each into an engine of one kind on one device."""

    engine: EngineName
    device: str
    """``cpu`` or ``cuda:N``."""
    precision: str
    threads: int
    """Of one forward pass on a CPU."""
    cache_dir: Path
    """Where exported graphs are kept."""
    max_batch_size: int
    """Pictures in one forward pass at most: what a GPU prepares for, and what a footprint is measured at."""

    def __call__(self, checkpoint: Checkpoint) -> Engine:
        # Each engine's library takes hundreds of megabytes, so that only what runs is imported.
        match self.engine:
            case "onnx_cpu":
                from service.engines.onnx_cpu import OnnxCpu

                return OnnxCpu(checkpoint, threads=self.threads, cache_dir=self.cache_dir)
            case "torch_cpu":
                from service.engines.torch_cpu import TorchCpu

                return TorchCpu(checkpoint, precision=self.precision, threads=self.threads)
            case "torch_cuda":
                from service.engines.torch_cuda import TorchCuda

                return TorchCuda(
                    checkpoint, device=self.device, precision=self.precision, max_batch_size=self.max_batch_size
                )

    def prepare(self, checkpoint: Checkpoint) -> None:
        """Makes what later loads will find in the cache, or looks whether the weights are the network's, as far as that
        takes no memory worth mentioning. Blocks; raises what loading would."""
        if self.engine == "onnx_cpu":
            from models.onnx.graph_cache import cached_graph

            cached_graph(checkpoint, self.cache_dir)
        elif checkpoint.path is not None:
            from models.checkpoints.build import check_weights

            check_weights(checkpoint)

    def fingerprint(self, checkpoint: Checkpoint) -> Fingerprint:
        """What a profile that is measured now would be measured with. Reads the whole weight file.

        Raises:
            WeightsMissingError: the weights have gone.
        """
        return self._fingerprint(weights_digest(checkpoint))

    @property
    def settings(self) -> str:
        """What fingerprints of all checkpoints have in common, as ``Fingerprint.settings`` names it."""
        return self._fingerprint("").settings

    def _fingerprint(self, weights: str) -> Fingerprint:
        library = "onnxruntime" if self.engine == "onnx_cpu" else "torch"
        return Fingerprint(
            device=device_name(self.device),
            engine=self.engine,
            precision=self.precision,
            threads=self.threads if self.device == "cpu" else 0,
            max_batch_size=self.max_batch_size,
            libraries={library: metadata.version(library)},
            weights=weights,
        )


def engine_loader(
    *,
    device: str,
    engine: EngineName | None,
    precision: str,
    threads: int,
    cache_dir: Path,
    max_batch_size: int = 16,
) -> Loader:
    """What loads checkpoints.

    Args:
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        engine: None for the fastest on that device: ONNX Runtime on a CPU in float32, torch on a GPU.
        precision: ``float32``, ``bfloat16`` or ``float16``.
        threads: of one forward pass on a CPU.
        cache_dir: where exported graphs are kept.
        max_batch_size: the largest batch that a GPU prepares for.

    Raises:
        DeviceError: the device is not on this machine, or the engine does not run on it.
    """
    # An engine that runs on one kind of device only says which is meant.
    picked = "cpu" if device == "auto" and engine in ("onnx_cpu", "torch_cpu") else pick_device(device)
    if engine is None:
        engine = "torch_cuda" if picked != "cpu" else "onnx_cpu" if precision == "float32" else "torch_cpu"
    if (engine == "torch_cuda") != (picked != "cpu"):
        raise DeviceError(f"engine {engine} does not run on {picked}")
    if engine == "onnx_cpu" and precision != "float32":
        raise DeviceError(f"engine onnx_cpu computes in float32; {precision} on a CPU is torch_cpu's")
    return Loader(engine, picked, precision, threads, cache_dir, max_batch_size)


def pick_device(wanted: str) -> str:
    """``auto`` -> ``cuda:0`` where there is one, else ``cpu``.

    Raises:
        DeviceError: that device is not on this machine.
    """
    if wanted == "cpu" or (wanted == "auto" and not _has_driver()):
        return "cpu"
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted == "auto":
        return "cuda:0" if count else "cpu"
    number = int(wanted.partition(":")[2] or 0)
    if number >= count:
        raise DeviceError(f"device {wanted} is not here: this machine has {count} CUDA devices")
    return f"cuda:{number}"


@functools.cache
def device_name(device: str) -> str:
    """``AMD EPYC, 2 cores``, or the name of a GPU."""
    if device != "cpu":
        import torch

        return str(torch.cuda.get_device_name(device))
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return f"{found[1].strip() if found else 'CPU'}, {len(os.sched_getaffinity(0))} cores"


def device_slug(device: str) -> str:
    """The name of a device's file of profiles: ``cpu-2-cores``, or the GPU's name in small letters."""
    if device == "cpu":
        return f"cpu-{len(os.sched_getaffinity(0))}-cores"
    return re.sub(r"[^a-z0-9]+", "-", device_name(device).lower()).strip("-")


def _has_driver() -> bool:
    """Whether torch is worth asking for a GPU: importing it takes seconds, and memory that a CPU's engine can do
    without."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") == ""
    return not hidden and any(Path("/proc/driver/nvidia/gpus").glob("*"))
