"""Measures profiles: for ``topfive profile``, and at the start of a service for checkpoints without one."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable

from models.checkpoints.catalogue import Checkpoint
from service.engines.loader import Loader, device_slug
from service.profiling.profiles import Profile, Profiles

log = logging.getLogger(__name__)

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
    """Measures a checkpoint in a process of its own; see ``measure.measure``. Blocks.

    Raises:
        ProfilingError: the checkpoint cannot be loaded, or measuring took too long.
    """
    command = [sys.executable, "-m", "service.profiling.measure", checkpoint.variant.name, "--seconds", str(seconds)]
    command += ["--device", loader.device, "--engine", loader.engine, "--precision", loader.precision]
    command += ["--threads", str(loader.threads), "--max-batch-size", str(loader.max_batch_size)]
    command += ["--cache-dir", str(loader.cache_dir)]
    command += ["--labels", checkpoint.labels] if checkpoint.trained else ["--untrained"]
    command += ["--quick"] if quick else []
    try:
        done = run(command, capture_output=True, text=True, timeout=_WITHIN_S, check=False)
        if done.returncode == 0:
            return Profile.model_validate_json(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired as error:
        raise ProfilingError(f"measuring {checkpoint.name} took more than {_WITHIN_S:.0f} s") from error
    except OSError as error:
        raise ProfilingError(f"{checkpoint.name} cannot be measured: {error}") from error
    except (ValueError, IndexError) as error:
        raise ProfilingError(f"measuring {checkpoint.name} gave no profile") from error
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
                return profile
        if found is None:
            log.warning("%s has no profile: its times are guessed until batches have been measured", checkpoint.name)
            return None
        log.warning("times of %s are predicted by a foreign profile: %s", checkpoint.name, why)
        return found.profile
