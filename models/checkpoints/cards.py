"""The card of a weight file: its fields, and their bounds.

The router trusts a card's accuracy and decoding its sizes, but files come from strangers: one field that is unknown, of
the wrong type or out of bounds makes the whole card invalid.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from models.checkpoints.labels import LABEL_SETS
from models.images.preprocess import Preprocess
from models.networks.memory import Costs
from models.networks.variants import UnknownModelError, Variant, find_variant
from models.validation import first_error

#: The largest side in pixels to which a picture is resized, cropped or enlarged; the networks take 28 to 299.
MOST_PIXELS = 2048
#: The largest side of a network's input, about twice the largest that any network was made for: what a picture costs
#: grows with its square, and it is measured at the start.
MOST_INPUT = 640
#: The longest text, in characters.
MOST_TEXT = 2000
#: The arguments that a card may give to the network of a variant; variants that are not listed take none.
OPTIONS: Mapping[str, frozenset[str]] = {
    "alexnet": frozenset({"lrn", "pool_first", "as_graph"}),
    "googlenet": frozenset({"lrn", "as_graph"}),
    "inception_v2": frozenset({"as_graph"}),
    "zfnet": frozenset({"lrn"}),
    "zfnet512": frozenset({"lrn"}),
}


class CardError(ValueError):
    """The card cannot be used; the text says why in one line."""


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("has characters that cannot be printed")
    return text


def _label_set(name: str) -> str:
    if name not in LABEL_SETS:
        raise ValueError(f"must be one of {', '.join(LABEL_SETS)}")
    return name


def _variant(name: str) -> str:
    try:
        find_variant(name)
    except UnknownModelError:
        raise ValueError("is not a known network") from None
    return name


Text = Annotated[str, Field(max_length=MOST_TEXT), AfterValidator(_printable)]
Percent = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
Side = Annotated[int, Field(ge=1, le=MOST_PIXELS)]
Count = Annotated[int, Field(ge=1, le=10**15)]
Finite = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]
Positive = Annotated[float, Field(ge=1e-9, le=1e6, allow_inf_nan=False)]


class _Strict(BaseModel):
    """Converts nothing (a text or a truth value is not a number) and takes no unknown field."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class _Preprocess(_Strict):
    fit: Literal["short side", "warp", "contain"]
    resize: Side
    crop: Side
    colour: Literal["rgb", "bgr", "grey"] = "rgb"
    scale: Positive = 1 / 255
    mean: Annotated[list[Finite], Field(min_length=1, max_length=3)] = [0.0]
    std: Annotated[list[Positive], Field(min_length=1, max_length=3)] = [1.0]
    pad: Annotated[int, Field(ge=0, le=MOST_PIXELS)] = 0
    ink_on_light: bool = False
    enlarge: Annotated[int, Field(ge=0, le=MOST_PIXELS)] = 0

    @model_validator(mode="after")
    def _fits_together(self) -> _Preprocess:
        channels = 1 if self.colour == "grey" else 3
        if self.crop > self.resize:
            raise ValueError(f"crop {self.crop} is larger than resize {self.resize}")
        if self.enlarge % self.crop:
            raise ValueError(f"enlarge {self.enlarge} is not a multiple of crop {self.crop}")
        if (self.enlarge or self.crop) + 2 * self.pad > MOST_INPUT:
            raise ValueError(f"crop, enlarge and pad make more than {MOST_INPUT} pixels")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, channels):
                raise ValueError(f"{name} has {len(values)} numbers for {channels} channels")
        return self


class _ResponseNorm(_Strict):
    size: Annotated[int, Field(ge=1, le=255)] = 5
    alpha: Annotated[float, Field(ge=0, le=1e3, allow_inf_nan=False)] = 1e-4
    beta: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)] = 0.75
    k: Annotated[float, Field(ge=1e-9, le=1e3, allow_inf_nan=False)] = 1.0


class _Network(_Strict):
    lrn: _ResponseNorm | None = None
    pool_first: bool = False
    as_graph: bool = False


class _Costs(_Strict):
    params: Count
    activations: Count
    multiply_adds: Count


class _Card(_Strict):
    variant: Annotated[Text, AfterValidator(_variant)]
    labels: Annotated[Text, AfterValidator(_label_set)]
    origin: Text
    top1: Percent | None
    top5: Percent | None
    accuracy_source: Text = ""
    recipe: Text = ""
    preprocess: _Preprocess
    network: _Network = _Network()
    costs: _Costs | None = None

    @model_validator(mode="after")
    def _ranks_accuracies(self) -> _Card:
        if self.top1 is not None and self.top5 is not None and self.top1 > self.top5:
            raise ValueError(f"top1 {self.top1:g} is above top5 {self.top5:g}")
        return self

    @model_validator(mode="after")
    def _takes_its_options(self) -> _Card:
        name = find_variant(self.variant).name
        for option in sorted(self.network.model_fields_set - OPTIONS.get(name, frozenset())):
            raise ValueError(f"network: {name} takes no {option}")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """The content of a valid card."""

    variant: Variant
    labels: str
    origin: str
    top1: float | None
    top5: float | None
    accuracy_source: str
    recipe: str
    preprocess: Preprocess
    network: Mapping[str, Any]
    costs: Costs | None


def parse_card(text: str) -> Card:
    """Reads the JSON of a card.

    Raises:
        CardError: it is not JSON, or a field is missing, unknown, of the wrong type or out of bounds.
    """
    try:
        fields = json.loads(text)
        checked = _Card.model_validate(fields)
    except ValidationError as error:
        raise CardError(_first(error)) from error
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise CardError("its card is not a JSON object") from error
    return Card(
        variant=find_variant(checked.variant),
        labels=checked.labels,
        origin=checked.origin,
        top1=checked.top1,
        top5=checked.top5,
        accuracy_source=checked.accuracy_source,
        recipe=checked.recipe,
        preprocess=Preprocess.from_json(fields["preprocess"]),
        network=fields.get("network", {}),
        costs=None if checked.costs is None else Costs(**checked.costs.model_dump()),
    )


def printable(text: str) -> str:
    """The text in a form that a card may have: unprintable characters become question marks, and the end is cut."""
    return "".join(c if c.isprintable() else "?" for c in text)[:MOST_TEXT]


def _first(error: ValidationError) -> str:
    """The first error that pydantic found, in one line."""
    where, value, what, kind = first_error(error)
    what = what[:1].lower() + what[1:]
    given = "" if kind == "missing" or (kind == "value_error" and not where) else f" (it says {_short(value)})"
    return f"its card is wrong: {where + ': ' if where else ''}{what}{given}"


def _short(value: object) -> str:
    try:
        text = ascii(value)
    except (ValueError, RecursionError):
        return "something very large"
    return text if len(text) <= 40 else text[:37] + "..."
