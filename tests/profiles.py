"""Profiles with chosen values, and a stand-in for ``Profiler`` that has them."""

from __future__ import annotations

from typing import Any

from models.checkpoints.catalogue import Checkpoint
from service.engines.fingerprint import Fingerprint
from service.profiling.profiles import Latency, Profile

FINGERPRINT = Fingerprint(
    device="a CPU",
    engine="onnx_cpu",
    precision="float32",
    threads=2,
    max_batch_size=16,
    libraries={"onnxruntime": "1.0"},
    weights="seeded",
)


def latency(ms: float, spread: float = 1.0) -> Latency:
    """``ms`` on average, mostly less and at times much more; ``spread`` is the 95th percentile over the mean."""
    return Latency(mean_ms=ms, p50_ms=0.8 * ms, p95_ms=spread * ms, p99_ms=2 * spread * ms, runs=100)


def profile(
    checkpoint: str = "lenet5@mnist",
    *,
    forward_ms: float = 1.0,
    spread: float = 1.0,
    footprint_mb: float = 1.0,
    load_ms: float = 1.0,
    measured_at: str = "2026-01-01T00:00:00+00:00",
    fingerprint: Fingerprint = FINGERPRINT,
    **differing: Any,
) -> Profile:
    """A profile by which a picture takes ``forward_ms`` in a batch too; ``differing`` are fields of the fingerprint."""
    return Profile(
        checkpoint=checkpoint,
        fingerprint=fingerprint.model_copy(update=differing),
        measured_at=measured_at,
        quick=True,
        forward={1: latency(forward_ms, spread)},
        decode={},
        load_cold_ms=None,
        load_cached_ms=load_ms,
        footprint_bytes=round(footprint_mb * 1e6),
        load_peak_bytes=round(footprint_mb * 1e6),
    )


class Measured:
    """The part of ``Profiler`` that a placement uses: nothing is on file, and measuring gives these profiles."""

    def __init__(self, *profiles: Profile) -> None:
        self._profiles = {profile.checkpoint: profile for profile in profiles}

    def nearest(self, _checkpoint: Checkpoint) -> Profile | None:
        return None

    def ensure(self, checkpoint: Checkpoint, *, measure: bool = True) -> Profile | None:
        return self._profiles.get(checkpoint.name)
