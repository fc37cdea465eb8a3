"""What became of a request or a picture, in the words of metrics, logs and traces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from service.domain.errors import PROBLEMS

NO_MODEL, SEVERAL = "none", "several"
OK, PARTIAL, GONE = "ok", "partial", "gone"
#: Nobody is there to read the answer; the status is what proxies log for this.
GONE_STATUS = 499
_STATUS = {OK: 200, PARTIAL: 200, GONE: GONE_STATUS, **{slug: problem.status for slug, problem in PROBLEMS.items()}}


class Outcome(NamedTuple):
    """What became of a request, or of one of its pictures, in labels."""

    model: str
    """As an answer has it. An ensemble's members are for logs and traces; metrics count all ensembles as one."""
    reason: str


def status_of(reason: str) -> int:
    """The HTTP status that an outcome is answered with."""
    return _STATUS[reason]


def summary(pictures: Sequence[Outcome]) -> Outcome:
    """Of a bulk request, which is answered with 200 whatever became of its pictures."""
    models = {picture.model for picture in pictures}
    right = all(picture.reason == OK for picture in pictures)
    return Outcome(models.pop() if len(models) == 1 else SEVERAL, OK if right else PARTIAL)
