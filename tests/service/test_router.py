"""The router's choice against exhaustive search."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.checkpoints import Catalogue, Checkpoint, WeightsMissingError
from models.labels import LABEL_SETS
from models.variants import VARIANTS
from service.errors import NoModelFitsError
from service.router import choose

ROWS = Catalogue(Path("/nonexistent")).checkpoints()

checkpoints = st.lists(
    st.builds(
        lambda row, labels, top1, path: replace(row, labels=labels, top1=top1, path=path),
        st.sampled_from(ROWS),
        st.sampled_from(LABEL_SETS),
        st.none() | st.integers(40, 100).map(float),
        st.sampled_from([None, Path("weights")]),
    ),
    max_size=8,
)


def brute_force(rows: list[Checkpoint], labels: str | None, min_top1: float | None) -> set[tuple[float, int]]:
    """Accuracy and parameters of every best choice; empty if there is none."""
    if labels is None:
        loadable = {row.labels for row in rows if row.path is not None}
        labels = "imagenet1k" if "imagenet1k" in loadable or "cifar10" not in loadable else "cifar10"
    fits = [
        (row.top1, row.variant.params)
        for row in rows
        if row.labels == labels and row.path is not None and row.top1 is not None and row.top1 >= (min_top1 or 0)
    ]
    best = max((top1 for top1, _ in fits), default=0.0)
    return {min(pair for pair in fits if pair[0] == best)} if fits else set()


@given(checkpoints, st.none() | st.sampled_from(LABEL_SETS), st.none() | st.integers(0, 100).map(float))
def test_the_choice_is_the_best_there_is(rows: list[Checkpoint], labels: str | None, min_top1: float | None) -> None:
    expected = brute_force(rows, labels, min_top1)
    if not expected:
        with pytest.raises((NoModelFitsError, WeightsMissingError)):
            choose(rows, labels, min_top1)
        return
    chosen = choose(rows, labels, min_top1).checkpoint
    assert {(chosen.top1, chosen.variant.params)} == expected


def test_digits_are_never_guessed_at() -> None:
    """Only LeNet-5 is here: a photograph must not be answered with a digit."""
    only_digits = [replace(row, path=Path("x") if row.labels == "mnist" else None) for row in ROWS]
    with pytest.raises(WeightsMissingError, match="googlenet"):
        choose(only_digits, None)
    assert choose(only_digits, "mnist").checkpoint.variant.name == "lenet5"


def test_cifar10_stands_in_where_imagenet_is_missing() -> None:
    small = [
        replace(row, labels="cifar10", path=Path("x"), top1=80.0) for row in ROWS if row.variant.name == "googlenet"
    ]
    assert choose([*ROWS, *small], None).checkpoint.labels == "cifar10"


def test_the_reasons_name_every_other_checkpoint_of_the_set() -> None:
    rows = [replace(row, path=Path("x")) if row.variant.name == "googlenet" else row for row in ROWS]
    routing = choose(rows, None).routing
    assert routing is not None
    others = {name for name, row in VARIANTS.items() if row.labels == "imagenet1k"} - {"googlenet"}
    assert {(entry.model, entry.rejected) for entry in routing.considered} == {
        (name, "weights missing") for name in others
    }
