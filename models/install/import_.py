"""``topfive import``: a weight file from elsewhere -> a checkpoint in the local cache, whole or not at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from models.analysis.description import counted
from models.checkpoints.build import build_with
from models.checkpoints.cards import CardError, printable
from models.checkpoints.catalogue import Catalogue, Checkpoint, WrongWeightsError, card, checked_card
from models.checkpoints.labels import LABEL_SETS, labels
from models.checkpoints.weights import Weights, read_weights
from models.files import atomic_write
from models.images.preprocess import PRESETS, Preprocess
from models.networks.variants import Variant


def import_file(
    variant: Variant,
    path: Path,
    catalogue: Catalogue,
    *,
    label_set: str | None = None,
    preset: str | None = None,
    as_graph: bool = False,
) -> Checkpoint:
    """Checks a weight file and stores it in the cache, whole or not at all. Returns the stored checkpoint.

    Args:
        variant: the network that the weights are for.
        path: see ``read_weights``.
        catalogue: the cache to store it in.
        label_set: the meaning of the classes; default: the label set of the file's card, else of the variant.
        preset: preprocessing, a name in ``preprocess.PRESETS``; default: the manifest's entry for this file, else
            its card, else the variant.
        as_graph: keeps the geometry of a zoo graph where it differs from the original network's.

    Raises:
        WrongWeightsError: the file or the label set does not fit; nothing was stored, and an older file stays.
        FileNotFoundError: there is no such file.
        OSError: it cannot be read, or the cache cannot be written to.
    """
    weights = read_weights(variant, path, as_graph=as_graph)
    own = _own_card(path) if path.suffix.lower() == ".safetensors" else None
    label_set = _label_set(variant, weights.num_classes, label_set or (own.labels if own is not None else None))
    network = build_with(variant, weights, path, as_graph=as_graph)
    checkpoint = _describe(variant, path, label_set, weights, own, as_graph)
    if preset is not None:
        checkpoint = replace(checkpoint, preprocess=PRESETS[preset])
    checkpoint = counted(checkpoint)
    target = catalogue.path_for(variant, label_set)
    write_checkpoint(target, network, checkpoint)
    return replace(checkpoint, path=target, modified_ns=target.stat().st_ctime_ns)


def _own_card(path: Path) -> Checkpoint | None:
    try:
        return checked_card(path)
    except CardError as error:
        raise WrongWeightsError(f"{path}: {error}") from error


def _describe(
    variant: Variant, path: Path, label_set: str, weights: Weights, own: Checkpoint | None, as_graph: bool
) -> Checkpoint:
    network: dict[str, Any] = dict(weights.network)
    if as_graph and variant.graph_differs:
        network["as_graph"] = True
    if own is not None:
        own = replace(own, path=None, modified_ns=None, network=network)
        if own.labels == label_set:
            return own
        # Its accuracy was measured on other classes.
        return replace(own, labels=label_set, top1=None, top5=None, accuracy_source="")
    top1, top5 = (None, None) if label_set != variant.labels else variant.published
    source = f"not measured on this file; {variant.published_source}" if top1 is not None else ""
    checkpoint = Checkpoint(
        variant=variant,
        labels=label_set,
        origin=printable(f"imported from {path.name}"),
        preprocess=_graph_input(variant, as_graph),
        top1=top1,
        top5=top5,
        accuracy_source=source,
        network=network,
    )
    if weights.known is None:
        return checkpoint
    known = weights.known
    return replace(
        checkpoint,
        origin=known.origin,
        preprocess=checkpoint.preprocess if as_graph else PRESETS[known.preprocess],
        top1=known.top1,
        top5=known.top5,
        accuracy_source=known.accuracy_source,
    )


def _graph_input(variant: Variant, as_graph: bool) -> Preprocess:
    preprocess = PRESETS[variant.preprocess]
    # All of the zoo's Caffe networks, AlexNet too, take 224 pixels.
    return replace(preprocess, crop=224) if as_graph and preprocess.crop == 227 else preprocess


def _label_set(variant: Variant, num_classes: int, asked: str | None) -> str:
    label_set = asked or variant.labels
    if label_set not in LABEL_SETS:
        raise WrongWeightsError(f"unknown label set {label_set!r}; known: {', '.join(LABEL_SETS)}")
    if len(labels(label_set)) != num_classes:
        hint = "" if asked else "; say which with --labels"
        raise WrongWeightsError(f"the file has {num_classes} classes, {label_set} has {len(labels(label_set))}{hint}")
    return label_set


def write_checkpoint(target: Path, network: nn.Module, checkpoint: Checkpoint, *, half: bool = False) -> None:
    """Writes weights and card as safetensors, whole or not at all.

    Args:
        target: the file; its folder is made if need be.
        network: whose weights are written.
        checkpoint: the contents of the card.
        half: stores the weights of convolutions and linear layers as float16. Biases and batch norm, a hundredth of a
            network, stay float32.

    Raises:
        OSError: the file could not be written; an older one stays.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    # Copies, since tensors of one file may share memory, which safetensors refuses to write.
    state = {k: tensor.clone(memory_format=torch.contiguous_format) for k, tensor in network.state_dict().items()}
    if half:
        state = {k: tensor.half() if tensor.ndim > 1 else tensor for k, tensor in state.items()}
    try:
        with atomic_write(target) as part:
            save_file(state, part, metadata=card(checkpoint))
    except SafetensorError as error:
        # How safetensors reports a full disk.
        raise OSError(f"{target} could not be written: {error}") from error
