"""Each kind of response ends where it should: answered, refused or failed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from loadtest._outcomes import Outcome, Picture, read_outcome, unreachable
from loadtest._requests import Kind, Request

ANSWER = {
    "model": "googlenet",
    "timings_ms": {"decode": 2.0, "queue": 0.5, "forward": 24.0, "total": 27.0},
    "batch_size": 3,
}
PICTURE = Picture("googlenet", 3, 2.0, 0.5, 24.0)


def read(status: int, document: Any, kind: Kind = "classify", problem: tuple[int, str] | None = None) -> Outcome:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return read_outcome(Request(kind, "", "/classify", b"", problem=problem), status, body)


def problem(slug: str, status: int = 0) -> dict[str, Any]:
    return {"type": f"/problems/{slug}", "status": status}


def test_an_answer_is_read() -> None:
    assert read(200, ANSWER) == Outcome("answered", 200, [PICTURE])


@pytest.mark.parametrize(
    ("status", "document", "refusal"),
    [
        (429, problem("overloaded"), "/problems/overloaded"),
        (422, problem("no-model-fits"), "/problems/no-model-fits"),
        (429, b"<html>slow down</html>", "429"),
    ],
)
def test_refusals_are_no_failures(status: int, document: Any, refusal: str) -> None:
    assert read(status, document, "budget") == Outcome("refused", status, refusals=[refusal])


@pytest.mark.parametrize(
    ("status", "document", "failure"),
    [
        (504, problem("deadline-missed"), "504 /problems/deadline-missed"),
        (503, problem("not-ready"), "503 /problems/not-ready"),
        (503, b"<html>no server</html>", "503"),
        (500, b"[1]", "500"),
        (422, problem("undecodable"), "422 /problems/undecodable"),
        (404, problem("unknown-model"), "404 /problems/unknown-model"),
        (200, b"", "200 with an unexpected body"),
        (200, {"model": "googlenet"}, "200 with an unexpected body"),
        (200, [], "200 with an unexpected body"),
    ],
)
def test_other_responses_are_failures_counted_by_status_and_problem(status: int, document: Any, failure: str) -> None:
    assert read(status, document) == Outcome("failed", status, failure=failure)


def test_a_bulk_answer_counts_its_entries() -> None:
    entries = [{"status": 200, **ANSWER}, problem("overloaded", 429), {"status": 200, **ANSWER}]
    expected = Outcome("answered", 200, [PICTURE, PICTURE], refusals=["/problems/overloaded"])
    assert read(200, {"results": entries}, "bulk") == expected


def test_a_bulk_answer_is_refused_if_all_of_it_is_and_failed_if_one_of_it_is() -> None:
    refused = read(200, {"results": [problem("overloaded", 429)] * 2}, "bulk")
    assert (refused.verdict, len(refused.refusals)) == ("refused", 2)
    entries = [{"status": 200, **ANSWER}, problem("deadline-missed", 504)]
    failed = read(200, {"results": entries}, "bulk")
    assert (failed.verdict, failed.failure) == ("failed", "504 /problems/deadline-missed")
    assert failed.pictures == [PICTURE]


@pytest.mark.parametrize("document", [{"results": []}, {"results": [{}]}, ANSWER, b"no JSON"])
def test_a_bulk_answer_without_entries_is_a_failure(document: Any) -> None:
    assert read(200, document, "bulk").verdict == "failed"


EXPECTED = (415, "/problems/unsupported-format")


@pytest.mark.parametrize(
    ("status", "document", "verdict"),
    [
        (415, problem("unsupported-format"), "answered"),
        (415, problem("undecodable"), "failed"),
        (422, problem("unsupported-format"), "failed"),
        (200, ANSWER, "failed"),
        (500, problem("internal"), "failed"),
        (429, problem("overloaded"), "refused"),
    ],
)
def test_junk_must_get_its_own_problem(status: int, document: Any, verdict: str) -> None:
    outcome = read(status, document, "junk", EXPECTED)
    assert outcome.verdict == verdict
    assert bool(outcome.failure) == (verdict == "failed")
    assert not outcome.pictures


def test_a_bulk_answer_is_counted_by_its_first_failure() -> None:
    entries = [problem("deadline-missed", 504), problem("internal", 500), problem("overloaded", 429)]
    found = read(200, {"results": entries}, "bulk")
    assert (found.failure, found.refusals) == ("504 /problems/deadline-missed", ["/problems/overloaded"])


def test_the_phases_are_read_from_their_own_timings() -> None:
    (picture,) = read(200, ANSWER).pictures
    assert (picture.decode_ms, picture.queue_ms, picture.forward_ms, picture.batch_size) == (2.0, 0.5, 24.0, 3)


def test_no_response_is_a_failure_without_a_status() -> None:
    assert unreachable("timed out") == Outcome("failed", 0, failure="timed out")
