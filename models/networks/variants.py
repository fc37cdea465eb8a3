"""The table of variants: one exact architecture in each row, oldest first. Tests check every number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

from models.networks.memory import Costs

_NONE: Mapping[str, Any] = MappingProxyType({})
#: Characters of an unknown name that are compared with the known ones.
_LONGEST = 40
#: How similar, from 0 to 1, a known name must be to be suggested: lenet5 is not suggested for resnet50.
_ALIKE = 0.8


class UnknownModelError(ValueError):
    """No variant, alias or checkpoint has that name. The text suggests a similar one, and lists all."""

    def __init__(self, name: str, known: Iterable[str] | None = None) -> None:
        known = sorted([*VARIANTS, *_ALIASES] if known is None else known)
        # A request may contain a name of kilobytes, which would take long to compare.
        alike = get_close_matches(name.partition("@")[0][:_LONGEST].lower(), known, 1, _ALIKE)
        meant = f" (did you mean {alike[0]}?)" if alike and not name.startswith(alike[0]) else ""
        super().__init__(f"unknown model {name!r}{meant}; known: {', '.join(known)}")
        self.known = known


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One exact architecture."""

    name: str
    aliases: tuple[str, ...] = ()
    paper: str
    year: int
    builder: str
    """``module:function`` in this folder; ``build.py`` calls it with the arguments below and its own."""
    arguments: Mapping[str, Any] = field(default_factory=lambda: _NONE)
    input_shape: tuple[int, int, int] = (3, 224, 224)
    """Channels, height, width."""
    labels: str = "imagenet1k"
    """The label set of the paper."""
    params: int
    """Trainable parameters, auxiliary heads left out."""
    activations: int
    """Elements of the input and of the outputs of convolutions, pools (LeNet's subsampling too) and fully connected
    layers, for one picture."""
    multiply_adds: int
    """Those of convolutions, fully connected layers and LeNet's subsampling, for one picture."""
    preprocess: str = "torchvision-224"
    """The preset of ``images/preprocess.py`` for weights of unknown origin, and for random ones."""
    published: tuple[float | None, float | None] = (None, None)
    """Top-1 and top-5 accuracy of one network in percent: of the best known public checkpoint, else from the paper."""
    published_source: str = ""
    last_layer: str
    """Module name of the layer that gives the logits; its bias has one number for each class."""
    has_aux_heads: bool = False
    graph_differs: str = ""
    """How the ONNX Model Zoo's graph, whose geometry ``as_graph`` keeps, differs from the original; empty if it does
    not."""

    @property
    def costs(self) -> Costs:
        """Costs with its own label set and input."""
        return Costs(self.params, self.activations, self.multiply_adds)


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
        multiply_adds=328_096,
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
        last_layer="fc8",
        params=60_965_224,
        activations=936_323,
        multiply_adds=724_406_816,
        preprocess="caffe-227",
        published=(54.80, 78.23),
        published_source="ONNX Model Zoo, bvlcalexnet-12",
        graph_differs="pictures have 224 pixels",
    ),
    Variant(
        name="zfnet",
        paper="Zeiler and Fergus, Visualizing and understanding convolutional networks, 2013",
        year=2013,
        builder="zfnet:zfnet",
        last_layer="fc8",
        params=62_357_608,
        activations=2_010_312,
        multiply_adds=1_168_032_896,
        published=(61.6, 83.5),
        published_source="the paper, table 2, one network on the validation set",
    ),
    Variant(
        name="zfnet512",
        paper="Zeiler and Fergus, 2013, as in the ONNX Model Zoo",
        year=2013,
        builder="zfnet:zfnet512",
        last_layer="fc8",
        params=87_250_536,
        activations=2_013_640,
        multiply_adds=1_481_727_008,
        preprocess="caffe-224",
        published=(55.97, 79.41),
        published_source="ONNX Model Zoo, zfnet512-12",
    ),
    Variant(
        name="nin",
        paper="Lin, Chen and Yan, Network in network, 2013, as in Caffe's model zoo",
        year=2013,
        builder="nin:nin",
        last_layer="mlpconv4.2.conv",
        params=7_595_176,
        activations=1_982_696,
        multiply_adds=1_100_188_800,
        preprocess="caffe-224",
    ),
    Variant(
        name="alexnet_owt",
        paper="Krizhevsky, One weird trick for parallelizing convolutional neural networks, 2014",
        year=2014,
        builder="alexnet:alexnet_owt",
        last_layer="classifier.6",
        params=61_100_840,
        activations=733_032,
        multiply_adds=714_188_480,
        published=(56.522, 79.066),
        published_source="torchvision, AlexNet_Weights.IMAGENET1K_V1",
    ),
    Variant(
        name="vgg11",
        aliases=("vgg_a",),
        paper="Simonyan and Zisserman, Very deep convolutional networks, 2014 (A)",
        year=2014,
        builder="vgg:vgg",
        arguments={"configuration": "A"},
        last_layer="classifier.6",
        params=132_863_336,
        activations=9_116_136,
        multiply_adds=7_609_090_048,
        published=(69.020, 88.628),
        published_source="torchvision, VGG11_Weights.IMAGENET1K_V1",
    ),
    Variant(
        name="vgg11_lrn",
        aliases=("vgg_a_lrn",),
        paper="Simonyan and Zisserman, Very deep convolutional networks, 2014 (A-LRN)",
        year=2014,
        builder="vgg:vgg",
        arguments={"configuration": "A-LRN"},
        last_layer="classifier.6",
        params=132_863_336,
        activations=9_116_136,
        multiply_adds=7_609_090_048,
        published=(70.3, 89.5),
        published_source="the paper, table 3",
    ),
    Variant(
        name="vgg13",
        aliases=("vgg_b",),
        paper="Simonyan and Zisserman, Very deep convolutional networks, 2014 (B)",
        year=2014,
        builder="vgg:vgg",
        arguments={"configuration": "B"},
        last_layer="classifier.6",
        params=133_047_848,
        activations=13_933_032,
        multiply_adds=11_308_466_176,
        published=(69.928, 89.246),
        published_source="torchvision, VGG13_Weights.IMAGENET1K_V1",
    ),
    Variant(
        name="vgg16_c",
        aliases=("vgg_c",),
        paper="Simonyan and Zisserman, Very deep convolutional networks, 2014 (C)",
        year=2014,
        builder="vgg:vgg",
        arguments={"configuration": "C"},
        last_layer="classifier.6",
        params=133_638_952,
        activations=15_237_608,
        multiply_adds=11_770_888_192,
        published=(71.9, 90.6),
        published_source="the paper, table 3, one test scale",
    ),
    Variant(
        name="vgg16",
        aliases=("vgg", "vgg_d"),
        paper="Simonyan and Zisserman, Very deep convolutional networks, 2014 (D)",
        year=2014,
        builder="vgg:vgg",
        arguments={"configuration": "D"},
        last_layer="classifier.6",
        params=138_357_544,
        activations=15_237_608,
        multiply_adds=15_470_264_320,
        published=(71.592, 90.382),
        published_source="torchvision, VGG16_Weights.IMAGENET1K_V1",
    ),
    Variant(
        name="vgg19",
        aliases=("vgg_e",),
        paper="Simonyan and Zisserman, Very deep convolutional networks, 2014 (E)",
        year=2014,
        builder="vgg:vgg",
        arguments={"configuration": "E"},
        last_layer="classifier.6",
        params=143_667_240,
        activations=16_542_184,
        multiply_adds=19_632_062_464,
        published=(72.376, 90.876),
        published_source="torchvision, VGG19_Weights.IMAGENET1K_V1",
    ),
    Variant(
        name="googlenet",
        aliases=("inception_v1",),
        paper="Szegedy et al., Going deeper with convolutions, 2014",
        year=2014,
        builder="googlenet:googlenet",
        last_layer="fc",
        params=6_998_552,
        activations=4_796_184,
        multiply_adds=1_582_671_872,
        preprocess="caffe-224",
        published=(67.78, 88.34),
        published_source="ONNX Model Zoo, googlenet-12",
        has_aux_heads=True,
        graph_differs="pools round down",
    ),
    Variant(
        name="googlenet_bn",
        paper="Szegedy et al., Going deeper with convolutions, 2014, as in torchvision",
        year=2014,
        builder="googlenet_bn:googlenet_bn",
        last_layer="fc",
        params=6_624_904,
        activations=4_796_184,
        multiply_adds=1_498_376_192,
        preprocess="half-224",
        published=(69.778, 89.530),
        published_source="torchvision, GoogLeNet_Weights.IMAGENET1K_V1",
        has_aux_heads=True,
    ),
    Variant(
        name="inception_v2",
        aliases=("bn_inception",),
        paper="Ioffe and Szegedy, Batch normalization, 2015",
        year=2015,
        builder="inception_v2:inception_v2",
        last_layer="fc",
        params=11_194_984,
        activations=5_221_896,
        multiply_adds=2_018_851_840,
        preprocess="caffe-224",
        published=(74.8, 92.2),
        published_source="the paper, section 4.2.3, single crop",
        graph_differs="average pools leave the padding out of their count",
    ),
    Variant(
        name="inception_v3",
        paper="Szegedy et al., Rethinking the Inception architecture for computer vision, 2015",
        year=2015,
        builder="inception_v3:inception_v3",
        input_shape=(3, 299, 299),
        last_layer="fc",
        params=23_834_568,
        activations=11_949_779,
        multiply_adds=5_713_216_096,
        preprocess="half-299",
        published=(77.294, 93.450),
        published_source="torchvision, Inception_V3_Weights.IMAGENET1K_V1",
        has_aux_heads=True,
    ),
)

VARIANTS: Mapping[str, Variant] = MappingProxyType({row.name: row for row in _ROWS})
_ALIASES: Mapping[str, str] = MappingProxyType({alias: row.name for row in _ROWS for alias in row.aliases})


def find_variant(name: str) -> Variant:
    """The variant of that name or alias. Raises UnknownModelError if there is none."""
    row = VARIANTS.get(_ALIASES.get(name, name))
    if row is None:
        raise UnknownModelError(name)
    return row
