"""Scenarios and files of profiles for tests of the simulation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from service.profiling.profiles import Profile, add_profiles
from service.twin.scenario import Budget, Device, PictureKind, Scenario
from tests.profiles import latency, profile

#: A picture that takes next to no time to decode.
TINY = PictureKind(width=8, height=8, bytes=100)


def profiles_in(folder: Path, *profiles: Profile) -> str:
    """A file with these profiles."""
    path = folder / "device.json"
    add_profiles(path, "device", profiles)
    return str(path)


def network(name: str, forward_ms: float, **options: Any) -> Profile:
    """A profile of a network's random weights."""
    return profile(f"{name}@untrained", forward_ms=forward_ms, **options)


def in_batches(name: str, by_size: dict[int, float], **options: Any) -> Profile:
    """The same with milliseconds for several batch sizes."""
    forward = {size: latency(ms) for size, ms in by_size.items()}
    return network(name, by_size[1], **options).model_copy(update={"forward": forward})


def scenario(device: str, *queries: str, **fields: Any) -> Scenario:
    """One device, one row for each query, tiny pictures, and no chance in what things take."""
    options = {
        name: fields.pop(name) for name in ("max_batch_size", "memory_mb", "variants", "count") if name in fields
    }
    mix = tuple(Budget(query=query, picture=TINY) for query in queries)
    return Scenario(**{"spread": False, "device": (Device(profile=device, **options),), "mix": mix, **fields})
