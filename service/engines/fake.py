"""An engine without a network: its answers follow from the pixels, so that tests know them beforehand."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from models.checkpoints.catalogue import Checkpoint
from models.checkpoints.labels import labels
from service.domain.prediction import MAX_K
from service.engines import TopK


@dataclass
class FakeEngine:
    """Answers with the brightest byte of a picture, modulo the number of classes, and with the classes that follow it.
    The first has probability 1/2 and each following one half of the one before; classes beyond ``MAX_K`` have 0.

    Args:
        checkpoint: whose label set to answer with.
        seconds: the duration of a forward pass, for every batch size.
        poison: a picture whose first byte is this makes the whole batch fail, as a defect of an engine would.
    """

    checkpoint: Checkpoint
    seconds: float = 0.0
    poison: int | None = None
    batches: list[int] = field(default_factory=list)
    """Sizes of the batches that were run."""

    @property
    def any_thread(self) -> bool:
        return False

    @property
    def bytes_held(self) -> int:
        return self.checkpoint.costs.params * 4

    def warm_up(self, largest: int) -> None:
        pass

    def run(self, crops: npt.NDArray[np.uint8], whole: bool = False) -> TopK:
        time.sleep(self.seconds)
        self.batches.append(len(crops))
        flat = crops.reshape(len(crops), -1)
        if self.poison is not None and (flat[:, 0] == self.poison).any():
            raise RuntimeError("poisoned batch")
        classes = len(labels(self.checkpoint.labels))
        k = min(MAX_K, classes)
        indices = (flat.max(axis=1, keepdims=True).astype(np.int64) + np.arange(k)) % classes
        probabilities = np.tile((0.5 ** np.arange(1, k + 1)).astype(np.float32), (len(crops), 1))
        if not whole:
            return TopK(probabilities, indices)
        distributions = np.zeros((len(crops), classes), np.float32)
        np.put_along_axis(distributions, indices, probabilities, axis=1)
        return TopK(probabilities, indices, distributions)

    def close(self) -> None:
        pass
