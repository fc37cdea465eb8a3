"""What ``topfive describe`` tells of a network: its layers, what they need, and how it compares with the others."""

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
from models.networks.memory import ELEMENT, Costs, Needs, Purpose
from models.networks.variants import UnknownModelError, find_variant

PURPOSES: tuple[Purpose, ...] = ("inference", "training")
#: What the others are compared with.
REFERENCE = "vgg16"


@dataclass(frozen=True, slots=True)
class Description:
    """A network, in the geometry in which a checkpoint is served."""

    checkpoint: Checkpoint
    as_graph: bool
    analysis: Analysis
    rows: Sequence[Row]
    needs: dict[Purpose, Needs]
    """Training has the auxiliary heads, where the paper trains with them."""

    @property
    def geometry(self) -> str | None:
        """Which geometry this is, if the zoo's graph has another; see ``Variant.graph_differs``."""
        differs = self.checkpoint.variant.graph_differs
        if not differs:
            return None
        if self.as_graph:
            return f"the ONNX Model Zoo's graph: {differs}"
        return f"the original; in the ONNX Model Zoo's graph {differs} (--as-graph)"

    def to_json(self, *, batch: int, memory: int | None) -> dict[str, Any]:
        """A JSON object, with bytes by kind of number, purpose and batch; ``largest_batch`` is what fits ``memory``."""
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
    """The checkpoint to describe. A plain name stands for the network of its paper, whatever other classes the weights
    that are here know. Raises UnknownModelError."""
    if "@" not in name:
        with suppress(UnknownModelError):
            return catalogue.find(name, find_variant(name).labels)
    return catalogue.find(name)


def describe(checkpoint: Checkpoint, *, as_graph: bool = False) -> Description:
    """Analyses the network of a checkpoint, whether its weights are here or not; on the meta device, in a second.

    Args:
        checkpoint: its label set, its geometry and its constants are the network's.
        as_graph: the zoo graph's geometry, whatever the checkpoint has.

    Raises:
        WrongWeightsError: the checkpoint's card names constants or pictures that the network does not take.
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
    # Whoever trains, trains the original.
    original = {name: value for name, value in arguments.items() if name != "as_graph"}
    original_side = PRESETS[variant.preprocess].side if as_graph else side
    try:
        with torch.device("meta"):
            network = build(variant, num_classes=classes, arguments=arguments)
            trained = build(variant, num_classes=classes, arguments=original, aux_heads=variant.has_aux_heads).train()
        analysis = analyse(network, (channels, side, side))
        training = analyse(trained, (channels, original_side, original_side))
    except (TypeError, ValueError, LookupError, RuntimeError) as error:
        # Constants that the network does not have, or pictures of a size that it does not take.
        raise WrongWeightsError(
            f"{checkpoint.name}: {variant.name} does not go with what its card asks for: {error}"
        ) from error
    return Description(
        checkpoint=checkpoint,
        as_graph=as_graph,
        analysis=analysis,
        rows=layer_rows(analysis),
        needs={
            "inference": Needs(analysis.params, analysis.activations),
            "training": Needs(training.params, training.activations),
        },
    )


def counted(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with its own costs. Raises as ``describe`` does."""
    analysis = describe(checkpoint).analysis
    return replace(checkpoint, own_costs=Costs(analysis.params, analysis.activations, analysis.multiply_adds))


@dataclass(frozen=True, slots=True)
class Compared:
    """A row of the comparison."""

    name: str
    year: int
    depth: int
    params: int
    multiply_adds: int
    analytic_bytes: int
    """Of one picture, in float32."""
    top1: float | None
    top5: float | None
    accuracy_source: str
    labels: str
    params_ratio: float
    """These three over VGG-16's."""
    multiply_adds_ratio: float
    analytic_ratio: float


def compare(checkpoints: Sequence[Checkpoint], reference: Checkpoint) -> list[Compared]:
    """Networks side by side, in the order given, with their ratios to the reference."""
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
