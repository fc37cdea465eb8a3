"""What became of a request: answered, refused or failed, as its response says."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from loadtest._requests import Request

Verdict = Literal["answered", "refused", "failed"]

#: Refusals are not failures: a service under load may refuse, and a load test wants to see when it does.
OVERLOADED = (429, "/problems/overloaded")
NO_MODEL_FITS = (422, "/problems/no-model-fits")


class Picture(NamedTuple):
    """The answer for one picture."""

    model: str
    batch_size: int
    decode_ms: float
    queue_ms: float
    forward_ms: float


@dataclass(slots=True)
class Outcome:
    """What became of one request."""

    verdict: Verdict
    status: int = 0
    """The response's status; 0 if there was no response."""
    pictures: list[Picture] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    """The problem type of each refused picture."""
    failure: str = ""
    """Why the request failed; equal texts are counted together."""


def read_outcome(request: Request, status: int, body: bytes) -> Outcome:
    """The outcome that a response stands for."""
    if request.problem is not None:
        return _junk(request.problem, status, body)
    if status != 200:
        return _not_answered(status, _document(body))
    try:
        document = json.loads(body.decode())
        if request.kind == "bulk":
            return _bulk(document["results"])
        return Outcome("answered", 200, [_picture(document)])
    except (ValueError, KeyError, TypeError):
        return Outcome("failed", 200, failure="200 with an unexpected body")


def unreachable(failure: str) -> Outcome:
    """The outcome of a request that got no response."""
    return Outcome("failed", failure=failure)


def _picture(document: dict[str, Any]) -> Picture:
    timings = document["timings_ms"]
    return Picture(document["model"], document["batch_size"], timings["decode"], timings["queue"], timings["forward"])


def _not_answered(status: int, document: dict[str, Any]) -> Outcome:
    problem = document.get("type")
    if (status, problem) == NO_MODEL_FITS or status == OVERLOADED[0]:
        return Outcome("refused", status, refusals=[str(problem or status)])
    return Outcome("failed", status, failure=f"{status} {problem}" if problem else str(status))


def _bulk(entries: list[dict[str, Any]]) -> Outcome:
    """The outcome of a bulk request: failed if one of its pictures failed, refused if all of them were refused."""
    outcome = Outcome("refused", 200)
    for entry in entries:
        if entry["status"] == 200:
            outcome.pictures.append(_picture(entry))
            continue
        single = _not_answered(entry["status"], entry)
        outcome.refusals += single.refusals
        outcome.failure = outcome.failure or single.failure
    if not entries or outcome.failure:
        outcome.verdict = "failed"
        outcome.failure = outcome.failure or "200 with no results"
    elif outcome.pictures:
        outcome.verdict = "answered"
    return outcome


def _junk(expected: tuple[int, str], status: int, body: bytes) -> Outcome:
    problem = _document(body).get("type")
    if (status, problem) == expected:
        return Outcome("answered", status)
    if status == OVERLOADED[0]:
        return Outcome("refused", status, refusals=[str(problem or status)])
    got = f"{status} {problem}" if problem else str(status)
    return Outcome("failed", status, failure=f"junk: {got} instead of {expected[0]} {expected[1]}")


def _document(body: bytes) -> dict[str, Any]:
    """The problem document of a body; empty if the body is something else, such as a proxy's page."""
    try:
        document = json.loads(body)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}
