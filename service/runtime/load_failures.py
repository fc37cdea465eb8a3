"""What is remembered of a checkpoint's loads that failed: why, and when it is tried again.

A load that failed is likely to fail again at once, and each try costs seconds of the device. So whoever asks for the
checkpoint meanwhile is told the reason, and the router leaves it out. The pauses grow from one try to the next; a load
that succeeds ends them. Weights that are wrong stay wrong: they wait for another file, which is another checkpoint.
"""

from __future__ import annotations

import errno
import logging
import math
import os
from collections.abc import Callable

from models.checkpoints.catalogue import Checkpoint, WeightsMissingError, WrongWeightsError
from models.onnx.graph_cache import ExportError, KilledError
from service.domain.errors import OUT_OF_MEMORY, TABLE, LoadFailedError, MemoryLimitError, OutOfDeviceMemoryError

log = logging.getLogger(__name__)

#: The pause after the first failure, which doubles with each, and the longest.
FIRST_S, LONGEST_S = 1.0, 300.0

_ROOM = "no disk has room for what loading {} takes: make room in the cache folder (TOPFIVE_CACHE_DIR)"
_ACCESS = "the service may not read or write a file of {}: give its user access to the cache folder"
_FILES = "the service has too many open files to load {}: raise their limit (ulimit -n)"
_MEMORY = "there is not enough memory to load {}: free some, or lower TOPFIVE_MEMORY_LIMIT_MB, for fewer at once"
_KILLED = "the process that exports {} was killed, most likely because memory is short: free some"
_BY_NUMBER = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EFBIG: _ROOM,
    errno.EACCES: _ACCESS,
    errno.EPERM: _ACCESS,
    errno.EROFS: _ACCESS,
    errno.EMFILE: _FILES,
    errno.ENFILE: _FILES,
    errno.ENOMEM: _MEMORY,
    errno.EAGAIN: "the system gives the service no more processes or threads to load {} with: raise their limit "
    "(ulimit -u)",
}


class LoadFailures:
    """The failures of one checkpoint since its last load that succeeded.

    Args:
        checkpoint: of which they are.
        clock: seconds, monotonic.
    """

    def __init__(self, checkpoint: Checkpoint, clock: Callable[[], float]) -> None:
        self._checkpoint = checkpoint
        self._clock = clock
        self._count = 0
        self._again_at = 0.0
        self.last: Exception | None = None
        """What the last load raised, unless it succeeded."""

    @property
    def in_the_way(self) -> LoadFailedError | None:
        """What whoever asks for the checkpoint is told; None where it may be tried."""
        if self.last is None or self._clock() >= self._again_at:
            return None
        return self.told(self.last)

    @property
    def final(self) -> bool:
        """Whether this very file will never be loaded."""
        return self._again_at == math.inf

    @property
    def again_in_s(self) -> float:
        """Seconds until the next try may be made: 0 if it may be made now, infinite if there is none."""
        return max(0.0, self._again_at - self._clock())

    def check(self) -> None:
        """Raises LoadFailedError where the checkpoint must not be tried yet."""
        error = self.in_the_way
        if error is not None:
            raise error

    def failed(self, error: Exception) -> LoadFailedError:
        """Notes a load that failed, and returns what its callers are told."""
        self.last = error
        pause_s = min(LONGEST_S, FIRST_S * 2.0 ** min(self._count, 30))
        self._count += 1
        self._again_at = math.inf if isinstance(error, WrongWeightsError) else self._clock() + pause_s
        then = "it is left out until another file comes" if self.final else f"it is tried again in {pause_s:.0f} s"
        log.error("%s cannot be loaded: %s; %s", self._checkpoint.name, _one_line(error), then)
        log.debug("how %s failed", self._checkpoint.name, exc_info=error)
        return self.told(error)

    def succeeded(self) -> None:
        """Forgets them."""
        self.last, self._count, self._again_at = None, 0, 0.0

    def told(self, error: Exception) -> LoadFailedError:
        """An error of a load as callers are told of it: what to do, without the folders of this machine."""
        name, path = self._checkpoint.name, self._checkpoint.path
        retry_after_s = None if self.final else self.again_in_s
        if isinstance(error, WrongWeightsError | WeightsMissingError | OutOfDeviceMemoryError | MemoryLimitError):
            kind = next(kind for kind in type(error).__mro__ if kind in TABLE)
            text = str(error) if path is None else str(error).replace(str(path), path.name)
            return LoadFailedError(text, retry_after_s, TABLE[kind].slug)
        if isinstance(error, MemoryError):
            return LoadFailedError(_MEMORY.format(name), retry_after_s, OUT_OF_MEMORY.slug)
        if isinstance(error, KilledError):
            return LoadFailedError(_KILLED.format(name), retry_after_s)
        if isinstance(error, OSError) and error.errno is not None:
            text = _BY_NUMBER.get(error.errno, f"a file of {{}} cannot be used ({os.strerror(error.errno)})")
            slug = OUT_OF_MEMORY.slug if text is _MEMORY else None
            return LoadFailedError(text.format(name), retry_after_s, slug)
        what = "exported" if isinstance(error, ExportError) else "loaded"
        return LoadFailedError(f"{name} could not be {what}; the service's log says why", retry_after_s)


def _one_line(error: Exception) -> str:
    """For the log: a known kind of error says all in its text."""
    text = " ".join(str(error).split()) or "no reason given"
    known = isinstance(error, WrongWeightsError | WeightsMissingError | ExportError | OSError | MemoryError)
    return text if known else f"{type(error).__name__}: {text}"
