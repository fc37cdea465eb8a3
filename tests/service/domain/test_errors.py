"""The table of errors: statuses, slugs, and what each kind of problem adds."""

from __future__ import annotations

import pickle

import pytest

from models.checkpoints.catalogue import Catalogue, WeightsMissingError, WrongWeightsError
from models.images.pictures import (
    PictureError,
    TooManyPartsError,
    TooManyPixelsError,
    UndecodableError,
    UnsupportedFormatError,
)
from models.networks.variants import UnknownModelError
from service.domain.decision import Considered
from service.domain.errors import (
    INTERNAL,
    PROBLEMS,
    TABLE,
    BadBodyError,
    BadParameterError,
    BodyTooLargeError,
    BodyTooSlowError,
    DeadlineMissedError,
    Failure,
    ForbiddenError,
    InUseError,
    LoadFailedError,
    MemoryLimitError,
    NoModelFitsError,
    NoPictureError,
    NotReadyError,
    OutOfDeviceMemoryError,
    OverloadedError,
    failure_of,
    known_failure,
    of_a_load,
    problem_document,
)

VGG = Catalogue().find("vgg16@imagenet1k")


def test_slugs_are_unique_and_statuses_are_errors() -> None:
    # Several exceptions may share a row, but no two rows share a slug.
    assert len({row.slug for row in TABLE.values()}) == len(set(TABLE.values()))
    assert all(400 <= row.status < 600 for row in PROBLEMS.values())
    assert [row.slug for row in PROBLEMS.values() if row.status == 500] == ["internal"]


def test_every_kind_of_picture_error_has_a_row() -> None:
    assert set(PictureError.__subclasses__()) <= set(TABLE)


def test_a_defect_hides_its_text_from_the_client() -> None:
    failure = failure_of(KeyError("secret"))
    assert failure.problem is INTERNAL
    assert "secret" not in str(problem_document(failure))


def test_the_document_has_the_members_that_the_kind_of_problem_adds() -> None:
    assert problem_document(failure_of(OverloadedError("full", 1.25)))["retry_after_ms"] == 1250.0
    assert "lenet5" in problem_document(failure_of(UnknownModelError("x")))["known"]
    assert "topfive import vgg16" in problem_document(failure_of(WeightsMissingError(VGG)))["mend"]


def test_a_failure_crosses_processes() -> None:
    failure = Failure("overloaded", "full", {"retry_after_ms": 3.5})
    assert pickle.loads(pickle.dumps(failure)) == failure


def test_a_subclass_has_the_row_of_its_parent() -> None:
    class WorseParameterError(BadParameterError):
        pass

    assert failure_of(WorseParameterError("k")).slug == "bad-parameter"


@pytest.mark.parametrize(
    ("error", "status", "slug"),
    [
        (BadParameterError("x"), 400, "bad-parameter"),
        (BadBodyError("x"), 400, "bad-body"),
        (NoPictureError("x"), 400, "no-picture"),
        (ForbiddenError("x"), 403, "forbidden"),
        (UnknownModelError("x"), 404, "unknown-model"),
        (BodyTooSlowError("x"), 408, "slow-body"),
        (InUseError("x"), 409, "in-use"),
        (BodyTooLargeError("x"), 413, "body-too-large"),
        (UnsupportedFormatError("x"), 415, "unsupported-format"),
        (UndecodableError("x"), 422, "undecodable"),
        (TooManyPixelsError("x"), 422, "too-many-pixels"),
        (TooManyPartsError("x"), 422, "too-many-parts"),
        (NoModelFitsError("x"), 422, "no-model-fits"),
        (OverloadedError("x", 1.0), 429, "overloaded"),
        (WeightsMissingError(VGG), 503, "weights-missing"),
        (WrongWeightsError("x"), 503, "weights-damaged"),
        (LoadFailedError("x", 1.0), 503, "load-failed"),
        (LoadFailedError("x", None, "weights-damaged"), 503, "weights-damaged"),
        (OutOfDeviceMemoryError("the weights do"), 503, "out-of-memory"),
        (MemoryLimitError("x"), 503, "out-of-memory"),
        (NotReadyError("x"), 503, "not-ready"),
        (DeadlineMissedError("x"), 504, "deadline-missed"),
        (KeyError("x"), 500, "internal"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_each_error_has_its_status_and_its_kind_of_problem(error: Exception, status: int, slug: str) -> None:
    document = problem_document(failure_of(error))
    assert (document["status"], document["type"]) == (status, f"/problems/{slug}")


@pytest.mark.parametrize(
    ("retry_after_s", "retry_after_ms"), [(0.0, 1.0), (0.2, 200.0), (1.23456, 1234.6), (60, 60_000)]
)
def test_a_failed_load_may_be_retried_after_a_millisecond_at_the_earliest(
    retry_after_s: float, retry_after_ms: float
) -> None:
    assert failure_of(LoadFailedError("x", retry_after_s)).extras == {"retry_after_ms": retry_after_ms}


def test_a_load_that_failed_for_good_has_no_time_to_come_back() -> None:
    assert failure_of(LoadFailedError("x", None)).extras == {}


def test_rejected_checkpoints_are_listed_where_there_was_a_choice() -> None:
    entries = [Considered(model="vgg16", rejected="latency")]
    for error in (OverloadedError("x", 1.0, entries), NoModelFitsError("x", entries)):
        assert problem_document(failure_of(error))["considered"] == [{"model": "vgg16", "rejected": "latency"}]
    assert "considered" not in problem_document(failure_of(NoModelFitsError("x")))


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (Failure("load-failed", "x"), True),
        (Failure("weights-damaged", "x"), True),
        (Failure("weights-missing", "x"), True),
        (Failure("out-of-memory", "x", {"retry_after_ms": 1000.0}), True),
        (Failure("out-of-memory", "in a forward pass"), False),
        (Failure("undecodable", "x"), False),
        (Failure("overloaded", "x", {"retry_after_ms": 1000.0}), False),
        ("a prediction", False),
    ],
)
def test_another_network_may_answer_after_a_failed_load_alone(outcome: object, expected: bool) -> None:
    assert of_a_load(outcome) is expected


def test_a_defect_is_logged_with_its_traceback_and_an_expected_error_is_not(caplog: pytest.LogCaptureFixture) -> None:
    known_failure(BadParameterError("k"))
    assert caplog.records == []
    known_failure(KeyError("secret"))
    (record,) = caplog.records
    assert record.exc_info is not None
