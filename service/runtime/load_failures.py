"""Failed loads of a checkpoint: why they failed, and when the next try is due.

A load that has just failed would most likely fail again, and each try costs seconds of the device. So until the next
try is due, requests for the checkpoint get the reason, and the router leaves the checkpoint out. The pauses between
tries grow, and a load that succeeds resets them. Wrong weights are not tried again: a new file is another checkpoint.
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

#: The pause after the first failure in seconds, which doubles with each further one, and the longest pause.
FIRST_S, LONGEST_S = 1.0, 300.0

_ROOM = "the disk has no room for the files that loading {} needs: make room in the cache folder (TOPFIVE_CACHE_DIR)"
_ACCESS = "the service may not read or write a file of {}: give its user access to the cache folder"
_FILES = "the service has too many open files to load {}: raise their limit (ulimit -n)"
_MEMORY = (
    "there is not enough memory to load {}: free some, or lower TOPFIVE_MEMORY_LIMIT_MB so that fewer networks are in "
    "memory at once"
)
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
    errno.EAGAIN: "the service may not start more processes or threads, which loading {} needs: raise their limit "
    "(ulimit -u)",
}


class LoadFailures:
    """The failures of one checkpoint since its last successful load.

    Args:
        checkpoint: whose loads these are.
        clock: seconds, monotonic.
    """

    def __init__(self, checkpoint: Checkpoint, clock: Callable[[], float]) -> None:
        self._checkpoint = checkpoint
        self._clock = clock
        self._count = 0
        self._again_at = 0.0
        self.last: Exception | None = None
        """What the last load raised; None if it succeeded or there was none."""

    @property
    def in_the_way(self) -> LoadFailedError | None:
        """The error for requests that need a load now; None if a load may be tried."""
        if self.last is None or self._clock() >= self._again_at:
            return None
        return self.told(self.last)

    @property
    def final(self) -> bool:
        """Whether this file will never be loaded."""
        return self._again_at == math.inf

    @property
    def again_in_s(self) -> float:
        """Seconds until the next try: 0 if it may be made now, infinite if there will be none."""
        return max(0.0, self._again_at - self._clock())

    def check(self) -> None:
        """Raises LoadFailedError if a load must not be tried yet."""
        error = self.in_the_way
        if error is not None:
            raise error

    def failed(self, error: Exception) -> LoadFailedError:
        """Notes and logs a load that failed, and returns the error for its callers."""
        self.last = error
        pause_s = min(LONGEST_S, FIRST_S * 2.0 ** min(self._count, 30))
        self._count += 1
        self._again_at = math.inf if isinstance(error, WrongWeightsError) else self._clock() + pause_s
        then = "it is tried again when the file is replaced" if self.final else f"it is tried again in {pause_s:.0f} s"
        log.error("%s cannot be loaded: %s; %s", self._checkpoint.name, _one_line(error), then)
        log.debug("traceback of the failed load of %s", self._checkpoint.name, exc_info=error)
        return self.told(error)

    def succeeded(self) -> None:
        """Forgets the failures: a load has succeeded."""
        self.last, self._count, self._again_at = None, 0, 0.0

    def told(self, error: Exception) -> LoadFailedError:
        """Turns a load's error into the one for callers, which says what to do and names no folder of this machine."""
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
    """An error as one line of the log, with its type unless its text says enough."""
    text = " ".join(str(error).split()) or "no reason given"
    known = isinstance(error, WrongWeightsError | WeightsMissingError | ExportError | OSError | MemoryError)
    return text if known else f"{type(error).__name__}: {text}"
