"""A fingerprint: device, engine, versions and weights that a checkpoint runs with."""

from __future__ import annotations

import hashlib

from pydantic import BaseModel, ConfigDict

from models.checkpoints.catalogue import Checkpoint, WeightsMissingError


class Fingerprint(BaseModel):
    """What a profile was measured with."""

    model_config = ConfigDict(frozen=True)

    device: str
    """``AMD EPYC, 2 cores``, or the name of a GPU."""
    engine: str
    precision: str
    threads: int
    max_batch_size: int
    libraries: dict[str, str]
    """Versions of what the engine computes with."""
    weights: str
    """The first 16 hexadecimal digits of the weight file's SHA-256; ``seeded`` for random weights."""

    @property
    def settings(self) -> str:
        """A name for all of it but the weights, in eight hexadecimal digits."""
        told = self.model_dump_json(exclude={"weights"})
        return hashlib.sha256(told.encode()).hexdigest()[:8]

    def differences(self, other: Fingerprint) -> list[str]:
        """In words, what ``other`` was measured with instead."""
        pairs = [(name, getattr(self, name), getattr(other, name)) for name in type(self).model_fields]
        return [f"{name} {theirs} instead of {ours}" for name, ours, theirs in pairs if ours != theirs]


def weights_digest(checkpoint: Checkpoint) -> str:
    """What the fingerprint says of the weights. Reads the whole file.

    Raises:
        WeightsMissingError: they have gone.
    """
    if checkpoint.path is None:
        return "seeded"
    try:
        with checkpoint.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except FileNotFoundError as error:
        raise WeightsMissingError(checkpoint) from error
