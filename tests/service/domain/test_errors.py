"""The table of errors: statuses, slugs, and what each kind of problem adds."""

from __future__ import annotations

import pickle

from models.checkpoints.catalogue import Catalogue, WeightsMissingError
from models.images.pictures import PictureError
from models.networks.variants import UnknownModelError
from service.domain.errors import (
    INTERNAL,
    PROBLEMS,
    TABLE,
    BadParameterError,
    Failure,
    OverloadedError,
    failure_of,
    problem_document,
)


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
    vgg = Catalogue().find("vgg16@imagenet1k")
    assert "topfive import vgg16" in problem_document(failure_of(WeightsMissingError(vgg)))["mend"]


def test_a_failure_crosses_processes() -> None:
    failure = Failure("overloaded", "full", {"retry_after_ms": 3.5})
    assert pickle.loads(pickle.dumps(failure)) == failure


def test_a_subclass_has_the_row_of_its_parent() -> None:
    class WorseParameterError(BadParameterError):
        pass

    assert failure_of(WorseParameterError("k")).slug == "bad-parameter"
