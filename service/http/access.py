"""Which path needs which role, and what callers without it are answered. Nothing here runs where there are neither keys
nor rates.

    open to all          /healthz, /readyz; /docs, /redoc, /openapi.json and /problems, which are the same everywhere;
                         /metrics and /metrics/targets, unless TOPFIVE_METRICS_KEY is set
    role ``operate``     whatever is below /models/ and changes something: load, unload
    role ``classify``    everything else, paths that do not exist among it
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Receive, Scope, Send

from service.access.keyring import Keyring
from service.access.keys import MAY, Key, KeysError, Role
from service.config.settings import Settings
from service.domain.errors import (
    RATE_LIMITED,
    Failure,
    NotReadyError,
    RateLimitedError,
    RoleError,
    UnauthorizedError,
    known_failure,
)
from service.http.callers import KEY, caller_of
from service.http.others import without_body
from service.http.reply import reply_to
from service.http.requests import announces_body
from service.lifecycle.processes import RUN_ID, own_key

if TYPE_CHECKING:
    from service.access.rates import Rates

_ALWAYS_OPEN = ("/healthz", "/readyz", "/docs", "/redoc", "/openapi.json", "/problems")
_METRICS = "/metrics"
_MODELS = "/models/"
_READS = ("GET", "HEAD", "OPTIONS")
#: Longer values are no keys, and are not hashed.
_LONGEST_KEY = 512
#: How many refused callers are remembered, and for how long. Then the rates are asked again: the operator may have
#: raised them.
_MOST_REFUSED = 10_000
_REMEMBER_S = 2.0


class AccessControl:
    """Decides who may come in. Not thread-safe: use it from one event loop.

    Args:
        keyring: the keys in use; None if none are needed.
        metrics_key: whether metrics need one.
        clock: seconds, monotonic.
    """

    def __init__(
        self, keyring: Keyring | None, *, metrics_key: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.keyring = keyring
        self._metrics_key = metrics_key
        self._clock = clock
        self._refused: dict[str, tuple[float, Failure]] = {}
        """When callers were refused, and what they were told."""

    @classmethod
    def of(cls, settings: Settings) -> AccessControl | None:
        """By the settings; None if everybody may come in at any rate."""
        keyring = keyring_of(settings)
        if keyring is None and settings.rate_requests is None and settings.rate_device_s is None:
            return None
        return cls(keyring, metrics_key=settings.metrics_key)

    def rates(self, settings: Settings, shares: int = 1) -> Rates:
        """The rates of callers in this process.

        Args:
            settings: state the rates of those that have none of their own.
            shares: how many processes divide a caller's requests.
        """
        # Imported here: the library behind it takes 80 ms, and only services with keys or rates need it.
        from service.access.rates import Rates

        return Rates.of(settings, self._key_of, shares)

    def _key_of(self, caller: str) -> Key | None:
        return None if self.keyring is None else self.keyring.key_of(caller)

    def role_for(self, method: str, path: str) -> Role | None:
        """The role that a request needs; None if everybody may send it."""
        if _is_below(path, _ALWAYS_OPEN) or (_is_below(path, (_METRICS,)) and not self._metrics_key):
            return None
        return "operate" if path.startswith(_MODELS) and method not in _READS else "classify"

    def enter(self, scope: Scope, role: Role) -> None:
        """Lets a request in, before its body is read.

        Args:
            scope: ASGI's. The key that lets it in is noted there.
            role: the role that it needs.

        Raises:
            UnauthorizedError: it has no key that is in use.
            RoleError: its key has another role.
            RateLimitedError: its caller was told to come back later.
            NotReadyError: the file of keys could not be read yet.
        """
        if self.keyring is not None:
            scope[KEY] = self._key(self.keyring, scope["headers"], role)
        if self._refused:
            self._refuse_again(caller_of(scope))

    @staticmethod
    def _key(keyring: Keyring, headers: Iterable[tuple[bytes, bytes]], role: Role) -> Key:
        presented = presented_key(headers)
        try:
            key = keyring.find(presented)
        except KeysError as error:
            raise NotReadyError(str(error)) from error
        if key is None:
            raise UnauthorizedError("no key in use is the one that was sent: it may have been revoked", wrong=True)
        if role not in MAY[key.role]:
            raise RoleError(f"this needs a key of the role {role}; {key.name} has the role {key.role}")
        return key

    def answered(self, scope: Scope, results: Sequence[object]) -> None:
        """Remembers callers whose rate is used up, so that they are refused before their next body is read."""
        for result in results:
            if isinstance(result, Failure) and result.slug == RATE_LIMITED:
                self._remember(caller_of(scope), result)
                return

    def _remember(self, caller: str, failure: Failure) -> None:
        while len(self._refused) >= _MOST_REFUSED:
            del self._refused[next(iter(self._refused))]
        self._refused[caller] = self._clock(), failure

    def _refuse_again(self, caller: str) -> None:
        found = self._refused.get(caller)
        if found is None:
            return
        at, failure = found
        passed_s = self._clock() - at
        left_s = failure.extras["retry_after_ms"] / 1000 - passed_s
        if left_s <= 0 or passed_s >= _REMEMBER_S:
            del self._refused[caller]
            return
        quota = failure.extras.get("quota")
        raise RateLimitedError(failure.detail, left_s, None if quota is None else (quota["pictures"], quota["seconds"]))


class Guard:
    """Stands before the paths that do not classify pictures: asks for keys, and counts requests.

    Args:
        app: answers the requests that are let in.
        access: decides.
        rates: of callers.
    """

    def __init__(self, app: ASGIApp, access: AccessControl, rates: Rates) -> None:
        self._app = app
        self._access = access
        self._rates = rates

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            role = self._access.role_for(scope["method"], scope["path"])
            try:
                if role is not None:
                    self._access.enter(scope, role)
                    self._rates.admit(caller_of(scope))
            except Exception as error:
                # A body is not read.
                closed = {"connection": "close"} if announces_body(scope["headers"]) else {}
                await reply_to(known_failure(error), closed).send(
                    without_body(send) if scope["method"] == "HEAD" else send
                )
                return
        await self._app(scope, receive, send)


def presented_key(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The key in the headers of a request: ``Authorization: Bearer KEY`` or ``X-API-Key: KEY``. Other schemes of
    ``Authorization`` may be a proxy's own business.

    Raises:
        UnauthorizedError: there is none, or there are several.
    """
    found, schemes = set[bytes](), []
    for name, value in headers:
        if name == b"authorization":
            scheme, _, credentials = value.strip().partition(b" ")
            if scheme.lower() == b"bearer":
                found.add(credentials.strip())
            else:
                schemes.append(scheme)
        elif name == b"x-api-key":
            found.add(value.strip())
    found.discard(b"")
    if len(found) > 1:
        raise UnauthorizedError("the request has several keys; send one", wrong=True)
    if not found:
        also = "; the scheme of its Authorization is not Bearer" if schemes else ""
        raise UnauthorizedError(f"the request has no key{also}; send Authorization: Bearer KEY, or X-API-Key: KEY")
    key = found.pop()
    if len(key) > _LONGEST_KEY:
        raise UnauthorizedError("what was sent as a key is too long to be one", wrong=True)
    return key


def keyring_of(settings: Settings) -> Keyring | None:
    """The keys that the settings name; None if they name none."""
    return None if settings.api_keys is None else Keyring(settings.api_keys, _own())


def metrics_reader(settings: Settings) -> Callable[[list[tuple[bytes, bytes]]], bool] | None:
    """Says by the headers of a request whether it may read the metrics of a process; None if every request may."""
    keyring = keyring_of(settings) if settings.metrics_key else None
    if keyring is None:
        return None

    def may_read(headers: list[tuple[bytes, bytes]]) -> bool:
        try:
            return keyring.find(presented_key(headers)) is not None
        except (UnauthorizedError, KeysError):
            return False

    return may_read


def _own() -> str | None:
    run_id = os.environ.get(RUN_ID)
    return None if not run_id else own_key(run_id)


def _is_below(path: str, prefixes: Sequence[str]) -> bool:
    return any(path == prefix or path.startswith(f"{prefix}/") for prefix in prefixes)
