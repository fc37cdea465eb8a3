"""The service under test: the networks that it lists over HTTP, whether it answers, and loading a network."""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import httpx
from pydantic import BaseModel, ValidationError

#: The limit of a load. The first load of a network exports its graph, which takes a minute for the largest.
LOAD_WITHIN_S = 300.0
#: How long a service may not answer before it counts as gone: a replica or a proxy that died is back within seconds.
BACK_WITHIN_S = 15.0
#: A PNG of one black pixel.
_PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR42mNgAAAAAgAB5Sfe/AAAAABJRU5ErkJggg=="
)
#: The variable that holds the key for a service with keys. Locust reads it too.
_API_KEY = "TOPFIVE_API_KEY"
_LOADABLE = ("ready", "loadable")
#: The label sets in the order in which the service picks a checkpoint of a variant that has several.
_LABELS = ("imagenet1k", "cifar10", "mnist")


class TargetError(Exception):
    """The service cannot be tested; the text says what to do, in one line."""


class Row(BaseModel):
    """A checkpoint as ``GET /models`` lists it, with the members that the report needs."""

    name: str
    variant: str
    labels: str
    aliases: list[str] = []
    top1: float | None = None
    analytic_mb: float | None = None
    footprint_mb: float | None = None
    state: str
    resident: bool = False
    mend: str | None = None


class _Memory(BaseModel):
    device: str


class Listing(BaseModel):
    """The answer of ``GET /models``."""

    models: list[Row]
    memory: list[_Memory] = []

    @property
    def device(self) -> str | None:
        """The devices that the service computes on; None if it does not say."""
        # A device comes with the name of its deployment: "all: AMD EPYC, 2 cores".
        devices = (row.device.partition(": ")[2] or row.device for row in self.memory)
        return ", ".join(dict.fromkeys(device for device in devices if device)) or None


class Target:
    """A TopFive service at a URL.

    Raises:
        TargetError: it is not the URL of an HTTP server.
    """

    def __init__(self, host: str) -> None:
        name = _host_name(host)
        if name is None:
            raise TargetError(f"--host {host}: give a URL, as in http://127.0.0.1:8000")
        self.host = host.rstrip("/")
        self.local = name in ("localhost", "127.0.0.1", "::1")
        # Without proxies, since Locust uses none either.
        key = os.environ.get(_API_KEY, "").strip()
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.Client(base_url=self.host, headers=headers, timeout=10.0, trust_env=False)

    def listing(self) -> Listing:
        """The service's checkpoints and devices.

        Raises:
            TargetError: nothing answers, the service is not ready, or another kind of server answers.
        """
        response = self._ask("GET", "/models")
        if response.status_code == 401:
            raise TargetError(f"the service at {self.host} asks for a key: set {_API_KEY}")
        if response.status_code in (502, 503, 504):
            raise TargetError(f"the service at {self.host} is not ready yet: wait until /readyz answers 200")
        try:
            return Listing.model_validate_json(response.content)
        except ValidationError:
            answer = f"GET /models gave status {response.status_code} and no list of networks"
            raise TargetError(f"the server at {self.host} is not a TopFive service: {answer}") from None

    def check(self) -> None:
        """Waits until the service answers, for a moment at most.

        Raises:
            TargetError: it still does not.
        """
        give_up = time.monotonic() + BACK_WITHIN_S
        while True:
            try:
                self.listing()
                return
            except TargetError:
                if time.monotonic() > give_up:
                    raise
                time.sleep(0.5)

    def load(self, row: Row) -> Row:
        """Has the service load a checkpoint into memory, and returns its row after that.

        Raises:
            TargetError: the service has gone, or cannot load the checkpoint.
        """
        give_up = time.monotonic() + LOAD_WITHIN_S
        response = self._ask("POST", f"/models/{row.name}/load", timeout=LOAD_WITHIN_S)
        if response.status_code == 403:
            # A service on another machine refuses /load to strangers, but loads what a picture is sent for.
            response = self._ask("POST", f"/classify?model={row.name}", content=_PIXEL, timeout=LOAD_WITHIN_S)
        # 504: loading takes longer than a request may, and goes on.
        while response.status_code == 504 and time.monotonic() < give_up:
            time.sleep(0.5)
            loaded = self._row(row.name)
            if loaded.resident:
                return loaded
        if response.status_code != 200:
            raise CannotLoadError(f"{row.name} cannot be loaded: {_detail(response)}")
        return self._row(row.name)

    def _row(self, name: str) -> Row:
        for row in self.listing().models:
            if row.name == name:
                return row
        raise CannotLoadError(f"{name} is not listed by the service any more")

    def _ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            return self._client.request(method, path, **options)
        except httpx.TimeoutException:
            raise TargetError(f"the service at {self.host} did not answer in time") from None
        except (httpx.TransportError, httpx.InvalidURL):
            raise TargetError(f"nothing answers at {self.host}: is the service running there?") from None


class CannotLoadError(TargetError):
    """The service is there, but one network cannot be tested."""


def chosen(rows: Sequence[Row], names: Sequence[str]) -> list[Row]:
    """The checkpoints that names stand for (variant, alias or ``variant@label_set``); without names, all with weights.

    Raises:
        TargetError: no checkpoint has weights, or a name is unknown or has none.
    """
    if not names:
        found = [row for row in rows if row.state in _LOADABLE]
        if not found:
            raise TargetError("the service has weights for no network: topfive pull NAME, or topfive serve --untrained")
        return found
    found = [_named(rows, name) for name in names]
    return list({row.name: row for row in found}.values())


def _named(rows: Sequence[Row], name: str) -> Row:
    rows_of_it = [row for row in rows if name in (row.name, row.variant, *row.aliases)]
    if not rows_of_it:
        known = ", ".join(dict.fromkeys(row.variant for row in rows))
        raise TargetError(f"the service knows no network {name!r}; known: {known or 'none'}")
    served = [row for row in rows_of_it if row.state in _LOADABLE]
    if served:
        return min(served, key=lambda row: _LABELS.index(row.labels) if row.labels in _LABELS else len(_LABELS))
    raise TargetError(f"{rows_of_it[0].name} has no weights there: {rows_of_it[0].mend or 'topfive pull ' + name}")


def _host_name(url: str) -> str | None:
    """The host of an HTTP URL; None for any other text."""
    try:
        parts = urlsplit(url)
        # Reading a port that is not a number raises ValueError.
        _ = parts.port
    except ValueError:
        return None
    return parts.hostname if parts.scheme in ("http", "https") else None


def _detail(response: httpx.Response) -> str:
    try:
        return str(response.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return f"status {response.status_code}"
