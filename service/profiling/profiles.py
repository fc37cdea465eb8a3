"""Profiles: what each checkpoint was measured to take on a device, and the files that keep them.

``topfive profile`` measures (``profiling.py``) and writes ``weights/profiles/<device>.json``; what a service measures
at its start goes into the cache folder, under ``profiles/``, a file for each way of measuring: services with other
threads or batches that share a cache do not overwrite each other's. A profile says by its fingerprint what it was
measured with; one with another fingerprint is *foreign*: measured anew, or used with a warning.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import statistics
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from models.checkpoints.catalogue import Checkpoint, WeightsMissingError
from models.files import atomic_write

log = logging.getLogger(__name__)

#: Of the file format. A file of a later version is not guessed at.
VERSION = 1
#: Size classes of encoded pictures: the most bytes of each. A larger file counts as huge too.
SIZE_CLASSES: dict[str, int] = {
    "thumbnail": 4_096,
    "small": 65_536,
    "medium": 524_288,
    "large": 4_194_304,
    "huge": 20_000_000,
}


class Latency(BaseModel):
    """Milliseconds of something that was done ``runs`` times."""

    model_config = ConfigDict(frozen=True)

    mean_ms: float = Field(gt=0, allow_inf_nan=False)
    p50_ms: float = Field(gt=0, allow_inf_nan=False)
    p95_ms: float = Field(gt=0, allow_inf_nan=False)
    p99_ms: float = Field(gt=0, allow_inf_nan=False)
    runs: int = Field(ge=1)

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Latency:
        """Percentiles by linear interpolation between the runs."""
        mean, p50, p95, p99 = (
            round(1000 * value, 3)
            for value in (statistics.fmean(seconds), *(quantile(seconds, q) for q in (0.5, 0.95, 0.99)))
        )
        return cls(mean_ms=mean, p50_ms=p50, p95_ms=p95, p99_ms=p99, runs=len(seconds))


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


class Profile(BaseModel):
    """Of one checkpoint on one device."""

    model_config = ConfigDict(frozen=True)

    checkpoint: str
    fingerprint: Fingerprint
    measured_at: str
    """ISO 8601, UTC."""
    quick: bool
    """A few batches at a start, rather than ``topfive profile``."""
    forward: dict[PositiveInt, Latency] = Field(min_length=1)
    """By batch size."""
    decode: dict[str, Latency]
    """By size class of the encoded picture, the cut to the network's input among it."""
    load_cold_ms: float | None = Field(gt=0, allow_inf_nan=False)
    """With everything to be made first, as after an import; None where that was not measured."""
    load_cached_ms: float = Field(gt=0, allow_inf_nan=False)
    """Until it is warm, with its graph in the cache."""
    footprint_bytes: int = Field(gt=0)
    """Serving at the largest batch. CPU: growth of the resident set; GPU: peak allocated plus the context's share."""
    load_peak_bytes: int = Field(gt=0)
    """While it loads and warms up; most loaders hold the weights twice for a moment."""


class ProfileFile(BaseModel):
    """A whole file."""

    version: Literal[1] = 1
    device: str
    profiles: dict[str, Profile] = {}
    """By checkpoint."""


class Found(NamedTuple):
    """A profile that may serve for a checkpoint."""

    profile: Profile
    foreign: list[str]
    """What differs from the wanted fingerprint; empty if nothing does."""


class Profiles:
    """The profiles of a device: the shipped ones, and over them this machine's own.

    Args:
        cache_dir: below which this machine's own profiles are kept.
        device: the file's name, as ``device_slug`` gives it.
    """

    def __init__(self, cache_dir: Path, device: str) -> None:
        self._folder = cache_dir / "profiles"
        self._device = device
        # With and without a name for the settings: ``topfive profile`` writes the latter.
        own = sorted(self._folder.glob(f"{device}.????????.json"))
        paths = (shipped_folder() / f"{device}.json", self._folder / f"{device}.json", *own)
        self._files = [file for file in map(read_profiles, paths) if file is not None]

    def find(self, checkpoint: Checkpoint, wanted: Fingerprint) -> Found | None:
        """The profile with the fingerprint, else the nearest foreign one; None if there is none."""
        near = self._near(checkpoint)
        found = [Found(profile, wanted.differences(profile.fingerprint)) for profile in near]
        return next((f for f in found if not f.foreign), found[0] if found else None)

    def nearest(self, checkpoint: Checkpoint, settings: str = "") -> Profile | None:
        """The nearest one, whatever its fingerprint; of this checkpoint those with these settings first."""
        near = self._near(checkpoint)
        near.sort(key=lambda p: (p.checkpoint != checkpoint.name, p.fingerprint.settings != settings))
        return next(iter(near), None)

    def _near(self, checkpoint: Checkpoint) -> list[Profile]:
        """Of this checkpoint before those of the same variant with other weights, and the newest first."""
        same = [
            profile
            for file in self._files
            for profile in file.profiles.values()
            if profile.checkpoint.partition("@")[0] == checkpoint.variant.name
        ]
        same.sort(key=lambda p: p.measured_at, reverse=True)
        return sorted(same, key=lambda p: p.checkpoint != checkpoint.name)

    def keep(self, profile: Profile) -> None:
        """Adds a profile to this machine's own, for the next start too. A cache that cannot be written to costs
        a measurement at each start, and no more."""
        self._files.append(ProfileFile(device=self._device, profiles={profile.checkpoint: profile}))
        path = self._folder / f"{self._device}.{profile.fingerprint.settings}.json"
        try:
            add_profiles(path, self._device, [profile])
        except OSError as error:
            log.warning("the profile of %s cannot be kept: %s", profile.checkpoint, error)


def read_profiles(path: Path) -> ProfileFile | None:
    """A file of profiles; None if there is none, and with one line in the log if it cannot be used."""
    try:
        text = path.read_text(encoding="utf-8")
        found = json.loads(text)
        version = found.get("version") if isinstance(found, dict) else None
        if version != VERSION:
            raise ValueError(f"version {version!r} instead of {VERSION}")
        return ProfileFile.model_validate(found)
    except FileNotFoundError:
        return None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    except (OSError, ValueError, RecursionError) as error:
        reason = str(error)
    log.warning("profiles in %s cannot be used (%s); what they were for is measured anew", path, reason)
    return None


def add_profiles(path: Path, device: str, profiles: Iterable[Profile]) -> None:
    """Puts profiles into a file, beside those of other checkpoints, whole or not at all. Processes take turns.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = read_profiles(path)
        if before is None:
            before = ProfileFile(device=device)
            with contextlib.suppress(FileNotFoundError):
                # Of a later version, perhaps: somebody may want it back.
                path.replace(path.with_suffix(".json.old"))
        together = before.profiles | {profile.checkpoint: profile for profile in profiles}
        after = ProfileFile(device=device, profiles=dict(sorted(together.items())))
        with atomic_write(path) as part:
            part.write_text(after.model_dump_json(indent=1) + "\n", encoding="utf-8")


def shipped_folder() -> Path:
    """``weights/profiles``."""
    return Path(str(resources.files("weights"))) / "profiles"


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


def size_class(encoded_bytes: int) -> str:
    """The size class of an encoded picture."""
    return next((name for name, most in SIZE_CLASSES.items() if encoded_bytes <= most), "huge")


def quantile(values: Sequence[float], q: float) -> float:
    """By linear interpolation between the ordered values."""
    ordered = sorted(values)
    place = q * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)
