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

#: A batch is computed in parts, since large parts are no faster on a CPU. The activations of a part, by the analytic
#: count (several times what is alive at once), take at most as many bytes as the weights, or this many if that is more.
_LEAST_BYTES = 160_000_000
#: A network with fewer multiply-adds for a picture computes faster in one thread: handing work to a second one takes
#: longer than the work. LeNet-5 has 0.3 million, the next larger network 700 million.
_FEW_MULTIPLY_ADDS = 10_000_000


class OnnxCpu:
    """Loads a checkpoint's graph; the graph is exported first if the cache does not have it.

    Args:
        checkpoint: the checkpoint to run.
        threads: threads of one forward pass.
        cache_dir: the folder of exported graphs.

    Raises:
        WeightsMissingError, WrongWeightsError, ExportError: see ``graph_cache.cached_graph``.
        MemoryError, OSError: it cannot be loaded now.
        DamagedGraphError: the graph does not parse, and neither does the one that was exported in its place.
    """

    def __init__(self, checkpoint: Checkpoint, *, threads: int, cache_dir: Path) -> None:
        if checkpoint.costs.multiply_adds < _FEW_MULTIPLY_ADDS:
            threads = 1
        path = cached_graph(checkpoint, cache_dir)
        found = Damaged.at(path)
        try:
            session = _session(path, threads)
        except DamagedGraphError as error:
            # A crash may have cut the file short. Other errors are not the file's fault and do not replace it.
            log.warning("%s is damaged and is exported again: %s", path, error)
            path = cached_graph(checkpoint, cache_dir, damaged=found)
            session = _session(path, threads)
        self._preprocess = checkpoint.preprocess
        costs = checkpoint.costs
        self._at_once = max(1, max(_LEAST_BYTES, 4 * costs.params) // (4 * costs.activations))
        self._session: onnxruntime.InferenceSession | None = session
        self.bytes_held = path.stat().st_size
        """The file's size, which is little more than the weights'."""

    any_thread = True

    def warm_up(self, largest: int) -> None:
        # This engine prepares nothing for a batch size, and a large batch would block the device for seconds.
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
        MemoryError, OSError: there was no memory or thread for it, or the file could not be read.
        Exception: any other error of ONNX Runtime.
    """
    try:
        # ONNX Runtime's "fallback" would try the same once more and print banners.
        return onnxruntime.InferenceSession(
            str(path), session_options(threads), providers=["CPUExecutionProvider"], enable_fallback=0
        )
    except Exception as error:
        raise _meaning(error) from error


def _meaning(error: Exception) -> Exception:
    """Translates an exception of ONNX Runtime into a built-in one or one of this package.

    Its exception classes identify a damaged graph, but not other causes of a failed load; those are only in the text.
    """
    text = " ".join(str(error).split())
    if "bad_alloc" in text or isinstance(error, MemoryError):
        return MemoryError(text)
    number = re.search(r"system error number (\d+)|error code: ?(\d+)", text)
    if number is not None:
        return OSError(int(number[1] or number[2]), text)
    if isinstance(error, UnicodeDecodeError) or type(error).__name__ in _DAMAGED:
        return DamagedGraphError(text)
    return error


#: ONNX Runtime's exceptions for a file that does not parse or whose operators do not fit together.
_DAMAGED = {"InvalidProtobuf", "InvalidGraph", "InvalidArgument", "Fail", "NotImplemented"}


def session_options(threads: int) -> onnxruntime.SessionOptions:
    """Options for a session with that many threads, which do not spin."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # A spinning thread would take the cores that decode pictures and answer HTTP.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # ONNX Runtime keeps a memory pattern for each batch size and never frees it: hundreds of megabytes for 16 sizes.
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    return options
