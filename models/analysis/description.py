"""What ``topfive describe`` reports: a network's layers, what they cost, and networks side by side."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from models.analysis.costs import Analysis, analyse
from models.analysis.layer_table import Row, layer_rows
from models.checkpoints.catalogue import Catalogue, Checkpoint, WrongWeightsError
from models.checkpoints.labels import labels
from models.images.preprocess import PRESETS
from models.networks.build import build
from models.networks.memory import ELEMENT, Costs, Purpose
from models.networks.variants import UnknownModelError, find_variant

PURPOSES: tuple[Purpose, ...] = ("inference", "training")
#: The network that others are compared with.
REFERENCE = "vgg16"


@dataclass(frozen=True, slots=True)
class Description:
    """A network in the geometry in which a checkpoint is served."""

    checkpoint: Checkpoint
    as_graph: bool
    analysis: Analysis
    rows: Sequence[Row]
    needs: dict[Purpose, Costs]
    """Costs by purpose. Those of training include the auxiliary heads."""

    @property
    def geometry(self) -> str | None:
        """The geometry in words; None if the zoo's graph has the same (see ``Variant.graph_differs``)."""
        differs = self.checkpoint.variant.graph_differs
        if not differs:
            return None
        if self.as_graph:
            return f"the ONNX Model Zoo's graph: {differs}"
        return f"the original; in the ONNX Model Zoo's graph {differs} (--as-graph)"

    def to_json(self, *, batch: int, memory: int | None) -> dict[str, Any]:
        """A JSON object: bytes by number format, purpose and batch; ``largest_batch`` fits into ``memory`` bytes."""
        variant, analysis = self.checkpoint.variant, self.analysis
        largest = {} if memory is None else {"memory_limit": memory, "largest_batch": self._largest(memory)}
        return {
            "name": variant.name,
            "aliases": list(variant.aliases),
            "paper": variant.paper,
            "year": variant.year,
            "checkpoint": self.checkpoint.name,
            "state": self.checkpoint.state,
            "geometry": self.geometry,
            "input": list(analysis.input_shape),
            "params": analysis.params,
            "params_in_training": self.needs["training"].params,
            "multiply_adds": analysis.multiply_adds,
            "activations": analysis.activations,
            "depth": analysis.depth,
            "layers": [asdict(row) for row in self.rows],
            "memory": {
                dtype: {
                    purpose: {str(n): self.needs[purpose].bytes(n, dtype, purpose) for n in sorted({1, batch})}
                    for purpose in PURPOSES
                }
                for dtype in ELEMENT
            },
            **largest,
        }

    def _largest(self, memory: int) -> dict[str, dict[str, int]]:
        return {
            dtype: {purpose: self.needs[purpose].largest_batch(memory, dtype, purpose) for purpose in PURPOSES}
            for dtype in ELEMENT
        }


def of_the_paper(catalogue: Catalogue, name: str) -> Checkpoint:
    """The checkpoint to describe. A plain name means the label set of the paper, whichever weights are on this machine.

    Raises:
        UnknownModelError: there is no such variant or checkpoint.
    """
    if "@" not in name:
        with suppress(UnknownModelError):
            return catalogue.find(name, find_variant(name).labels)
    return catalogue.find(name)


def describe(checkpoint: Checkpoint, *, as_graph: bool = False) -> Description:
    """Analyses the network of a checkpoint in about a second, on the meta device; its weights need not be here.

    Args:
        checkpoint: decides the number of classes, the picture's size and the network's arguments.
        as_graph: takes the zoo graph's geometry, regardless of the checkpoint.

    Raises:
        WrongWeightsError: the network cannot have the arguments or the pictures of the checkpoint's card.
    """
    variant = checkpoint.variant
    arguments = dict(checkpoint.network)
    if as_graph and variant.graph_differs:
        arguments["as_graph"] = True
    as_graph = bool(arguments.get("as_graph"))
    channels, side = checkpoint.preprocess.channels, checkpoint.preprocess.side
    if as_graph and side == 227:
        # The zoo feeds every Caffe network 224 pixels.
        side = 224
    classes = len(labels(checkpoint.labels))
    # Training is always that of the original geometry.
    original = {name: value for name, value in arguments.items() if name != "as_graph"}
    original_side = PRESETS[variant.preprocess].side if as_graph else side
    try:
        with torch.device("meta"):
            network = build(variant, num_classes=classes, arguments=arguments)
            trained = build(variant, num_classes=classes, arguments=original, aux_heads=variant.has_aux_heads).train()
        analysis = analyse(network, (channels, side, side))
        training = analyse(trained, (channels, original_side, original_side))
    except (TypeError, ValueError, LookupError, RuntimeError) as error:
        # The card names arguments that the network does not have, or pictures of a size that it does not take.
        raise WrongWeightsError(
            f"{checkpoint.name}: {variant.name} cannot be built as its card asks: {error}"
        ) from error
    return Description(
        checkpoint=checkpoint,
        as_graph=as_graph,
        analysis=analysis,
        rows=layer_rows(analysis),
        needs={
            "inference": analysis.costs,
            "training": training.costs,
        },
    )


def counted(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with its own costs. Raises what ``describe`` raises."""
    return replace(checkpoint, own_costs=describe(checkpoint).analysis.costs)


@dataclass(frozen=True, slots=True)
class Compared:
    """A row of the comparison."""

    name: str
    year: int
    depth: int
    params: int
    multiply_adds: int
    analytic_bytes: int
    """Analytic memory of one picture in float32."""
    top1: float | None
    top5: float | None
    accuracy_source: str
    labels: str
    params_ratio: float
    """This and the next two are relative to the reference."""
    multiply_adds_ratio: float
    analytic_ratio: float


def compare(checkpoints: Sequence[Checkpoint], reference: Checkpoint) -> list[Compared]:
    """Compares networks with a reference, in the order given."""
    against = describe(reference)
    rows = []
    for checkpoint in checkpoints:
        described = describe(checkpoint)
        needs, analysis, variant = described.needs["inference"], described.analysis, checkpoint.variant
        top1, top5, source = checkpoint.top1, checkpoint.top5, checkpoint.accuracy_source
        if top1 is None and checkpoint.labels == variant.labels:
            (top1, top5), source = variant.published, variant.published_source
        rows.append(
            Compared(
                name=variant.name,
                year=variant.year,
                depth=analysis.depth,
                params=analysis.params,
                multiply_adds=analysis.multiply_adds,
                analytic_bytes=needs.bytes(),
                top1=top1,
                top5=top5,
                accuracy_source=source,
                labels=checkpoint.labels,
                params_ratio=analysis.params / against.analysis.params,
                multiply_adds_ratio=analysis.multiply_adds / against.analysis.multiply_adds,
                analytic_ratio=needs.bytes() / against.needs["inference"].bytes(),
            )
        )
    return rows
