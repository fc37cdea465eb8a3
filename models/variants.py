"""The table of variants: one exact architecture a row, oldest first. Literal data; tests prove every number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

_NONE: Mapping[str, Any] = MappingProxyType({})


class UnknownModelError(ValueError):
    """No variant, alias or checkpoint has that name. The text lists the known ones."""

    def __init__(self, name: str, known: Iterable[str] | None = None) -> None:
        known = sorted([*VARIANTS, *_ALIASES] if known is None else known)
        super().__init__(f"unknown model {name!r}; known: {', '.join(known)}")
        self.known = known


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One exact architecture."""

    name: str
    aliases: tuple[str, ...] = ()
    paper: str
    year: int
    builder: str
    """``module:function`` below ``models``, called with ``num_classes`` and the arguments below."""
    arguments: Mapping[str, Any] = field(default_factory=lambda: _NONE)
    input_shape: tuple[int, int, int]
    """Channels, height, width."""
    labels: str
    """The label set of the paper's own experiment."""
    params: int
    """Trainable parameters, auxiliary heads left out."""
    activations: int
    """Elements of analytic memory for one picture beside the parameters: the input and the outputs of
    convolutions, pools and fully connected layers."""
    preprocess: str
    """The preset of ``preprocess.py`` that weights of unknown origin, and random ones, are served with."""
    published: tuple[float | None, float | None]
    """Top-1 and top-5 accuracy in percent, single crop, of the best known public checkpoint or the paper."""
    published_source: str
    last_layer: str
    """Module name of the linear layer that gives the logits."""
    has_aux_heads: bool = False
    graph_differs: bool = False
    """The zoo's graph of this network has another geometry, which ``as_graph`` keeps."""

    @property
    def analytic_bytes(self) -> int:
        """Bytes of parameters and activations for one picture in float32."""
        return 4 * (self.params + self.activations)


_ROWS = (
    Variant(
        name="lenet5",
        paper="LeCun et al., Gradient-based learning applied to document recognition, 1998",
        year=1998,
        builder="lenet:lenet5",
        input_shape=(1, 32, 32),
        labels="mnist",
        last_layer="output",
        params=60_850,
        activations=9_118,
        preprocess="mnist",
        published=(99.05, None),
        published_source="the paper, section III-B",
    ),
    Variant(
        name="alexnet",
        aliases=("alexnet_2012",),
        paper="Krizhevsky, Sutskever and Hinton, ImageNet classification with deep CNNs, 2012",
        year=2012,
        builder="alexnet:alexnet",
        input_shape=(3, 227, 227),
        labels="imagenet1k",
        last_layer="fc8",
        params=60_965_224,
        activations=936_323,
        preprocess="caffe-227",
        published=(54.80, 78.23),
        published_source="ONNX Model Zoo, bvlcalexnet-12",
    ),
    Variant(
        name="vgg16",
        aliases=("vgg", "vgg_d"),
        paper="Simonyan and Zisserman, Very deep convolutional networks, 2014 (D)",
        year=2014,
        builder="vgg:vgg",
        arguments={"configuration": "D"},
        input_shape=(3, 224, 224),
        labels="imagenet1k",
        last_layer="classifier.6",
        params=138_357_544,
        activations=15_237_608,
        preprocess="torchvision-224",
        published=(71.592, 90.382),
        published_source="torchvision, VGG16_Weights.IMAGENET1K_V1",
    ),
    Variant(
        name="googlenet",
        aliases=("inception_v1",),
        paper="Szegedy et al., Going deeper with convolutions, 2014",
        year=2014,
        builder="googlenet:googlenet",
        input_shape=(3, 224, 224),
        labels="imagenet1k",
        last_layer="fc",
        params=6_998_552,
        activations=4_796_184,
        preprocess="caffe-224",
        published=(67.78, 88.34),
        published_source="ONNX Model Zoo, googlenet-12",
        has_aux_heads=True,
        graph_differs=True,
    ),
)

VARIANTS: Mapping[str, Variant] = MappingProxyType({row.name: row for row in _ROWS})
_ALIASES: Mapping[str, str] = MappingProxyType({alias: row.name for row in _ROWS for alias in row.aliases})


def find_variant(name: str) -> Variant:
    """The variant of that name or alias.

    Raises:
        UnknownModelError: there is none.
    """
    row = VARIANTS.get(_ALIASES.get(name, name))
    if row is None:
        raise UnknownModelError(name)
    return row
