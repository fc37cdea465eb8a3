"""Queries: bounds on both sides, and what counts as a budget."""

from __future__ import annotations

import math
from typing import Any

import pytest
from pydantic import ValidationError

from service.domain.query import Query


@pytest.mark.parametrize(
    ("field", "allowed", "refused"),
    [
        ("latency_ms", [0.001, 3_600_000], [0, -1, 3_600_001, math.nan, math.inf]),
        ("memory_mb", [0.001, 10_000_000], [0, -1, 10_000_001, math.nan, math.inf]),
        ("min_top1", [0, 100], [-0.1, 100.1, math.nan]),
        ("k", [1, 10], [0, 11]),
        ("labels", ["imagenet1k", "cifar10", "mnist"], ["imagenet", ""]),
        ("model", ["x"], [""]),
        ("strict", ["true", "0"], ["maybe"]),
        ("colour", [], ["red"]),
    ],
)
def test_each_parameter_has_its_bounds(field: str, allowed: list[Any], refused: list[Any]) -> None:
    for value in allowed:
        assert Query(**{field: value})
    for value in refused:
        with pytest.raises(ValidationError):
            Query(**{field: value})


def test_an_unknown_label_set_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ValidationError, match="known: imagenet1k, cifar10, mnist"):
        Query(labels="coco")


@pytest.mark.parametrize(
    ("parameters", "has_budget"),
    [
        ({}, False),
        ({"model": "vgg16", "labels": "imagenet1k", "strict": False, "k": 1}, False),
        ({"latency_ms": 1}, True),
        ({"memory_mb": 1}, True),
        ({"min_top1": 0}, True),
    ],
)
def test_a_budget_is_a_time_a_memory_or_an_accuracy(parameters: dict[str, Any], has_budget: bool) -> None:
    assert Query(**parameters).has_budget is has_budget


def test_five_labels_and_a_strict_budget_are_the_default() -> None:
    assert (Query().k, Query().strict) == (5, True)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_must_be_finite(value: float) -> None:
    for field in ("latency_ms", "memory_mb", "min_top1"):
        with pytest.raises(ValidationError, match="must be a finite number"):
            Query(**{field: value})


@pytest.mark.parametrize(
    ("parameters", "allowed_s"),
    [
        ({}, 30.0),
        ({"model": "vgg16"}, 30.0),
        ({"latency_ms": 250}, 0.25),
        ({"latency_ms": 250, "model": "vgg16"}, 0.25),
        ({"latency_ms": 250, "model": "vgg16", "strict": False}, 30.0),
        # Nothing was named that could answer late, so the router keeps the budget.
        ({"latency_ms": 250, "strict": False}, 0.25),
        ({"memory_mb": 1, "min_top1": 1}, 30.0),
    ],
)
def test_a_latency_that_binds_is_the_time_that_is_allowed(parameters: dict[str, Any], allowed_s: float) -> None:
    assert Query(**parameters).allowed_s(30_000) == allowed_s
