"""What pydantic found wrong with outside data, in one line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol


class FieldError(NamedTuple):
    """One field that pydantic refused. As text: ``field: reason``."""

    field: str
    """Its path, joined with dots (``deployment.0.replicas``); empty if the error is about the data as a whole."""
    given: Any
    """The refused value."""
    reason: str
    kind: str = ""
    """Pydantic's name of the error: ``missing``, ``value_error`` ..."""

    def __str__(self) -> str:
        return f"{self.field}: {self.reason}" if self.field else self.reason


class _Errors(Protocol):
    """``pydantic.ValidationError``, or FastAPI's ``RequestValidationError``."""

    def errors(self) -> Sequence[Any]: ...


def first_error(error: _Errors) -> FieldError:
    """The first error that pydantic found. One is enough: the others often follow from it."""
    first = error.errors()[0]
    # Pydantic puts this in front of the messages of our own validators.
    reason = first["msg"].removeprefix("Value error, ")
    return FieldError(".".join(map(str, first["loc"])), first["input"], reason, first.get("type", ""))
