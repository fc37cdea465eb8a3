"""Profiles: what checkpoints take on a device, as measured, and the files that keep them.

``topfive profile`` writes ``weights/profiles/<device>.json``. A service that measures at its start writes to
``profiles/`` in the cache folder, one file for each combination of settings, so that services with other threads or
batches that share a cache do not overwrite each other's profiles. The fingerprint of a profile says what it was
measured with. A profile with another fingerprint than wanted is *foreign*: a new one replaces it, or it is used with a
warning.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import statistics
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from models.checkpoints.catalogue import Checkpoint
from models.files import atomic_write
from models.images.cost import Rate
from models.validation import first_error
from service.domain.quantile import quantile
from service.engines.fingerprint import AUTO, Fingerprint
from service.profiling.precision import Choice
from service.profiling.precision_pictures import VERSION as PICTURES

log = logging.getLogger(__name__)

#: Version of the file format. Files of other versions are not read.
VERSION = 1
#: Size classes of encoded pictures, with the most bytes of each. Even larger files count as huge too.
SIZE_CLASSES: dict[str, int] = {
    "thumbnail": 4_096,
    "small": 65_536,
    "medium": 524_288,
    "large": 4_194_304,
    "huge": 20_000_000,
}
#: The same as two sequences, the second with a name more, for ``bisect``.
_MOST_BYTES, _CLASSES = tuple(SIZE_CLASSES.values()), (*SIZE_CLASSES, "huge")


class Latency(BaseModel):
    """Milliseconds of work that was done ``runs`` times."""

    model_config = ConfigDict(frozen=True)

    mean_ms: float = Field(gt=0, allow_inf_nan=False)
    p50_ms: float = Field(gt=0, allow_inf_nan=False)
    p95_ms: float = Field(gt=0, allow_inf_nan=False)
    p99_ms: float = Field(gt=0, allow_inf_nan=False)
    runs: int = Field(ge=1)

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Latency:
        """Computes mean and percentiles; the latter by linear interpolation between runs."""
        mean, p50, p95, p99 = (
            round(1000 * value, 3)
            for value in (statistics.fmean(seconds), *(quantile(seconds, q) for q in (0.5, 0.95, 0.99)))
        )
        return cls(mean_ms=mean, p50_ms=p50, p95_ms=p95, p99_ms=p99, runs=len(seconds))


class Profile(BaseModel):
    """What one checkpoint takes on one device."""

    model_config = ConfigDict(frozen=True)

    checkpoint: str
    fingerprint: Fingerprint
    measured_at: str
    """ISO 8601, UTC."""
    quick: bool
    """Whether it was measured with a few batches at a service's start, rather than by ``topfive profile``."""
    forward: dict[PositiveInt, Latency] = Field(min_length=1)
    """A forward pass, by batch size."""
    decode: dict[str, Latency]
    """Decoding a picture and cutting it to the network's input, by the picture's size class."""
    decode_rates: dict[str, Rate] | None = None
    """The rates of decoding, by kind of work; None if they were not measured, in a quick measurement."""
    load_cold_ms: float | None = Field(gt=0, allow_inf_nan=False)
    """Loading until warm with an empty cache, as after an import; None if that was not measured."""
    load_cached_ms: float = Field(gt=0, allow_inf_nan=False)
    """Loading until warm, with the graph in the cache."""
    footprint_bytes: int = Field(gt=0)
    """Memory at the largest batch. CPU: growth of the resident set; GPU: peak allocation plus the CUDA context."""
    load_peak_bytes: int = Field(gt=0)
    """Peak memory while loading and warming up; most loaders hold the weights twice for a moment."""
    wake_ms: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Loading until warm from parked weights; None where they are not parked."""
    choice: Choice | None = None
    """Why it was measured in the fingerprint's precision; None if somebody had set that."""

    @property
    def asked_for(self) -> Fingerprint:
        """The fingerprint of the settings with which it was measured: a precision that was chosen is ``AUTO`` there."""
        return self.fingerprint if self.choice is None else self.fingerprint.model_copy(update={"precision": AUTO})

    def differences(self, wanted: Fingerprint) -> list[str]:
        """How it was measured otherwise than wanted; empty if it was not. Where the precision is to be chosen, every
        chosen one is the wanted one."""
        if wanted.precision != AUTO or self.choice is None:
            return wanted.differences(self.fingerprint)
        stale = [] if self.choice.pictures == PICTURES else ["its precision was chosen by other pictures"]
        return wanted.differences(self.asked_for) + stale


class ProfileFile(BaseModel):
    """The content of a file of profiles."""

    version: Literal[1] = 1
    device: str
    profiles: dict[str, Profile] = {}
    """By the checkpoint's name."""


class Found(NamedTuple):
    """A profile that can be used for a checkpoint."""

    profile: Profile
    foreign: list[str]
    """How its fingerprint differs from the wanted one; empty if it does not."""


class Profiles:
    """The profiles of a device: those that ship with the product and those that this machine has measured.

    Args:
        cache_dir: the folder whose ``profiles/`` has this machine's own profiles.
        device: the device's ``device_slug``, which names the files.
    """

    def __init__(self, cache_dir: Path, device: str) -> None:
        self._folder = cache_dir / "profiles"
        self._device = device
        # ``topfive profile`` writes the file without a digest of the settings in its name.
        own = sorted(self._folder.glob(f"{device}.????????.json"))
        paths = (shipped_folder() / f"{device}.json", self._folder / f"{device}.json", *own)
        self._files = [file for file in map(read_profiles, paths) if file is not None]

    @classmethod
    def of_file(cls, path: Path) -> Profiles:
        """The profiles of one file alone; none if it cannot be read."""
        found = cls(path.parent, path.stem)
        file = read_profiles(path)
        found._files = [] if file is None else [file]
        return found

    @property
    def max_batch_size(self) -> int:
        """The largest batch that any of them was measured for; 0 if there are none."""
        every = (profile for file in self._files for profile in file.profiles.values())
        return max((profile.fingerprint.max_batch_size for profile in every), default=0)

    def find(self, checkpoint: Checkpoint, wanted: Fingerprint) -> Found | None:
        """The profile with the wanted fingerprint, or else the nearest foreign one; None if there is none."""
        near = self._near(checkpoint)
        found = [Found(profile, profile.differences(wanted)) for profile in near]
        return next((f for f in found if not f.foreign), found[0] if found else None)

    def nearest(self, checkpoint: Checkpoint, settings: str = "") -> Profile | None:
        """The nearest profile, whatever its fingerprint: this checkpoint's come first, and of those the ones with the
        settings."""
        near = self._near(checkpoint)
        near.sort(key=lambda p: (p.checkpoint != checkpoint.name, p.asked_for.settings != settings))
        return next(iter(near), None)

    def _near(self, checkpoint: Checkpoint) -> list[Profile]:
        """The profiles of the variant: first those of this checkpoint, then those with other weights, newest first."""
        same = [
            profile
            for file in self._files
            for profile in file.profiles.values()
            if profile.checkpoint.partition("@")[0] == checkpoint.variant.name
        ]
        same.sort(key=lambda p: p.measured_at, reverse=True)
        return sorted(same, key=lambda p: p.checkpoint != checkpoint.name)

    def keep(self, profile: Profile) -> None:
        """Adds a profile to this machine's own, also for the next start. If the cache cannot be written to, it logs a
        warning, and each start measures again."""
        self._files.append(ProfileFile(device=self._device, profiles={profile.checkpoint: profile}))
        path = self._folder / f"{self._device}.{profile.asked_for.settings}.json"
        try:
            add_profiles(path, self._device, [profile])
        except OSError as error:
            log.warning("the profile of %s cannot be kept: %s", profile.checkpoint, error)


def read_profiles(path: Path) -> ProfileFile | None:
    """Reads a file of profiles. Returns None if there is none, or, with a warning in the log, if it cannot be used."""
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
        reason = str(first_error(error))
    except (OSError, ValueError, RecursionError) as error:
        reason = str(error)
    log.warning("profiles in %s cannot be used (%s); they are measured again", path, reason)
    return None


def add_profiles(path: Path, device: str, profiles: Iterable[Profile]) -> None:
    """Adds profiles to a file; those of other checkpoints stay. The file is replaced as a whole, and processes that
    write at the same time take turns.

    Raises:
        OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = read_profiles(path)
        if before is None:
            before = ProfileFile(device=device)
            with contextlib.suppress(FileNotFoundError):
                # It may be of a later version, whose user will want it back.
                path.replace(path.with_suffix(".json.old"))
        together = before.profiles | {profile.checkpoint: profile for profile in profiles}
        after = ProfileFile(device=device, profiles=dict(sorted(together.items())))
        with atomic_write(path) as part:
            part.write_text(after.model_dump_json(indent=1) + "\n", encoding="utf-8")


def shipped_folder() -> Path:
    """``weights/profiles``."""
    return Path(str(resources.files("weights"))) / "profiles"


def size_class(encoded_bytes: int) -> str:
    """The size class of an encoded picture."""
    return _CLASSES[bisect_left(_MOST_BYTES, encoded_bytes)]
