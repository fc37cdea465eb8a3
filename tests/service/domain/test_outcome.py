"""Outcomes: the status of each reason, and the outcome of a bulk request."""

from __future__ import annotations

import pytest

from service.domain.errors import PROBLEMS
from service.domain.outcome import Outcome, status_of, summary


@pytest.mark.parametrize(
    ("reason", "status"),
    [("ok", 200), ("partial", 200), ("gone", 499), ("overloaded", 429), ("deadline-missed", 504), ("not-found", 404)],
)
def test_each_reason_has_a_status(reason: str, status: int) -> None:
    assert status_of(reason) == status


def test_every_problem_is_a_reason() -> None:
    assert {slug: status_of(slug) for slug in PROBLEMS} == {slug: row.status for slug, row in PROBLEMS.items()}


@pytest.mark.parametrize(
    ("pictures", "request_outcome"),
    [
        ([("vgg16", "ok"), ("vgg16", "ok")], ("vgg16", "ok")),
        ([("vgg16", "ok"), ("alexnet", "ok")], ("several", "ok")),
        ([("vgg16", "ok"), ("vgg16", "undecodable")], ("vgg16", "partial")),
        ([("none", "bad-body"), ("none", "bad-body")], ("none", "partial")),
        ([("none", "bad-body"), ("vgg16", "ok")], ("several", "partial")),
    ],
)
def test_a_bulk_request_is_ok_if_all_its_pictures_are(
    pictures: list[tuple[str, str]], request_outcome: tuple[str, str]
) -> None:
    assert summary([Outcome(*picture) for picture in pictures]) == request_outcome
