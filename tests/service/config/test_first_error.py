"""The first of pydantic's errors in a line."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, ValidationError, model_validator

from service.config.first_error import first_error


class Inner(BaseModel):
    ports: list[int] = []
    name: str = ""


class Outer(BaseModel):
    inner: Inner = Inner()

    @model_validator(mode="after")
    def _check(self) -> Outer:
        if self.inner.name == "bad":
            raise ValueError("bad names are refused")
        return self


def caught(document: object) -> ValidationError:
    with pytest.raises(ValidationError) as found:
        Outer.model_validate(document)
    return found.value


def test_it_has_the_whole_path_the_reason_and_the_value() -> None:
    where, reason, value = first_error(caught({"inner": {"ports": [1, "x"], "name": 5}}))
    assert (where, value) == ("inner.ports.1", "x")
    assert reason.startswith("Input should be a valid integer")


def test_an_error_of_the_whole_document_has_no_path_and_only_our_words() -> None:
    where, reason, _ = first_error(caught({"inner": {"name": "bad"}}))
    assert (where, reason) == ("", "bad names are refused")
