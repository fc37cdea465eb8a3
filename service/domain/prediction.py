"""A prediction, and the limits of the predictor that makes it."""

from __future__ import annotations

from dataclasses import dataclass

#: Classes that an engine gives for each picture: the most that a caller may ask for.
MAX_K = 10


@dataclass(frozen=True, slots=True)
class Prediction:
    """The most probable classes of one picture, and how long each step took. Plain data that crosses processes."""

    probabilities: tuple[float, ...]
    """The highest first."""
    indices: tuple[int, ...]
    """The class number of each probability."""
    batch_size: int
    """Pictures in the forward pass that this one was part of."""
    decode_s: float
    queue_s: float
    forward_s: float
    distribution: bytes | None = None
    """The probabilities of all classes by class number, float32 as in memory; None unless they were asked for."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a predictor."""

    max_batch_size: int = 16
    max_queue: int = 512
    max_queue_bytes: int = 256_000_000
    """For encoded pictures that are being decoded, and decoded ones that wait, together."""
    max_pixels: int = 80_000_000
