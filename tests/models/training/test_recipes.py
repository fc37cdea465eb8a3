"""Recipes: their texts, and the pictures that each variant is trained on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from models.images.preprocess import PRESETS
from models.networks.variants import VARIANTS
from models.training.recipes import recipe_for


def test_the_text_of_a_recipe_has_all_its_settings() -> None:
    told = str(replace(recipe_for(VARIANTS["lenet5"], "mnist"), epochs=3, batch_size=8, seed=7, rotation=5.0))
    assert told == (
        "SGD, one cycle to 0.05, 3 epochs of batch 8, weight decay 0.0001, rotation 5 degrees, scaling 0.1, "
        "translation 2 pixels, mnist preprocessing, seed 7"
    )
    photographs = str(recipe_for(VARIANTS["vgg16"], "imagenet1k"))
    assert "momentum 0.9, rate 0.01 times 0.1 every 20 epochs, 74 epochs of batch 256" in photographs
    assert "random region of (0.08, 1.0) of the area, flip, colour PCA 0.1" in photographs


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("label_set", ["imagenet1k", "cifar10", "mnist"])
def test_every_variant_has_a_recipe_for_the_pictures_that_it_takes(variant: str, label_set: str) -> None:
    row = VARIANTS[variant]
    preprocess = PRESETS[recipe_for(row, label_set).preset]
    in_box = (variant, label_set) in {("googlenet", "cifar10"), ("inception_v2", "cifar10")}
    assert (preprocess.channels, preprocess.side) == ((3, 64) if in_box else row.input_shape[::2])


@pytest.mark.parametrize(
    ("variant", "batch_size", "rate", "decay", "weight_decay", "smoothing"),
    [
        # Krizhevsky 2012, section 5: about 90 cycles in three drops of the rate.
        ("alexnet", 128, 0.01, (0.1, 30), 0.0005, 0.0),
        # Simonyan and Zisserman 2014, section 3.1.
        ("vgg16", 256, 0.01, (0.1, 20), 0.0005, 0.0),
        # Szegedy et al. 2014, section 6.
        ("googlenet", 128, 0.01, (0.96, 8), 0.0002, 0.0),
        # Szegedy et al. 2015, sections 7 and 8.
        ("inception_v3", 128, 0.045, (0.94, 2), 0.00004, 0.1),
    ],
)
def test_photographs_are_learnt_as_in_the_papers(
    variant: str, batch_size: int, rate: float, decay: tuple[float, int], weight_decay: float, smoothing: float
) -> None:
    recipe = recipe_for(VARIANTS[variant], "imagenet1k")
    assert (recipe.batch_size, recipe.peak_rate, recipe.decay) == (batch_size, rate, decay)
    assert (recipe.weight_decay, recipe.label_smoothing, recipe.momentum) == (weight_decay, smoothing, 0.9)
    assert (recipe.region, recipe.flip, recipe.colour_pca) == ((0.08, 1.0), True, 0.1)
