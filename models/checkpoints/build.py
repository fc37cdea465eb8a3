"""A checkpoint or a weight file -> the network with its weights, a torch module."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.checkpoints.catalogue import Catalogue, Checkpoint, WeightsMissingError, WrongWeightsError
from models.checkpoints.labels import labels
from models.checkpoints.weights import Weights, check_fit, read_outline, read_weights
from models.networks.build import build
from models.networks.variants import Variant

#: The seed of untrained checkpoints, so that their weights are the same in every process and every run.
UNTRAINED_SEED = 0


def build_from(
    variant: Variant,
    weights: str | Path,
    *,
    num_classes: int | None = None,
    aux_heads: bool = False,
    as_graph: bool = False,
    arguments: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Builds a variant with the weights of a file, or of the local checkpoint for ``"default"``; the arguments and the
    errors are those of ``models.get_model``."""
    if weights == "default":
        checkpoint = Catalogue().find(variant.name)
        if checkpoint.path is None:
            raise WeightsMissingError(checkpoint)
        weights = checkpoint.path
    path = Path(weights)
    read = read_weights(variant, path, as_graph=as_graph)
    if num_classes is not None and num_classes != read.num_classes:
        raise WrongWeightsError(f"{path} has {read.num_classes} classes; num_classes={num_classes} was asked for")
    return build_with(variant, read, path, aux_heads=aux_heads, as_graph=as_graph, arguments=arguments)


def build_with(
    variant: Variant,
    weights: Weights,
    path: Path,
    *,
    aux_heads: bool = False,
    as_graph: bool = False,
    arguments: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Builds a variant with weights that were read from ``path``, in eval mode.

    Raises:
        WrongWeightsError: the tensors are not exactly those of the network.
    """
    merged = {**weights.network, **(arguments or {})}
    # On the meta device no weights are drawn: the file's tensors become the parameters.
    try:
        with torch.device("meta"):
            network = build(
                variant,
                num_classes=weights.num_classes,
                aux_heads=aux_heads,
                as_graph=as_graph,
                arguments=merged,
            )
    except (TypeError, ValueError, LookupError) as error:
        raise WrongWeightsError(f"{path}: {variant.name} cannot be built as its card asks: {error}") from error
    state = weights.state
    if variant.has_aux_heads and not aux_heads:
        state = {name: tensor for name, tensor in state.items() if not name.lower().startswith("aux")}
    # Files from before torch 0.4.1 lack batch norm's counter of batches, which this package never uses.
    counters = (name for name in network.state_dict() if name.endswith(".num_batches_tracked"))
    state = {**state, **{name: torch.tensor(0) for name in counters if name not in state}}
    check_fit(path, variant.name, network, state)
    network.load_state_dict(state, strict=True, assign=True)
    return network.requires_grad_(True).eval()


def build_checkpoint(checkpoint: Checkpoint) -> nn.Module:
    """Builds the network of a checkpoint, ready to serve; an untrained one has random weights of a fixed seed.

    Raises:
        WeightsMissingError: its weights are not on this machine.
        WrongWeightsError: they are damaged.
    """
    if not checkpoint.trained:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(UNTRAINED_SEED)
            return build(checkpoint.variant, arguments=checkpoint.network)
    if checkpoint.path is None:
        raise WeightsMissingError(checkpoint)
    path = checkpoint.path
    weights = read_weights(checkpoint.variant, path)
    _check_classes(checkpoint, path, weights)
    return build_with(checkpoint.variant, weights, path, arguments=checkpoint.network)


def _check_classes(checkpoint: Checkpoint, path: Path, weights: Weights) -> None:
    """Checks that there are as many classes as labels: the others would be answered with labels of other things."""
    count = len(labels(checkpoint.labels))
    if weights.num_classes != count:
        raise WrongWeightsError(f"{path} has {weights.num_classes} classes, {checkpoint.labels} has {count:,}")


def check_weights(checkpoint: Checkpoint) -> None:
    """Compares the tensors of a checkpoint's file with its network by name, shape and type, reading only the header.

    Raises:
        WeightsMissingError: its weights are not on this machine.
        WrongWeightsError: they are not those of the network.
        OSError: the file cannot be read.
    """
    path = checkpoint.path
    if path is None:
        raise WeightsMissingError(checkpoint)
    weights = read_outline(checkpoint.variant, path)
    _check_classes(checkpoint, path, weights)
    build_with(checkpoint.variant, weights, path, arguments=checkpoint.network)
