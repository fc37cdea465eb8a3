"""What comes of a picture, and the bounds within which a predictor works."""

from __future__ import annotations

from dataclasses import dataclass

#: Classes that an engine gives for each picture: the most that a caller may ask for.
MAX_K = 10


@dataclass(frozen=True, slots=True)
class Prediction:
    """The most probable classes of one picture, and where its time went. Plain data that crosses processes."""

    probabilities: tuple[float, ...]
    indices: tuple[int, ...]
    batch_size: int
    decode_s: float
    queue_s: float
    forward_s: float
    distribution: bytes | None = None
    """The probabilities of all classes in the order of their numbers, float32 as they lie in memory; only where they
    were asked for."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a predictor."""

    max_batch_size: int = 16
    max_queue: int = 512
    max_queue_bytes: int = 256_000_000
    """Of encoded pictures that are being decoded, and of decoded ones that wait."""
    max_pixels: int = 80_000_000
