"""The classic image networks and their checkpoints, with torchvision's conventions. Serving is not part of it.

    >>> from models import get_model, list_models
    >>> network = get_model("googlenet")  # (N, 3, 224, 224) float -> (N, 1000) logits, random weights
    >>> network = get_model("googlenet", weights="default")  # the local checkpoint: ImageNet's, else CIFAR-10's

Rooms, from the bottom up; each imports only from those above it in this list:

- ``files.py``: files that are written whole or not at all; ``validation.py``: what pydantic refused, in a line.
- ``networks/``: the table of variants, and a file for each paper.
- ``images/``: the bytes of a picture file -> the crop that a checkpoint takes.
- ``checkpoints/``: weights for a variant on a label set: which exist, reading them, building their networks.
- ``data/``: data sets of labelled pictures.
- ``analysis/``: what each layer of a network costs, as tables and charts.
- ``onnx/``: checkpoints exported to graphs that a CPU serves without torch.
- ``evaluation/``: how often a checkpoint is right.
- ``install/``: ``topfive import`` and ``topfive pull``.
- ``training/``: recipes and the training loop that made the checkpoints in the box.

torch is imported by the functions that need it, so that listing networks and checkpoints stays cheap.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.networks.variants import VARIANTS, UnknownModelError, find_variant

if TYPE_CHECKING:
    import torch

__all__ = ["UnknownModelError", "get_model", "list_models"]


def list_models() -> list[str]:
    """The names of all variants, oldest paper first."""
    return list(VARIANTS)


def get_model(
    name: str,
    *,
    weights: str | Path | None = None,
    num_classes: int | None = None,
    aux_heads: bool = False,
    as_graph: bool = False,
    **arguments: Any,
) -> torch.nn.Module:
    """Builds the network of a variant in eval mode: float (N, C, H, W), normalised -> logits (N, classes).

    Args:
        name: a variant or an alias (``vgg`` is ``vgg16``).
        weights: None for random initialisation, ``"default"`` for the local checkpoint, or the path of a
            ``.safetensors``, a torchvision ``.pth`` or an ONNX Model Zoo ``.onnx`` file.
        num_classes: outputs of the last layer; by default that of the weights, else of the paper.
        aux_heads: builds the auxiliary classifiers of GoogLeNet and Inception v3. In training mode the network then
            returns (logits, logits of each head).
        as_graph: keeps the geometry of a zoo graph where it differs from the original network's.
        **arguments: arguments of the network (``lrn`` for example); they override those of the weights.

    Raises:
        UnknownModelError: no variant has that name.
        WeightsMissingError: ``"default"`` is asked for and the checkpoint is not on this machine.
        WrongWeightsError: the file is damaged, or holds another network.
        ValueError: the variant has no auxiliary heads, and ``aux_heads`` asks for them.
    """
    from models.checkpoints.build import build_from
    from models.networks.build import build

    variant = find_variant(name)
    if weights is None:
        return build(variant, num_classes=num_classes, aux_heads=aux_heads, as_graph=as_graph, arguments=arguments)
    return build_from(
        variant,
        weights,
        num_classes=num_classes,
        aux_heads=aux_heads,
        as_graph=as_graph,
        arguments=arguments,
    )
