"""The CPU engine: a checkpoint's exported graph in ONNX Runtime, without torch."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

from models.checkpoints.catalogue import Checkpoint
from models.onnx.graph_cache import Damaged, cached_graph
from service.engines import TopK, blank, give_memory_back

log = logging.getLogger(__name__)

#: A batch is computed in parts whose activations (by the analytic count, several times what is alive at once) take no
#: more than the weights do, or than this where the weights are small. Larger parts are no faster on a CPU.
_LEAST_BYTES = 160_000_000


class OnnxCpu:
    """Loads a checkpoint's graph, which is exported first where the cache does not have it.

    Args:
        checkpoint: what to run.
        threads: threads of one forward pass.
        cache_dir: where graphs are kept.

    Raises:
        WeightsMissingError, WrongWeightsError, ExportError: see ``graph_cache.cached_graph``.
        MemoryError, OSError: it cannot be loaded now.
        DamagedGraphError: the graph does not parse, nor does the one that was exported in its place.
    """

    def __init__(self, checkpoint: Checkpoint, *, threads: int, cache_dir: Path) -> None:
        path = cached_graph(checkpoint, cache_dir)
        found = Damaged.at(path)
        try:
            session = _session(path, threads)
        except DamagedGraphError as error:
            # A crash cut it short. A new one takes its place; whatever else is wrong is none of the file's fault.
            log.warning("%s is damaged and is exported again: %s", path, error)
            path = cached_graph(checkpoint, cache_dir, damaged=found)
            session = _session(path, threads)
        self._preprocess = checkpoint.preprocess
        costs = checkpoint.costs
        self._at_once = max(1, max(_LEAST_BYTES, 4 * costs.params) // (4 * costs.activations))
        self._session: onnxruntime.InferenceSession | None = session
        self.bytes_held = path.stat().st_size
        """The file is little more than the weights."""

    def warm_up(self, largest: int) -> None:
        # Nothing is prepared for a batch size here, and a large batch would hold up the device for seconds.
        self.run(blank(self._preprocess, min(1, largest)))

    def run(self, crops: npt.NDArray[np.uint8], whole: bool = False) -> TopK:
        assert self._session is not None
        wanted = ["probabilities", "indices", "distribution"] if whole else ["probabilities", "indices"]
        parts = [crops[start : start + self._at_once] for start in range(0, len(crops), self._at_once)]
        answers = [self._session.run(wanted, {"crops": part}) for part in parts]
        return TopK(*(np.concatenate(arrays) for arrays in zip(*answers, strict=True)))

    def close(self) -> None:
        self._session = None
        give_memory_back()


class DamagedGraphError(RuntimeError):
    """A graph file does not parse."""


def _session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    """Loads a graph.

    Raises:
        DamagedGraphError: the file does not parse.
        MemoryError, OSError: memory, a thread or the file was not to be had.
        Exception: whatever else ONNX Runtime raises.
    """
    try:
        # Without its "fallback", which tries the same once more and prints banners.
        return onnxruntime.InferenceSession(
            str(path), session_options(threads), providers=["CPUExecutionProvider"], enable_fallback=0
        )
    except Exception as error:
        raise _meaning(error) from error


def _meaning(error: Exception) -> Exception:
    """An exception of ONNX Runtime as Python has it. Its classes are those of its statuses, which tell a graph that is
    damaged, but not why else a load fails; that is in the text."""
    text = " ".join(str(error).split())
    if "bad_alloc" in text or isinstance(error, MemoryError):
        return MemoryError(text)
    number = re.search(r"system error number (\d+)|error code: ?(\d+)", text)
    if number is not None:
        return OSError(int(number[1] or number[2]), text)
    if isinstance(error, UnicodeDecodeError) or type(error).__name__ in _DAMAGED:
        return DamagedGraphError(text)
    return error


#: Statuses of ONNX Runtime for a file that does not parse, or whose operators do not go together.
_DAMAGED = {"InvalidProtobuf", "InvalidGraph", "InvalidArgument", "Fail", "NotImplemented"}


def session_options(threads: int) -> onnxruntime.SessionOptions:
    """Threads and spinning said outright."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # A spinning thread would burn the cores that decode pictures and answer HTTP.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # A pattern a batch size would be kept, and never given back: at 16 sizes hundreds of megabytes.
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    return options
