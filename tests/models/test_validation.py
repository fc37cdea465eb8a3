"""What pydantic finds first, in one line."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError, field_validator, model_validator

from models.validation import FieldError, first_error


class Part(BaseModel):
    size: int

    @field_validator("size")
    @classmethod
    def _check(cls, size: int) -> int:
        if size == 13:
            raise ValueError("brings bad luck")
        return size


class Whole(BaseModel):
    name: str
    parts: list[Part] = []

    @model_validator(mode="after")
    def _check(self) -> Whole:
        if self.name == "nobody":
            raise ValueError("somebody must be meant")
        return self


@pytest.mark.parametrize(
    ("data", "error", "text"),
    [
        (
            {"name": "a", "parts": [{"size": 1}, {"size": "big"}, {"size": "bigger"}]},
            ("parts.1.size", "big"),
            "parts.1.size: Input should be a valid integer, unable to parse string as an integer",
        ),
        ({"name": 3}, ("name", 3), "name: Input should be a valid string"),
        ({}, ("name", {}), "name: Field required"),
        # Of our own validators.
        ({"name": "a", "parts": [{"size": 13}]}, ("parts.0.size", 13), "parts.0.size: brings bad luck"),
        ({"name": "nobody"}, ("", {"name": "nobody"}), "somebody must be meant"),
    ],
)
def test_the_first_error_is_named_by_field_value_and_reason(data: Any, error: tuple[str, object], text: str) -> None:
    with pytest.raises(ValidationError) as raised:
        Whole.model_validate(data)
    first = first_error(raised.value)
    assert (first.field, first.given) == error
    assert str(first) == text


def test_errors_of_fastapi_are_read_too() -> None:
    error = RequestValidationError([{"loc": ("query", "k"), "msg": "Field required", "input": None}])
    assert first_error(error) == FieldError("query.k", None, "Field required")
