"""Placement: the protocol behind which predictors live, in this process (``runtime/placement.py``) or in deployments
of Ray Serve (``cluster/remote.py``). The router, the classifier and HTTP know no more than this."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from models.checkpoints.catalogue import Checkpoint
from models.images.outline import Outline
from service.domain.errors import Failure, LoadFailedError
from service.domain.picture import Picture
from service.domain.prediction import Prediction
from service.domain.snapshot import DeviceLoad, Snapshot


class Predicts(Protocol):
    """One checkpoint, or one ensemble, that can be asked for predictions."""

    async def predict(
        self, image: bytes | Picture, deadline: float, whole: bool = False, caller: str = ""
    ) -> Prediction | Failure:
        """Classifies one picture.

        Args:
            image: the bytes of an encoded picture, or a picture whose bytes another process has.
            deadline: when the answer is due, on the service's monotonic clock.
            whole: whether the prediction has the probabilities of all classes (``distribution``).
            caller: who asks.
        """
        ...


class Memory(NamedTuple):
    """The ledger of a device's memory, in bytes."""

    device: str
    limit: int
    """What all loaded checkpoints may hold together."""
    held: int
    """What they hold now."""


class Survey(NamedTuple):
    """The state of checkpoints and devices at one moment, on which the router decides."""

    snapshots: list[tuple[Checkpoint, Snapshot | None]]
    """Each checkpoint with its snapshot; None where nothing is known of it, or nothing serves it."""
    load: DeviceLoad


class Placement(Protocol):
    """Where the predictors of all checkpoints live."""

    def predictor(self, checkpoint: Checkpoint) -> Predicts:
        """The predictor that serves a loadable checkpoint."""
        ...

    def at_once(self, checkpoint: Checkpoint, within_s: float) -> Checkpoint | None:
        """The checkpoint that serves a loadable checkpoint, if it is in memory, its queue has a place, and so few
        pictures wait that another is answered long before ``within_s`` seconds are over; else None. Costs next to
        nothing: no snapshot is taken."""
        ...

    def resident(self, checkpoint: Checkpoint) -> bool:
        """Whether the checkpoint is loaded and warm."""
        ...

    def serves(self, checkpoint: Checkpoint) -> bool:
        """Whether the router may pick this loadable checkpoint: something hosts it, and it is not waiting for another
        attempt after a load that failed."""
        ...

    def failure(self, checkpoint: Checkpoint) -> LoadFailedError | None:
        """Why the last load of this loadable checkpoint failed; None if it succeeded, or there was none."""
        ...

    def check_ready(self) -> None:
        """Returns if the service is ready.

        Raises:
            NotReadyError: it is starting, and the text says what it is doing; or it is stopping.
            LoadFailedError: none of the checkpoints that it should serve could be loaded.
        """
        ...

    def survey(
        self,
        checkpoints: Sequence[Checkpoint],
        encoded_bytes: int,
        deadline: float = math.inf,
        caller: str = "",
        outline: Outline | None = None,
    ) -> Survey:
        """Takes snapshots of checkpoints for a caller's picture with this many encoded bytes, this deadline, and this
        outline if it is known."""
        ...

    def memory(self) -> list[Memory]:
        """The memory ledger of each device."""
        ...

    async def load(self, checkpoint: Checkpoint) -> Failure | None:
        """Loads a checkpoint unless it is loaded. Returns an error as a value, as predictions do."""
        ...

    async def unload(self, checkpoint: Checkpoint, *, wait: bool) -> Failure | None:
        """Frees a checkpoint's memory; with ``wait``, after the requests in flight, else only if there are none."""
        ...
