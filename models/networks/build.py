"""A variant -> its network: a torch module with random weights."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from torch import nn

from models.networks.layers import LRNConstants
from models.networks.variants import Variant


def build(
    variant: Variant,
    *,
    num_classes: int | None = None,
    aux_heads: bool = False,
    as_graph: bool = False,
    arguments: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Builds the network of a variant in eval mode; ``models.get_model`` documents the arguments.

    Raises:
        ValueError: the variant has no auxiliary heads, and ``aux_heads`` asks for them.
        TypeError: the network does not take one of the ``arguments``.
    """
    merged: dict[str, Any] = {**variant.arguments, **(arguments or {})}
    if isinstance(merged.get("lrn"), Mapping):
        merged["lrn"] = LRNConstants(**merged["lrn"])
    if num_classes is not None:
        merged["num_classes"] = num_classes
    if variant.has_aux_heads:
        merged["aux_heads"] = aux_heads
    elif aux_heads:
        raise ValueError(f"{variant.name} has no auxiliary heads")
    if as_graph and variant.graph_differs:
        merged["as_graph"] = True
    module, function = variant.builder.split(":")
    network: nn.Module = getattr(importlib.import_module(f"models.networks.{module}"), function)(**merged)
    return network.eval()
