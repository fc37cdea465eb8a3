"""The keys that a running process accepts. They follow the file without a restart."""

from __future__ import annotations

import hashlib
import hmac
import logging
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from service.access.keys import Key, KeysError, hash_of, read_keys

log = logging.getLogger(__name__)

#: How often the file is looked at.
LOOK_EVERY_S = 1.0
#: What tells one state of the file from another; None if there is no file.
_State: TypeAlias = tuple[int, ...] | None


class Keyring:
    """The keys of a file. A thread looks once a second whether the file has changed, so that no request waits for a
    disk. A file that cannot be used is logged, and the keys that were read before stay: a slip in the file must neither
    let strangers in nor lock everybody out.

    Args:
        path: the file.
        own: a key that is not in the file: the service's own, with which its other processes ask it.
        look_every_s: seconds between two looks.
    """

    def __init__(self, path: Path, own: str | None = None, look_every_s: float = LOOK_EVERY_S) -> None:
        self._path = path
        self._own = {} if own is None else {_digest(own.encode()): service_key(own)}
        self._keys: dict[bytes, Key] | None = None
        self._callers: dict[str, Key] = {}
        self._state: _State = None
        self._ended = threading.Event()
        self.look(first=True)
        watching = threading.Thread(
            target=_watch, args=(weakref.WeakMethod(self.look), self._ended, look_every_s), name="keys", daemon=True
        )
        watching.start()

    def find(self, presented: bytes) -> Key | None:
        """The key that a caller presents; None if there is none.

        The time that this takes tells nothing about keys: it compares hashes, and nobody can choose what a key hashes
        to.

        Raises:
            KeysError: the file could not be read yet, so that nobody can be told whether a key is right.
        """
        digest = _digest(presented)
        found = self._own.get(digest)
        if found is None:
            if self._keys is None:
                raise KeysError("the service cannot read its file of keys; its log says why")
            found = self._keys.get(digest)
        if found is None or not hmac.compare_digest(bytes.fromhex(found.sha256), digest):
            return None
        return found

    def key_of(self, caller: str) -> Key | None:
        """The key of a caller (``Key.caller``), if it has one."""
        return self._callers.get(caller)

    def look(self, first: bool = False) -> None:
        """Reads the file if it has changed since the last look."""
        state = _state_of(self._path)
        if state == self._state and not first:
            return
        self._state = state
        try:
            keys = read_keys(self._path)
        except KeysError as error:
            kept = "no key is accepted" if self._keys is None else "the keys that were read before stay"
            log.error("%s; %s", error, kept)
            return
        self._callers = {key.caller: key for key in keys}
        self._keys = {bytes.fromhex(key.sha256): key for key in keys}
        if not first:
            log.info("the file of keys was read again: %d keys", len(keys))

    def close(self) -> None:
        """Ends the thread."""
        self._ended.set()


def service_key(secret: str) -> Key:
    """The service's own key, which may look and changes nothing. The name is none that a file can have."""
    return Key.model_construct(name="(service)", role="classify", sha256=hash_of(secret))


def _digest(presented: bytes) -> bytes:
    return hashlib.sha256(presented).digest()


def _state_of(path: Path) -> _State:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size


def _watch(look: weakref.WeakMethod[Callable[[], None]], ended: threading.Event, every_s: float) -> None:
    """Looks again and again, until there is no keyring any more."""
    while not ended.wait(every_s):
        found = look()
        if found is None:
            return
        try:
            found()
        except Exception:
            # Whatever it was: without this thread, keys that are revoked would be accepted for ever.
            log.exception("the file of keys could not be looked at")
        del found
