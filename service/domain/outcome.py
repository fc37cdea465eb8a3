"""The outcome of a request or of a picture, in the labels of metrics, logs and traces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from service.domain.errors import PROBLEMS

#: Labels for the model: none was named or decided on; the pictures of one request had several.
NO_MODEL, SEVERAL = "none", "several"
#: Labels for the reason, beside the slugs of problems: answered; some pictures of the request failed; the caller left.
OK, PARTIAL, GONE = "ok", "partial", "gone"
#: The status that proxies log for a caller who left before the answer.
GONE_STATUS = 499
_STATUS = {OK: 200, PARTIAL: 200, GONE: GONE_STATUS, **{slug: problem.status for slug, problem in PROBLEMS.items()}}


class Outcome(NamedTuple):
    """The labels for a request, or for one of its pictures."""

    model: str
    """The model as an answer names it: an ensemble with its members, although metrics count all ensembles as one."""
    reason: str
    """``ok``, ``partial``, ``gone`` or the slug of a problem."""


def status_of(reason: str) -> int:
    """The HTTP status of an outcome's reason."""
    return _STATUS[reason]


def summary(pictures: Sequence[Outcome]) -> Outcome:
    """The outcome of a bulk request, whose status is 200 whatever the outcomes of its pictures."""
    models = {picture.model for picture in pictures}
    right = all(picture.reason == OK for picture in pictures)
    return Outcome(models.pop() if len(models) == 1 else SEVERAL, OK if right else PARTIAL)
