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
