"""Which models the service at ``--host`` can serve, and which of them a run asks for."""

from __future__ import annotations

import json
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, build_opener

from loadtest._key import VARIABLE, authorization

_ANSWER_WITHIN_S = 30
_FIRST = "googlenet"
#: The label sets in the order in which the service picks a checkpoint of a model that has several.
_LABELS = ("imagenet1k", "cifar10", "mnist")


class NothingToTestError(ValueError):
    """The host has nothing to test; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What a run asks for."""

    model: str
    labels: str | None
    """The label set that BudgetUsers ask for."""
    pictures: str
    """The kind of pictures that the model is for: photographs or digits."""


def find_choice(host: str, model: str | None, labels: str | None) -> Choice:
    """Asks the service for its models and chooses what a run asks for.

    Raises:
        NothingToTestError: no service answers, or it has nothing that was asked for.
    """
    return choose(_models(host), host, model, labels)


def choose(rows: list[dict[str, Any]], host: str, model: str | None, labels: str | None) -> Choice:
    """Chooses what a run asks for from the rows of ``GET /models``.

    Raises:
        NothingToTestError: no model has weights, or the named model or label set does not exist or has none.
    """
    loadable = [row for row in rows if row["state"] != "weights missing"]
    if not loadable:
        raise NothingToTestError(f"{host} has no model with weights: topfive pull NAME, or topfive serve --untrained")
    if labels is not None and labels not in {row["labels"] for row in loadable}:
        raise NothingToTestError(f"--labels {labels}: no model with weights at {host} answers with them")
    if model is None:
        names = [row["variant"] for row in loadable]
        model = _FIRST if _FIRST in names else names[0]
    named = [row for row in rows if _is_named(row, model)]
    if not named:
        known = sorted({row["variant"] for row in rows})
        raise NothingToTestError(f"--model {model}: {host} knows {', '.join(known)}")
    served = [row for row in named if row in loadable]
    if not served:
        mend = named[0].get("mend")
        raise NothingToTestError(f"--model {model}: its weights are missing at {host}" + (f": {mend}" if mend else ""))
    if labels is None and {row["labels"] for row in loadable} == {"mnist"}:
        labels = "mnist"
    answered_with = min((row["labels"] for row in served), key=_preference)
    return Choice(model, labels, "digits" if answered_with == "mnist" else "photographs")


def _is_named(row: dict[str, Any], model: str) -> bool:
    return model in (row["name"], row["variant"], f"{row['variant']}@{row['labels']}", *row.get("aliases", ()))


def _preference(labels: str) -> int:
    return _LABELS.index(labels) if labels in _LABELS else len(_LABELS)


def _is_url(host: str) -> bool:
    try:
        parts = urlsplit(host)
        # Reading the port is what checks it.
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _models(host: str) -> list[dict[str, Any]]:
    if not _is_url(host):
        raise NothingToTestError(f"--host {host}: not a URL like http://localhost:8000")
    try:
        # Without proxies, since Locust's users use none either.
        opener = build_opener(ProxyHandler({}))
        if key := authorization():
            opener.addheaders.append(("Authorization", key))
        with opener.open(f"{host.rstrip('/')}/models", timeout=_ANSWER_WITHIN_S) as response:
            rows = json.loads(response.read())["models"]
        if not all(row.keys() >= {"name", "variant", "labels", "state"} for row in rows):
            raise ValueError
    except HTTPError as error:
        with error:
            if error.code == 401:
                raise NothingToTestError(f"{host} asks for a key: set {VARIABLE}") from None
            raise NothingToTestError(f"{host} is not TopFive: GET /models answers {error.code}") from None
    except HTTPException:
        raise NothingToTestError(f"{host} is not TopFive: it does not speak HTTP") from None
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise NothingToTestError(f"{host} does not answer: {getattr(reason, 'strerror', None) or reason}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise NothingToTestError(f"{host} is not TopFive: GET /models answers something else") from None
    return list(rows)
