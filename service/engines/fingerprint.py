"""A fingerprint: what a checkpoint runs with. A profile measured with another fingerprint does not quite apply."""

from __future__ import annotations

import hashlib

from pydantic import BaseModel, ConfigDict

from models.checkpoints.accuracies import file_digest
from models.checkpoints.catalogue import Checkpoint, WeightsMissingError

#: The precision that is chosen for each checkpoint: see ``profiling/precision.py``.
AUTO = "auto"


class Fingerprint(BaseModel):
    """What decides how fast a checkpoint runs."""

    model_config = ConfigDict(frozen=True)

    device: str
    """``AMD EPYC, 2 cores``, or the name of a GPU."""
    engine: str
    precision: str
    """What was computed in; of a wanted fingerprint also ``AUTO``."""
    threads: int
    """Threads of one forward pass on a CPU; 0 on a GPU."""
    max_batch_size: int
    libraries: dict[str, str]
    """Version by name, of the libraries that the engine computes with."""
    weights: str
    """The first 16 hexadecimal digits of the weight file's SHA-256, or ``seeded`` for random weights."""

    @property
    def settings(self) -> str:
        """A digest of everything but the weights, in eight hexadecimal digits."""
        told = self.model_dump_json(exclude={"weights"})
        return hashlib.sha256(told.encode()).hexdigest()[:8]

    def differences(self, other: Fingerprint) -> list[str]:
        """Lists the fields in which ``other`` differs, as in "threads 1 instead of 2"."""
        pairs = [(name, getattr(self, name), getattr(other, name)) for name in type(self).model_fields]
        return [f"{name} {theirs} instead of {ours}" for name, ours, theirs in pairs if ours != theirs]


def weights_digest(checkpoint: Checkpoint) -> str:
    """Computes ``Fingerprint.weights``. Reads the whole file.

    Raises:
        WeightsMissingError: the file is gone.
    """
    if checkpoint.path is None:
        return "seeded"
    try:
        return file_digest(checkpoint.path)
    except FileNotFoundError as error:
        raise WeightsMissingError(checkpoint) from error
