"""Random changes of pictures stay within the bounds of the recipe and follow from the generator alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import RandomResizedCrop

from models.images.preprocess import PRESETS
from models.networks.variants import VARIANTS
from models.training.augment import colour_axes, coloured, distorted, drawn, moved, region, region_box
from models.training.dataset import Split
from models.training.recipes import recipe_for

LENET = recipe_for(VARIANTS["lenet5"], "mnist")
CIFAR10 = PRESETS["cifar10"]


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@given(
    st.integers(1, 4), st.integers(4, 40), st.integers(4, 40), st.integers(0, 3), st.booleans(), st.integers(0, 2**32)
)
def test_each_shift_is_a_window_of_the_mirrored_crop(
    count: int, height: int, width: int, most: int, flip: bool, seed: int
) -> None:
    crops = generator(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    found = moved(crops, most, flip=flip, random=generator(seed))
    for crop, ours in zip(crops, found, strict=True):
        padded = np.pad(crop, ((most, most), (most, most), (0, 0)), mode="reflect")
        windows = [
            padded[top : top + height, left : left + width]
            for top in range(2 * most + 1)
            for left in range(2 * most + 1)
        ]
        if flip:
            windows += [window[:, ::-1] for window in windows]
        assert any(np.array_equal(window, ours) for window in windows)


def test_crops_are_shifted_each_by_its_own_amount_and_evenly() -> None:
    place = np.zeros((2000, 9, 9, 1), np.uint8)
    place[:, 4, 4] = 1
    where = np.argwhere(moved(place, 4, flip=False, random=generator()))[:, 1:3]
    assert len(where) >= 2000  # at the edge the mirror shows the same place twice
    found = np.bincount(where[:, 0] * 9 + where[:, 1], minlength=81)
    assert found.min() > 2000 / 81 / 3


@given(st.integers(1, 500), st.integers(1, 500), st.integers(0, 2**32))
def test_a_random_region_lies_in_the_picture(width: int, height: int, seed: int) -> None:
    left, top, right, bottom = region_box((width, height), (0.08, 1.0), generator(seed))
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height


def test_random_regions_have_the_areas_and_aspects_asked_for() -> None:
    random = generator()
    boxes = np.array([region_box((1000, 1000), (0.1, 0.4), random) for _ in range(500)])
    sides = boxes[:, 2:] - boxes[:, :2]
    shares, aspects = sides.prod(1) / 1e6, sides[:, 0] / sides[:, 1]
    assert 0.099 <= shares.min() < 0.12
    assert 0.38 < shares.max() <= 0.401
    assert 0.745 <= aspects.min() < 0.78
    assert 1.3 < aspects.max() <= 1.34


def test_areas_are_drawn_evenly_and_aspects_evenly_in_their_logarithm() -> None:
    """Half of the areas lie below the middle one; half of the regions are higher than wide. The standard deviation of
    either share is 0.8 %."""
    random = generator()
    boxes = np.array([region_box((1000, 1000), (0.1, 0.4), random) for _ in range(4000)])
    sides = boxes[:, 2:] - boxes[:, :2]
    assert (sides.prod(1) < 0.25e6).mean() == pytest.approx(0.5, abs=0.03)
    assert (sides[:, 0] < sides[:, 1]).mean() == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("size", [(500, 375), (40, 300)])
def test_random_regions_are_spread_as_torchvisions(size: tuple[int, int]) -> None:
    """The largest distance between the distributions (Kolmogorov and Smirnov) of each side of 2,000 regions."""
    random, area = generator(), (0.08, 1.0)
    ours = np.array([region_box(size, area, random) for _ in range(2000)])
    blank = torch.empty(1, size[1], size[0])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = np.array([RandomResizedCrop.get_params(blank, area, (3 / 4, 4 / 3)) for _ in range(2000)])
    top, left, height, width = drawn.T
    for found, expected in zip(ours.T, (left, top, left + width, top + height), strict=True):
        places = np.arange(max(size) + 1)
        shares = [np.searchsorted(np.sort(each), places, side="right") / 2000 for each in (found, expected)]
        assert np.abs(shares[0] - shares[1]).max() < 0.07


@pytest.mark.parametrize("size", [(1000, 10), (10, 1000), (300, 300), (400, 301), (301, 400), (7, 9), (9, 7), (1, 1)])
def test_where_no_draw_fits_the_region_is_torchvisions(size: tuple[int, int]) -> None:
    """Twice the area of a picture never fits into it."""
    left, top, right, bottom = region_box(size, (2.0, 2.0), generator())
    blank = torch.empty(1, size[1], size[0])
    expected = RandomResizedCrop.get_params(blank, (2.0, 2.0), (3 / 4, 4 / 3))
    assert (top, left, bottom - top, right - left) == expected


def test_a_random_region_is_scaled_to_the_crop() -> None:
    grey = Image.new("L", (400, 300), 77)
    assert (region(grey, PRESETS["mnist"], (0.1, 1.0), generator()) == 77).all()
    found = region(Image.new("RGB", (90, 70), (1, 2, 3)), PRESETS["half-224"], (0.1, 1.0), generator())
    assert found.shape == (224, 224, 3)


def test_a_random_region_is_that_of_its_box() -> None:
    y, x = np.mgrid[:90, :120]
    picture = Image.fromarray(np.stack([x * 2, y * 2, x + y], 2).astype(np.uint8))
    box = region_box(picture.size, (0.1, 0.3), generator(4))
    expected = picture.crop(box).resize((32, 32), Image.Resampling.BILINEAR)
    found = region(picture, CIFAR10, (0.1, 0.3), generator(4))
    # Pillow's resize of a box also sees the pixels next to it.
    assert np.abs(found.astype(int) - np.asarray(expected)).max() <= 3


def ramp(count: int = 1) -> Split:
    """Pictures whose columns grow brighter, so that their mirror images are others."""
    pixels = np.tile(np.arange(32, dtype=np.uint8)[None, None, :, None] * 8, (count, 32, 1, 3))
    numbers = np.zeros(count, np.int64)
    return Split(None, numbers, numbers, CIFAR10, pixels)  # type: ignore[arg-type]


def test_half_of_the_pictures_are_mirrored_and_only_if_the_recipe_says_so() -> None:
    recipe, random = replace(recipe_for(VARIANTS["googlenet"], "cifar10"), shift=0), generator()
    split, all_of_them = ramp(200), np.arange(200)
    mirrored = drawn(split, all_of_them, recipe, random)
    assert 70 < (mirrored[:, 0, 0, 0] > 0).sum() < 130
    assert np.array_equal(np.where(mirrored[:, :1, :1] > 0, mirrored[:, :, ::-1], mirrored), split.cut(all_of_them))
    assert np.array_equal(drawn(split, all_of_them, replace(recipe, flip=False), random), split.cut(all_of_them))


def test_distortions_keep_the_shape_and_the_ground() -> None:
    ground = torch.full((5, 1, 32, 32), -0.1)
    torch.testing.assert_close(distorted(ground, LENET, -0.1, generator()), ground)
    pictures = torch.rand(20, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    found = distorted(pictures, LENET, 0.0, generator())
    assert found.shape == pictures.shape
    differences = (found - pictures).abs().mean(dim=(1, 2, 3))
    assert (differences > 0.01).all()
    assert len(set(differences.tolist())) == 20
    still = replace(LENET, rotation=0.0, scaling=0.0, translation=0.0)
    torch.testing.assert_close(distorted(pictures, still, 0.0, generator()), pictures, atol=1e-4, rtol=0)


def test_a_translation_stays_within_its_bound() -> None:
    dot = torch.zeros(50, 1, 33, 33)
    dot[..., 16, 16] = 1.0
    moved = distorted(dot, replace(LENET, rotation=0.0, scaling=0.0), 0.0, generator())
    weights = moved / moved.sum(dim=(2, 3), keepdim=True)
    places = (weights.sum(dim=3) * torch.arange(33.0)).sum(dim=2) - 16
    assert places.abs().max() <= 2.01
    assert places.abs().max() > 1


def test_colour_axes_are_the_principal_components() -> None:
    values = generator().normal(0, 1, (32 * 32, 2)) @ np.array([[30.0, 20.0, 10.0], [2.0, -3.0, 0.0]]) + 128
    pixels = values.clip(0, 255).astype(np.uint8).reshape(1, 32, 32, 3)
    axes = colour_axes(replace(ramp(), crops=pixels))
    covariance = np.cov(pixels.reshape(-1, 3).T.astype(float), bias=True)
    np.testing.assert_allclose(axes @ axes.T, covariance, atol=1e-6)
    direction = axes[:, 2] / np.linalg.norm(axes[:, 2])
    np.testing.assert_allclose(direction, np.array([30, 20, 10]) / np.linalg.norm([30, 20, 10]), atol=0.02)


def test_colour_axes_are_those_of_all_pictures_together() -> None:
    """Two pictures of one colour each, which differ in red alone."""
    pixels = np.zeros((2, 32, 32, 3), np.uint8)
    pixels[0, ..., 0], pixels[1, ..., 0] = 100, 140
    axes = colour_axes(replace(ramp(2), crops=pixels))
    np.testing.assert_allclose(axes, [[0, 0, 20], [0, 0, 0], [0, 0, 0]], atol=1e-6)


@pytest.mark.parametrize("preset", ["cifar10", "caffe-224"])
def test_colours_move_along_the_axes_in_the_networks_own_units(preset: str) -> None:
    preprocess, axis = PRESETS[preset], np.diag([10.0, 0.0, 0.0])  # red alone
    x = torch.zeros(400, 3, 2, 2)
    moved = coloured(x, preprocess, axis, 0.1, generator())
    assert (moved == moved[:, :, :1, :1]).all()
    red = 2 if preprocess.colour == "bgr" else 0
    assert not moved[:, [channel for channel in range(3) if channel != red]].any()
    levels = moved[:, red, 0, 0] * preprocess.std[red] / preprocess.scale
    assert levels.std().item() == pytest.approx(1.0, rel=0.15)
