"""The available engines, and the choice of one for a device.

A new engine is a file in this folder and a row of ``ENGINES``; ``config/fleet.py`` lists the names that a fleet may
choose.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from models.checkpoints.catalogue import Checkpoint
from service.engines import DeviceError, Engine
from service.engines.fingerprint import AUTO, Fingerprint, weights_digest

#: The largest batch where none is set, by kind of device. The profile and the batch limit say how much of it pays.
_LARGEST_BATCH = {"cpu": 16, "cuda": 128}


@dataclass(frozen=True, slots=True)
class Loader:
    """Loads checkpoints, each into an engine of one kind on one device."""

    engine: str
    """A key of ``ENGINES``."""
    device: str
    """``cpu`` or ``cuda:N``."""
    precision: str
    """``float32``, ``bfloat16`` or ``float16``; on a GPU also ``AUTO``, as long as none of them is chosen."""
    threads: int
    """Threads of one forward pass on a CPU."""
    cache_dir: Path
    """The folder of exported graphs."""
    max_batch_size: int
    """The maximum number of pictures in one forward pass: a GPU prepares for it, and footprints are measured at it."""

    @property
    def row(self) -> EngineRow:
        """The engine's row of the table."""
        return ENGINES[self.engine]

    def __call__(self, checkpoint: Checkpoint) -> Engine:
        """Loads a checkpoint, in float32 if the precision is not chosen yet. Blocks; the engine is not warm yet."""
        return self.row.load(checkpoint, self)

    def prepare(self, checkpoint: Checkpoint) -> None:
        """Does the part of a load that needs no memory worth mentioning: it exports the graph into the cache, or checks
        that the weights fit the network. Blocks; raises what loading would."""
        self.row.prepare(checkpoint, self)

    def fingerprint(self, checkpoint: Checkpoint) -> Fingerprint:
        """The fingerprint of a profile that would be measured now. Reads the whole weight file.

        Raises:
            WeightsMissingError: the weights are gone.
        """
        return self._fingerprint(weights_digest(checkpoint))

    @property
    def settings(self) -> str:
        """The part that fingerprints of all checkpoints have in common, as in ``Fingerprint.settings``."""
        return self._fingerprint("").settings

    def _fingerprint(self, weights: str) -> Fingerprint:
        library = self.row.library
        return Fingerprint(
            device=device_name(self.device),
            engine=self.engine,
            precision=self.precision,
            threads=self.threads if self.device == "cpu" else 0,
            max_batch_size=self.max_batch_size,
            libraries={library: metadata.version(library)},
            weights=weights,
        )


@dataclass(frozen=True, slots=True)
class EngineRow:
    """One engine."""

    name: str
    devices: frozenset[str]
    """The kinds of devices that it runs on: ``cpu``, ``cuda``."""
    precisions: frozenset[str]
    library: str
    """The package that it computes with. Importing it takes seconds and hundreds of megabytes."""
    load: Callable[[Checkpoint, Loader], Engine]
    prepare: Callable[[Checkpoint, Loader], None]
    """The part of a load that needs no device memory; see ``Loader.prepare``."""
    runs_graph: bool = False
    """Whether it runs a graph that is exported into the cache first."""


# Engines are imported only when they are loaded, for their libraries' sake.
def _load_onnx_cpu(checkpoint: Checkpoint, loader: Loader) -> Engine:
    from service.engines.onnx_cpu import OnnxCpu

    return OnnxCpu(checkpoint, threads=loader.threads, cache_dir=loader.cache_dir)


def _load_torch_cpu(checkpoint: Checkpoint, loader: Loader) -> Engine:
    from service.engines.torch_cpu import TorchCpu

    return TorchCpu(checkpoint, precision=loader.precision, threads=loader.threads)


def _load_torch_cuda(checkpoint: Checkpoint, loader: Loader) -> Engine:
    from service.engines.torch_cuda import TorchCuda

    precision = "float32" if loader.precision == AUTO else loader.precision
    return TorchCuda(checkpoint, device=loader.device, precision=precision, max_batch_size=loader.max_batch_size)


def _load_pretend(checkpoint: Checkpoint, _loader: Loader) -> Engine:
    from service.engines.pretend import PretendEngine

    return PretendEngine(checkpoint)


def _export_graph(checkpoint: Checkpoint, loader: Loader) -> None:
    from models.onnx.graph_cache import cached_graph

    cached_graph(checkpoint, loader.cache_dir)


def _check_weights(checkpoint: Checkpoint, _loader: Loader) -> None:
    if checkpoint.path is not None:
        from models.checkpoints.build import check_weights

        check_weights(checkpoint)


def _refuse_trained(checkpoint: Checkpoint, _loader: Loader) -> None:
    from service.engines.pretend import refuse_trained

    refuse_trained(checkpoint)


_CPU, _CUDA = frozenset({"cpu"}), frozenset({"cuda"})
_FLOAT32, _ANY_PRECISION = frozenset({"float32"}), frozenset({"float32", "bfloat16", "float16"})
#: By name. The default for a device and a precision is the first engine that runs there.
ENGINES = {
    row.name: row
    for row in (
        EngineRow("onnx_cpu", _CPU, _FLOAT32, "onnxruntime", _load_onnx_cpu, _export_graph, runs_graph=True),
        EngineRow("torch_cpu", _CPU, _ANY_PRECISION, "torch", _load_torch_cpu, _check_weights),
        EngineRow("torch_cuda", _CUDA, _ANY_PRECISION, "torch", _load_torch_cuda, _check_weights),
        # Last, and where another engine runs in any precision, so that only a fleet that names it gets it.
        EngineRow("pretend", _CPU, _ANY_PRECISION, "numpy", _load_pretend, _refuse_trained),
    )
}


def engine_loader(
    *,
    device: str,
    engine: str | None,
    precision: str,
    threads: int,
    cache_dir: Path,
    max_batch_size: int | None = None,
) -> Loader:
    """Chooses the engine and the device.

    Args:
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        engine: a key of ``ENGINES``; None for the first one that runs on the device in the precision.
        precision: ``float32``, ``bfloat16`` or ``float16``; or ``AUTO``, which on a CPU is float32.
        threads: threads of one forward pass on a CPU.
        cache_dir: the folder of exported graphs.
        max_batch_size: the largest batch; by default 16 on a CPU, 128 on a GPU.

    Raises:
        DeviceError: this machine does not have the device, or the engine does not run on it in that precision.
    """
    row = None if engine is None else ENGINES.get(engine)
    if engine is not None and row is None:
        raise DeviceError(f"there is no engine {engine!r}; known: {', '.join(ENGINES)}")
    # An engine that runs on CPUs alone implies the device, even on a machine with a GPU.
    picked = "cpu" if device == "auto" and row is not None and row.devices == _CPU else pick_device(device)
    kind = picked.partition(":")[0]
    undecided = precision == AUTO and kind == "cuda"
    precision = "float32" if precision == AUTO else precision
    default = next((r for r in ENGINES.values() if kind in r.devices and precision in r.precisions), None)
    if default is None:
        raise DeviceError(f"no engine computes in {precision} on {picked}")
    row = row or default
    if kind not in row.devices:
        raise DeviceError(f"engine {row.name} does not run on {picked}; engine {default.name} does")
    if precision not in row.precisions:
        only = ", ".join(sorted(row.precisions))
        raise DeviceError(f"engine {row.name} computes in {only} only; engine {default.name} computes in {precision}")
    largest = max_batch_size or _LARGEST_BATCH[kind]
    return Loader(row.name, picked, AUTO if undecided else precision, threads, cache_dir, largest)


def pick_device(wanted: str) -> str:
    """Resolves ``auto``, ``cpu``, ``cuda`` or ``cuda:N`` to ``cpu`` or ``cuda:N``; ``auto`` is a GPU if there is one.

    Raises:
        DeviceError: this machine does not have the device.
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
    """The name of a device's file of profiles: ``cpu-2-cores``, or a GPU's name in lower case with hyphens."""
    if device == "cpu":
        return f"cpu-{len(os.sched_getaffinity(0))}-cores"
    return re.sub(r"[^a-z0-9]+", "-", device_name(device).lower()).strip("-")


def _has_driver() -> bool:
    """Whether a GPU is likely. Asking torch takes seconds and memory that a CPU engine does not need."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") == ""
    return not hidden and any(Path("/proc/driver/nvidia/gpus").glob("*"))
