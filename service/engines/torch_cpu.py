"""The plain engine: the unchanged network in PyTorch on a CPU, as a reference for the other engines."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from models.checkpoints.build import build_checkpoint
from models.checkpoints.catalogue import Checkpoint
from models.checkpoints.tensors import normalised, top_k
from service.domain.prediction import MAX_K
from service.engines import TopK, blank, give_memory_back


class TorchCpu:
    """Loads a checkpoint.

    Args:
        checkpoint: the checkpoint to run.
        precision: ``float32``, ``bfloat16`` or ``float16``; weights and activations alike.
        threads: threads of one forward pass. Set explicitly, because Ray limits OpenMP to one thread.

    Raises:
        WeightsMissingError, WrongWeightsError: see ``models.checkpoints.build.build_checkpoint``.
    """

    def __init__(self, checkpoint: Checkpoint, *, precision: str, threads: int) -> None:
        self._preprocess = checkpoint.preprocess
        self._dtype: torch.dtype = getattr(torch, precision)
        self._threads = threads
        network = build_checkpoint(checkpoint).requires_grad_(False)
        # A batch of pictures is channels last in memory anyway, and that layout is faster.
        self._network = network.to(self._dtype).to(memory_format=torch.channels_last)

    @property
    def bytes_held(self) -> int:
        return sum(p.numel() * p.element_size() for p in self._network.parameters())

    any_thread = False  # OpenMP has a pool of threads for each thread that calls it

    def warm_up(self, largest: int) -> None:
        # This engine prepares nothing for a batch size, and a large batch would block the device for seconds.
        self.run(blank(self._preprocess, min(1, largest)))

    @torch.inference_mode()
    def run(self, crops: npt.NDArray[np.uint8], whole: bool = False) -> TopK:
        if torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        x = normalised(torch.from_numpy(crops), self._preprocess).to(self._dtype)
        logits = self._network(x)
        distributions = torch.empty(logits.shape) if whole else None
        probabilities, indices = top_k(logits, MAX_K, distributions)
        return TopK(probabilities.numpy(), indices.numpy(), None if distributions is None else distributions.numpy())

    def close(self) -> None:
        del self._network
        give_memory_back()
