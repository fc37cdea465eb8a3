"""The file of keys: who may call the service, and in which role. ``topfive keys`` writes it.

A key is 256 random bits, so a fast hash is enough: nobody guesses one, whether a hash takes a microsecond or a second.
Slow hashes protect passwords, which people choose and others guess. Here one would only cost each request a tenth of a
second, and let strangers keep the service busy with wrong keys.

The file holds names, roles and SHA-256 hashes, never a key. It must belong to the user of the service, and nobody else
may read or write it: whoever can write it can let themselves in.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import stat
import string
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from models.files import atomic_write
from models.validation import first_error
from service.config.rate import checked_rate

#: Every key begins with it, so that scanners find keys that were committed or posted by mistake.
PREFIX = "topfive_"
_ALPHABET = string.ascii_letters + string.digits
#: 62**43 is more than 2**256.
_LENGTH = 43
#: A file of this size holds some 50,000 keys. A larger one is another file.
_LARGEST_BYTES = 16 * 2**20

Role = Literal["classify", "operate"]
#: What each role may do.
MAY: dict[Role, frozenset[Role]] = {
    "classify": frozenset({"classify"}),
    "operate": frozenset({"classify", "operate"}),
}


class KeysError(ValueError):
    """The file of keys cannot be used, or has no such key; the text says what to do, and never holds a key."""


class Key(BaseModel):
    """One key, without the secret itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
    role: Role = "classify"
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    created: str = ""
    """When it was made, in UTC."""
    rate_requests: Annotated[str, AfterValidator(checked_rate)] | None = None
    """Pictures in a time, as in ``100/second``, in the place of TOPFIVE_RATE_REQUESTS."""
    rate_device_s: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Device seconds a minute, in the place of TOPFIVE_RATE_DEVICE_S."""

    @property
    def caller(self) -> str:
        """Who sends it, as rates and shares tell callers apart. No address looks like this."""
        return f"key:{self.name}"


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    version: Literal[1] = 1
    keys: list[Key] = []


def hash_of(key: str) -> str:
    """What the file holds of a key: SHA-256 in hexadecimal digits."""
    return hashlib.sha256(key.encode()).hexdigest()


def new_key() -> str:
    """A key that nobody has: the prefix and 43 random letters and digits, 256 bits."""
    return PREFIX + "".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH))


def read_keys(path: Path) -> list[Key]:
    """The keys in a file.

    Raises:
        KeysError: there is no such file, it is damaged, it is somebody else's, or others may read or write it.
    """
    try:
        # Not a pipe or a device, which would never end.
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise KeysError(f"there is no file of keys {path}; make it: topfive keys add NAME --file {path}") from None
    except OSError as error:
        raise KeysError(f"the file of keys {path} cannot be read: {error.strerror}") from None
    try:
        _check(path, os.fstat(file))
        with open(file, "rb", closefd=False) as opened:
            content = opened.read(_LARGEST_BYTES)
    except OSError as error:
        raise KeysError(f"the file of keys {path} cannot be read: {error.strerror}") from None
    finally:
        os.close(file)
    return _parsed(path, content)


def _check(path: Path, status: os.stat_result) -> None:
    """Raises KeysError unless it is a file that only the user of this process can read and write."""
    if not stat.S_ISREG(status.st_mode):
        raise KeysError(f"{path} is not a file")
    if status.st_uid not in (os.geteuid(), 0):
        raise KeysError(f"the file of keys {path} belongs to another user ({status.st_uid}): run this as that user")
    # Kubernetes mounts secrets as root's, readable for the group of a user that is not root.
    others = 0o037 if status.st_uid == 0 and os.geteuid() != 0 else 0o077
    if stat.S_IMODE(status.st_mode) & others:
        raise KeysError(
            f"the file of keys {path} may be read or written by other users (mode "
            f"{stat.S_IMODE(status.st_mode):04o}); run chmod 600 {path}"
        )
    if status.st_size >= _LARGEST_BYTES:
        raise KeysError(f"the file of keys {path} is too large to be one: {status.st_size} bytes")


def _parsed(path: Path, content: bytes) -> list[Key]:
    damaged = f"the file of keys {path} is damaged"
    try:
        keys = _File.model_validate_json(content).keys
    except ValidationError as error:
        # Without what stands in the file: somebody may have written a key there.
        first = first_error(error)
        raise KeysError(f"{damaged}: {first.field or 'the file'}: {first.reason}") from None
    for what, values in (("name", [key.name for key in keys]), ("hash", [key.sha256 for key in keys])):
        if len(set(values)) < len(values):
            raise KeysError(f"{damaged}: two of its keys have the same {what}")
    return keys


def add_key(path: Path, name: str, role: str, rate_requests: str | None, rate_device_s: float | None) -> str:
    """Adds a key, makes the file if need be, and returns the key. It is nowhere else, and cannot be shown again.

    Raises:
        KeysError: the name is taken or not allowed, a rate is none, or the file cannot be read or written.
    """
    secret = new_key()
    try:
        fields = {
            "name": name,
            "role": role,
            "sha256": hash_of(secret),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "rate_requests": rate_requests,
            "rate_device_s": rate_device_s,
        }
        key = Key.model_validate(fields)
    except ValidationError as error:
        first = first_error(error)
        if first.field == "name":
            raise KeysError(
                f"{name!r} is no name of a key: at most 64 letters, digits, dots, dashes and underscores"
            ) from None
        raise KeysError(f"{first.field} = {first.given!r}: {first.reason}") from None
    with _locked(path):
        keys = read_keys(path) if path.exists() else []
        if any(other.name == name for other in keys):
            raise KeysError(f"there is a key {name} already; revoke it first: topfive keys revoke {name}")
        _write(path, [*keys, key])
    return secret


def revoke_key(path: Path, name: str) -> None:
    """Removes a key. Running services refuse it within two seconds.

    Raises:
        KeysError: there is no such key, or the file cannot be read or written.
    """
    with _locked(path):
        keys = read_keys(path)
        left = [key for key in keys if key.name != name]
        if len(left) == len(keys):
            names = ", ".join(sorted(key.name for key in keys)) or "none"
            raise KeysError(f"there is no key {name}; there are: {names}")
        _write(path, left)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keeps other ``topfive keys`` from changing the file. The lock is a file of its own: the other one is replaced."""
    path = path.resolve()
    lock = path.with_name(f".{path.name}.lock")
    try:
        file = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise KeysError(f"the file of keys {path} cannot be written: {error.strerror}") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


def _write(path: Path, keys: list[Key]) -> None:
    try:
        # A link stays one, and what it names is replaced.
        with atomic_write(path.resolve(), mode=0o600, durable=True) as part:
            part.write_text(_File(keys=keys).model_dump_json(indent=1, exclude_none=True) + "\n")
    except OSError as error:
        raise KeysError(f"the file of keys {path} cannot be written: {error.strerror}") from None
