"""The table of recipes. A recipe is everything beside the data that decides a training run."""

from __future__ import annotations

from dataclasses import dataclass, replace

from models.networks.variants import Variant


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The settings of SGD with momentum, its schedule, and the random changes of the pictures."""

    epochs: int
    batch_size: int
    peak_rate: float
    """The highest learning rate: in the middle of the cycle, or the first one if the rate decays."""
    decay: tuple[float, int] | None = None
    """A factor and a number of epochs, after each of which the rate is multiplied by the factor. None: the rate goes
    through one cycle up and down (Smith and Topin 2017), and momentum from 0.95 down to 0.85 and up again."""
    momentum: float = 0.9
    """Used if the rate decays."""
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    """Szegedy et al. 2015, section 7."""
    clip_norm: float | None = None
    """The largest norm of the gradient of all parameters together; None: gradients are not clipped."""
    region: tuple[float, float] | None = None
    """The minimum and maximum share of the picture's area that a random region has, with an aspect of 3/4 to 4/3; the
    region is scaled to the crop (Szegedy et al. 2014, section 6). None: the crop is that of serving."""
    shift: int = 0
    """By how many pixels a crop is moved at most, either way; its own edge, mirrored, fills the gap."""
    flip: bool = False
    """Whether half of the pictures are mirrored left to right."""
    colour_pca: float = 0.0
    """The standard deviation of the random factor by which each principal component of colour is added (Krizhevsky
    2012, section 4.1: 0.1)."""
    rotation: float = 0.0
    """Largest rotation in degrees, either way."""
    scaling: float = 0.0
    """Largest change of the size as a share of it, either way."""
    translation: float = 0.0
    """Largest move in pixels, either way and in fractions; with rotation and scaling it makes one affine map."""
    aux_heads: bool = True
    """Whether auxiliary heads, if the variant has any, are trained with it; the checkpoint never holds them."""
    half: bool = False
    """Whether the checkpoint holds float16; its accuracy is then measured with rounded weights."""
    preset: str
    """The preprocessing, by its name in ``preprocess.PRESETS``."""
    seed: int

    def __str__(self) -> str:
        if self.decay is None:
            rate = f"one cycle to {self.peak_rate:g}"
        else:
            factor, every = self.decay
            rate = f"momentum {self.momentum:g}, rate {self.peak_rate:g} times {factor:g} every {every} epochs"
        told = (
            (True, f"SGD, {rate}"),
            (True, f"{self.epochs} epochs of batch {self.batch_size}"),
            (self.weight_decay, f"weight decay {self.weight_decay:g}"),
            (self.label_smoothing, f"label smoothing {self.label_smoothing:g}"),
            (self.clip_norm, f"gradients clipped at {self.clip_norm}"),
            (self.region, f"random region of {self.region} of the area"),
            (self.shift, f"shift {self.shift} pixels"),
            (self.flip, "flip"),
            (self.colour_pca, f"colour PCA {self.colour_pca:g}"),
            (self.rotation, f"rotation {self.rotation:g} degrees"),
            (self.scaling, f"scaling {self.scaling:g}"),
            (self.translation, f"translation {self.translation:g} pixels"),
            (not self.aux_heads, "no auxiliary heads"),
            (True, f"{self.preset} preprocessing"),
            (True, f"seed {self.seed}"),
        )
        return ", ".join(text for given, text in told if given)


#: LeCun et al. 1998: 20 passes with a falling rate, and distorted copies of the digits (section III-C). Momentum takes
#: the place of its second-order step sizes.
_LENET5 = Recipe(
    epochs=20,
    batch_size=64,
    peak_rate=0.05,
    weight_decay=1e-4,
    rotation=10.0,
    scaling=0.1,
    translation=2.0,
    preset="mnist",
    seed=1998,
)

#: The shift and flip of small pictures is Lee et al.'s, "Deeply-supervised nets" (2014), section 4.
_CIFAR10 = Recipe(
    epochs=40,
    batch_size=128,
    peak_rate=0.03,
    weight_decay=2e-4,  # Caffe's GoogLeNet; the paper states none
    clip_norm=5.0,  # without batch norm, a single batch of the first epoch can make it diverge
    shift=4,
    flip=True,
    colour_pca=0.1,
    half=True,
    preset="cifar10",
    seed=2014,
)

#: For photographs, as in the papers. Krizhevsky 2012, section 5, and Simonyan and Zisserman 2014, section 3.1, lower
#: the rate when the validation error stops falling; here it falls after each third of the run.
_PHOTOGRAPHS = Recipe(
    epochs=90,
    batch_size=128,
    peak_rate=0.01,
    decay=(0.1, 30),
    weight_decay=5e-4,
    clip_norm=5.0,
    region=(0.08, 1.0),
    flip=True,
    colour_pca=0.1,
    preset="torchvision-224",
    seed=2012,
)
#: Simonyan and Zisserman 2014, section 3.1: batch 256, 74 epochs.
_VGG = replace(_PHOTOGRAPHS, epochs=74, batch_size=256, decay=(0.1, 20), seed=2014)
#: Szegedy et al. 2014, section 6: the rate falls by 4 % every 8 epochs. The number of epochs is from Caffe.
_GOOGLENET = replace(_PHOTOGRAPHS, epochs=60, decay=(0.96, 8), weight_decay=2e-4, seed=2014)
#: Ioffe and Szegedy 2015 and Szegedy et al. 2015, section 8: rate 0.045, times 0.94 every two epochs.
_INCEPTION = replace(
    _PHOTOGRAPHS,
    epochs=60,
    peak_rate=0.045,
    decay=(0.94, 2),
    weight_decay=4e-5,
    label_smoothing=0.1,
    seed=2015,
)

_RECIPES: dict[tuple[str, str], Recipe] = {
    ("lenet5", "mnist"): _LENET5,
    ("googlenet", "cifar10"): _CIFAR10,
    # Batch norm allows a higher rate (Ioffe and Szegedy 2015, section 4.2.1), and needs no clipping.
    ("inception_v2", "cifar10"): replace(
        _CIFAR10, epochs=30, peak_rate=0.1, weight_decay=5e-4, clip_norm=None, label_smoothing=0.1, seed=2015
    ),
}
_FAMILIES: dict[str, Recipe] = {
    "googlenet": _GOOGLENET,
    "googlenet_bn": replace(_INCEPTION, preset="half-224"),
    "inception_v2": _INCEPTION,
    "inception_v3": replace(_INCEPTION, preset="half-299"),
    "lenet5": replace(_LENET5, half=False),
    **{f"vgg{name}": _VGG for name in ("11", "11_lrn", "13", "16", "16_c", "19")},
}


def recipe_for(variant: Variant, labels: str) -> Recipe:
    """The recipe for a variant on a label set; by default that of the variant's paper."""
    recipe = _RECIPES.get((variant.name, labels)) or _FAMILIES.get(variant.name, _PHOTOGRAPHS)
    side = variant.input_shape[-1]
    return replace(recipe, preset="caffe-227") if side == 227 else recipe
