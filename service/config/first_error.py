"""The first of the errors that pydantic found, for messages of one line."""

from __future__ import annotations

from typing import Any, NamedTuple

from pydantic import ValidationError


class FirstError(NamedTuple):
    """One error of a ``ValidationError``."""

    where: str
    """The path of the field, with dots; empty if the whole document is wrong."""
    reason: str
    value: Any
    """What was given."""


def first_error(error: ValidationError) -> FirstError:
    """The first error. One is enough: a person mends one thing at a time, and the others often follow from it."""
    first = error.errors(include_url=False)[0]
    # pydantic puts these words before the text of every ValueError that a validator raises.
    reason = first["msg"].removeprefix("Value error, ")
    return FirstError(".".join(map(str, first["loc"])), reason, first["input"])
