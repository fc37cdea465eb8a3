"""Which engine runs a checkpoint, and on which device."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any, Literal

from models.checkpoints import Checkpoint
from service.engines import DeviceError, Engine, EngineFactory

EngineName = Literal["onnx_cpu", "torch_cpu", "torch_cuda"]


def engine_factory(
    *,
    device: str,
    engine: EngineName | None,
    precision: str,
    threads: int,
    cache_dir: Path,
    max_batch_size: int = 16,
) -> EngineFactory:
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
    match engine:
        case "onnx_cpu":
            return partial(_onnx_cpu, threads=threads, cache_dir=cache_dir)
        case "torch_cpu":
            return partial(_torch_cpu, precision=precision, threads=threads)
        case "torch_cuda":
            return partial(_torch_cuda, device=picked, precision=precision, max_batch_size=max_batch_size)


# Each engine's library takes hundreds of megabytes, so that only what runs is imported.


def _onnx_cpu(checkpoint: Checkpoint, **options: Any) -> Engine:
    from service.engines.onnx_cpu import OnnxCpu

    return OnnxCpu(checkpoint, **options)


def _torch_cpu(checkpoint: Checkpoint, **options: Any) -> Engine:
    from service.engines.torch_cpu import TorchCpu

    return TorchCpu(checkpoint, **options)


def _torch_cuda(checkpoint: Checkpoint, **options: Any) -> Engine:
    from service.engines.torch_cuda import TorchCuda

    return TorchCuda(checkpoint, **options)


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


def _has_driver() -> bool:
    """Whether torch is worth asking for a GPU: importing it takes seconds, and memory that a CPU's engine can do
    without."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") == ""
    return not hidden and any(Path("/proc/driver/nvidia/gpus").glob("*"))
