"""Where predictors live, as the router, the classifier and HTTP see it. ``runtime/placement.py`` has them in this
process, ``cluster/remote.py`` in deployments of Ray Serve."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from models.checkpoints.catalogue import Checkpoint
from service.domain.errors import Failure, LoadFailedError
from service.domain.prediction import Prediction
from service.domain.snapshot import DeviceLoad, Snapshot


class Predicts(Protocol):
    """What the HTTP layer needs of a predictor, wherever it is."""

    async def predict(self, image: bytes, deadline: float, whole: bool = False) -> Prediction | Failure: ...


class Memory(NamedTuple):
    """A device's ledger: bytes."""

    device: str
    limit: int
    held: int


class Survey(NamedTuple):
    """Checkpoints and the load of their devices, as the router takes them."""

    snapshots: list[tuple[Checkpoint, Snapshot | None]]
    """None where nothing is known of a checkpoint, or nobody is there to serve it."""
    load: DeviceLoad


class Placement(Protocol):
    """What the HTTP layer needs of all of them."""

    def predictor(self, checkpoint: Checkpoint) -> Predicts:
        """The predictor that serves a loadable checkpoint."""
        ...

    def resident(self, checkpoint: Checkpoint) -> bool:
        """Whether the checkpoint is loaded and warm."""
        ...

    def serves(self, checkpoint: Checkpoint) -> bool:
        """Whether the router may pick this loadable checkpoint: it has a place, and no failed load keeps it waiting."""
        ...

    def failure(self, checkpoint: Checkpoint) -> LoadFailedError | None:
        """Why the last load of this loadable checkpoint failed; None where it did not."""
        ...

    def check_ready(self) -> None:
        """Raises NotReadyError, saying what is still being done, until the service is ready, and when it stops.
        LoadFailedError where nothing of what is to be served could be loaded."""
        ...

    def survey(self, checkpoints: Sequence[Checkpoint], encoded_bytes: int, deadline: float = math.inf) -> Survey:
        """How checkpoints stand now, for a picture of that size with that deadline."""
        ...

    def memory(self) -> list[Memory]:
        """The ledgers."""
        ...

    async def load(self, checkpoint: Checkpoint) -> Failure | None:
        """Loads a checkpoint, unless it is loaded. Errors are values, as a prediction's are."""
        ...

    async def unload(self, checkpoint: Checkpoint, *, wait: bool) -> Failure | None:
        """Gives a checkpoint's memory back, at once or once its requests are answered."""
        ...
