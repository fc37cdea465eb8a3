"""Measures profiles: for ``topfive profile``, and at the start of a service for checkpoints without one."""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from pydantic import BaseModel

from models.checkpoints.catalogue import Checkpoint
from service.engines.fingerprint import AUTO
from service.engines.loader import Loader, device_slug
from service.profiling.child import command
from service.profiling.precision import Choice
from service.profiling.profiles import Profile, Profiles

log = logging.getLogger(__name__)

Model = TypeVar("Model", bound=BaseModel)

#: The longest that one measurement may take. VGG-19 with its export takes half a minute; a machine short of memory may
#: swap.
_WITHIN_S = 600.0


class ProfilingError(RuntimeError):
    """A checkpoint could not be measured. The text says why, in one line."""


def measure_apart(
    checkpoint: Checkpoint,
    loader: Loader,
    *,
    seconds: float,
    quick: bool,
    run: Callable[..., subprocess.CompletedProcess[str]] = subprocess.run,
) -> Profile:
    """Measures a checkpoint in a process of its own; see ``measure.measure``. Where the precision is to be chosen, that
    is done first, in another process, which leaves nothing in this one's memory. Blocks.

    Raises:
        ProfilingError: the checkpoint cannot be loaded, or measuring took too long.
    """
    choice = None
    if loader.precision == AUTO:
        choice = _ended(command("service.profiling.precision", checkpoint, loader), checkpoint, Choice, run)
        loader = replace(loader, precision=choice.precision)
    words = [*command("service.profiling.measure", checkpoint, loader), "--seconds", str(seconds)]
    profile = _ended([*words, "--quick"] if quick else words, checkpoint, Profile, run)
    return profile.model_copy(update={"choice": choice})


def _ended(
    words: list[str], checkpoint: Checkpoint, kind: type[Model], run: Callable[..., subprocess.CompletedProcess[str]]
) -> Model:
    """Runs a process and reads the last line of what it prints."""
    try:
        done = run(words, capture_output=True, text=True, timeout=_WITHIN_S, check=False)
        if done.returncode == 0:
            return kind.model_validate_json(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired as error:
        raise ProfilingError(f"measuring {checkpoint.name} took more than {_WITHIN_S:.0f} s") from error
    except OSError as error:
        raise ProfilingError(f"{checkpoint.name} cannot be measured: {error}") from error
    except (ValueError, IndexError) as error:
        raise ProfilingError(f"measuring {checkpoint.name} gave no {kind.__name__.lower()}") from error
    last = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
    raise ProfilingError(f"{checkpoint.name} cannot be measured: {last}")


class Profiler:
    """Finds or measures the profiles of the checkpoints that a process serves.

    Args:
        loader: loads the checkpoints.
    """

    def __init__(self, loader: Loader) -> None:
        self._loader = loader
        self._profiles = Profiles(loader.cache_dir, device_slug(loader.device))
        self._precisions: dict[tuple[object, ...], str] = {}
        """What was chosen, by file; float32 where nothing is chosen yet."""

    def nearest(self, checkpoint: Checkpoint) -> Profile | None:
        """The profile on file that was measured in the most similar way. Reads no weights."""
        return self._profiles.nearest(checkpoint, self._loader.settings)

    def ensure(self, checkpoint: Checkpoint, *, measure: bool = True) -> Profile | None:
        """Returns a profile with the fingerprint of what is served now, from a file or else from a quick measurement.
        If that is not possible, it logs a warning and returns a foreign profile, or None if there is none. Blocks.

        Raises:
            WeightsMissingError: the weights are gone.
        """
        found = self._profiles.find(checkpoint, self._loader.fingerprint(checkpoint))
        if found is not None and not found.foreign:
            self._settle(checkpoint, found.profile)
            return found.profile
        why = "; ".join(found.foreign) if found is not None else "there is none for this device"
        if measure:
            log.warning("measuring the profile of %s: %s", checkpoint.name, why)
            try:
                profile = measure_apart(checkpoint, self._loader, seconds=0, quick=True)
            except ProfilingError as error:
                log.warning("%s", error)
            else:
                self._profiles.keep(profile)
                self._settle(checkpoint, profile)
                return profile
        if found is None:
            log.warning("%s has no profile: its times are guessed until batches have been measured", checkpoint.name)
            return None
        log.warning("times of %s are predicted by a foreign profile: %s", checkpoint.name, why)
        return found.profile

    def loader_of(self, checkpoint: Checkpoint) -> Loader:
        """The loader with the checkpoint's own precision, if the precision is to be chosen: float32 until ``ensure``
        has chosen, now or at an earlier start. May read the weights. Blocks.

        Raises:
            WeightsMissingError: the weights are gone.
        """
        if self._loader.precision != AUTO:
            return self._loader
        if _file(checkpoint) not in self._precisions:
            found = self._profiles.find(checkpoint, self._loader.fingerprint(checkpoint))
            if found is not None and not found.foreign:
                self._settle(checkpoint, found.profile)
        return replace(self._loader, precision=self._precisions.setdefault(_file(checkpoint), "float32"))

    def _settle(self, checkpoint: Checkpoint, profile: Profile) -> None:
        """Notes the precision of a checkpoint that will be loaded."""
        if self._loader.precision == AUTO:
            self._precisions[_file(checkpoint)] = profile.fingerprint.precision
            log.info("%s computes in %s", checkpoint.name, profile.choice)


def _file(checkpoint: Checkpoint) -> tuple[object, ...]:
    """What tells the weights of a checkpoint from those that replace them."""
    return checkpoint.name, checkpoint.path, checkpoint.modified_ns
