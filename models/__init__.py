"""The classic line of image networks, with torchvision's conventions.

    >>> from models import get_model, list_models
    >>> network = get_model("googlenet")  # (N, 3, 224, 224) float -> (N, 1000) logits, random weights
    >>> network = get_model("googlenet", weights="default")  # those that are here: ImageNet's, else CIFAR-10's

Read in this order:

- ``variants.py``: the literal table of architectures, a row a variant.
- ``lenet.py``, ``alexnet.py``, ``zfnet.py``, ``nin.py``, ``vgg.py``, ``googlenet.py``, ``googlenet_bn.py``,
  ``inception_v2.py``, ``inception_v3.py``: one file a network of the papers, over ``layers.py``.
- ``pictures.py``: bytes -> upright 8-bit picture; ``preprocess.py``: picture -> the crop a checkpoint wants.
- ``jpeg_markers.py``, ``jpeg_end.py``, ``png_chunks.py``, ``webp_chunks.py``, ``gif_blocks.py``, ``bmp_pixels.py``: the
  parts of a file, counted and sorted before a decoder sees it; ``exif.py``: which way up; ``opaque.py``: transparency;
  ``file_kinds.py`` names what is not decoded, ``picture_errors.py`` what is wrong.
- ``postprocess.py``: logits -> the k most probable classes; ``labels.py``: class number -> word.
- ``manifest.py``: the checkpoints that the project knows; ``checkpoints.py``: which of them are here; ``cards.py``:
  what a weight file says of itself, checked. Without torch.
- ``reading.py``: foreign weight files -> checked state dicts; ``zoo.py``: the ONNX Model Zoo's graphs, which
  ``onnx_graph.py`` opens.
- ``building.py``: a variant or a checkpoint -> a torch module; ``importing.py``: a weight file -> the local cache;
  ``pulling.py``: a public checkpoint over the network.
- ``export.py``: a checkpoint -> the ONNX graph that a CPU serves; ``graph_cache.py``: those graphs on disk.
- ``tracing.py``: a network as a graph with shapes; ``analysis.py``: what each layer of it needs; ``layer_table.py``:
  the layers as rows of a table; ``memory.py``: analytic memory; ``description.py``: all of that for one network, and
  networks side by side; ``history.py``: the ImageNet challenge; ``plots.py``: charts.
- ``data/``: data sets; ``evaluation/``: how often networks are right; ``training/``: recipes and the training loop, how
  the checkpoints in the box were made.

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
    """Builds a variant, in eval mode: float (N, C, H, W), normalised -> logits (N, classes).

    Args:
        name: a variant or an alias (``vgg`` is ``vgg16``).
        weights: None for random initialisation, ``"default"`` for the local checkpoint, or the path of a
            ``.safetensors``, a torchvision ``.pth`` or an ONNX Model Zoo ``.onnx`` file.
        num_classes: outputs of the last layer; by default what the weights have, else the paper's.
        aux_heads: builds the auxiliary classifiers of GoogLeNet and Inception v3, which run in training mode only:
            the network then returns (logits, logits of each head).
        as_graph: keeps the geometry of a zoo graph where it differs from the original network's.
        **arguments: passed on to the network, over what the weights ask for (``lrn`` for example).

    Raises:
        UnknownModelError: no variant has that name.
        WeightsMissingError: ``"default"`` is asked for and the checkpoint is not on this machine.
        WrongWeightsError: the file is damaged, or holds another network.
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
