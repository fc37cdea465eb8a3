"""A device that is only pretended: it takes its time and computes nothing, so that what is around it can be measured.

A fleet names it: ``engine = "pretend"``. No engine is chosen in its favour, and it serves no trained checkpoint: every
answer says ``"trained": false``.
"""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt

from models.checkpoints.catalogue import Checkpoint
from service.engines import DeviceError, TopK
from service.engines.fake import FakeEngine

#: 5,000 pictures a second: more than decoding on a few cores can keep busy.
SECONDS_PER_PICTURE = 0.0002


class PretendEngine(FakeEngine):
    """Answers as ``FakeEngine`` does, after 0.2 ms for each picture in the batch, in which it uses no CPU. It holds as
    much memory as the network's weights would.

    Raises:
        DeviceError: the checkpoint has trained weights, whose answers these would be taken for.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        refuse_trained(checkpoint)
        super().__init__(checkpoint)
        # Not zeros, which take no memory before they are written to.
        self._weights = np.ones(self.bytes_held, np.uint8)

    def run(self, crops: npt.NDArray[np.uint8], whole: bool = False) -> TopK:
        time.sleep(SECONDS_PER_PICTURE * len(crops))
        top = super().run(crops, whole)
        # They would be counted for as long as the service runs.
        self.batches.clear()
        return top

    def close(self) -> None:
        del self._weights


def refuse_trained(checkpoint: Checkpoint) -> None:
    """Raises:
    DeviceError: the checkpoint has trained weights.
    """
    if checkpoint.trained:
        raise DeviceError(f"engine pretend computes nothing, so it does not answer for {checkpoint.name}: --untrained")
