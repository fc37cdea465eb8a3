"""Random changes of pictures. Each function draws from the generator that it is given, and from no other."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.nn import functional as F

from models.data.arrays import Bytes, Numbers
from models.images.preprocess import Preprocess
from models.training.dataset import Split
from models.training.recipes import Recipe

#: How many pictures the principal components of colour are computed from.
_SAMPLE = 1_000
#: Width over height of a random region, at least and at most.
_ASPECTS = (3 / 4, 4 / 3)


def drawn(split: Split, chosen: Numbers, recipe: Recipe, random: np.random.Generator) -> Bytes:
    """The crops of some pictures, cut and moved at random but not finished: uint8 (N, crop, crop, channels)."""
    if recipe.region is not None:
        crops = np.stack([region(split.picture(int(i)), split.preprocess, recipe.region, random) for i in chosen])
    else:
        crops = split.cut(chosen)
    if recipe.shift or recipe.flip:
        crops = moved(crops, recipe.shift, flip=recipe.flip, random=random)
    return crops


def moved(crops: Bytes, shift: int, *, flip: bool, random: np.random.Generator) -> Bytes:
    """Moves each crop of (N, H, W, channels) by up to ``shift`` pixels either way and fills the gap with its own edge,
    mirrored. With ``flip``, mirrors half of the crops left to right."""
    count, height, width = crops.shape[:3]
    top, left = random.integers(-shift, shift + 1, (2, count, 1))
    rows, columns = _mirrored(np.arange(height) + top, height), _mirrored(np.arange(width) + left, width)
    if flip:
        columns = np.where(random.random((count, 1)) < 0.5, columns[:, ::-1], columns)
    # All pictures in one indexing: a Python loop over pictures would be slower than the GPU's steps.
    return crops[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]


def _mirrored(places: Numbers, size: int) -> Numbers:
    """Maps places outside of 0 to size - 1 back inside, mirrored at the first and the last place."""
    mirrored: Numbers = size - 1 - np.abs(size - 1 - np.abs(places))
    return mirrored


def region(
    picture: Image.Image, preprocess: Preprocess, area: tuple[float, float], random: np.random.Generator
) -> Bytes:
    """Cuts a random region out of a picture and scales it to the crop: uint8 (crop, crop, channels)."""
    box = region_box(picture.size, area, random)
    size = (preprocess.crop, preprocess.crop)
    pixels = np.asarray(picture.resize(size, Image.Resampling.BILINEAR, box=box))
    return pixels.reshape(*size, preprocess.channels)


def region_box(
    size: tuple[int, int], area: tuple[float, float], random: np.random.Generator
) -> tuple[int, int, int, int]:
    """Draws left, top, right and bottom: the share of the area evenly, the aspect evenly in its logarithm.

    The rule is that of torchvision's ``RandomResizedCrop.get_params``. That function itself draws from torch's global
    generator, which all threads share: several make batches while the main one draws dropout, in an order that no seed
    fixes. Two runs would then no longer write the same file.
    """
    width, height = size
    narrowest, widest = _ASPECTS
    for _ in range(10):
        pixels = width * height * random.uniform(*area)
        aspect = math.exp(random.uniform(math.log(narrowest), math.log(widest)))
        w, h = round(math.sqrt(pixels * aspect)), round(math.sqrt(pixels / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = (int(random.integers(0, most + 1)) for most in (width - w, height - h))
            return left, top, left + w, top + h
    # No draw fits, as in very narrow pictures: the largest centred region with an allowed aspect ratio.
    w, h = min(width, round(height * widest)), min(height, round(width / narrowest))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def colour_axes(split: Split) -> npt.NDArray[np.float64]:
    """The principal components of the pictures' RGB values (0-255), one per column, each as long as the standard
    deviation along it.

    Krizhevsky 2012 multiplies by the eigenvalues, without stating their scale; the published code and its successors
    use the standard deviations.
    """
    chosen = np.linspace(0, len(split) - 1, min(_SAMPLE, len(split))).astype(int)
    sums, products, count = np.zeros(3), np.zeros((3, 3)), 0
    for i in np.split(chosen, len(chosen)):
        pixels = split.cut(i).reshape(-1, 3).astype(np.float64)
        sums, products, count = sums + pixels.sum(0), products + pixels.T @ pixels, count + len(pixels)
    mean = sums / count
    values, vectors = np.linalg.eigh(products / count - np.outer(mean, mean))
    # Libraries differ in the sign of an eigenvector. The draw is symmetric; a fixed sign makes runs repeatable.
    vectors = vectors * np.where(vectors.sum(0) < 0, -1.0, 1.0)
    axes: npt.NDArray[np.float64] = vectors * np.sqrt(np.clip(values, 0, None))
    return axes


def coloured(
    x: torch.Tensor,
    preprocess: Preprocess,
    axes: npt.NDArray[np.float64],
    deviation: float,
    random: np.random.Generator,
) -> torch.Tensor:
    """Adds to each picture of a network's input (N, 3, H, W) a random multiple of each principal component."""
    offsets = random.normal(0.0, deviation, (len(x), 3)) @ axes.T
    if preprocess.colour == "bgr":
        offsets = offsets[:, ::-1]
    offsets = offsets * preprocess.scale / np.array(preprocess.std)
    return x + torch.from_numpy(offsets.astype(np.float32)).to(x.device)[:, :, None, None]


def distorted(x: torch.Tensor, recipe: Recipe, background: float, random: np.random.Generator) -> torch.Tensor:
    """Rotates, scales and moves each picture of (N, C, H, W) by random amounts; gaps are filled with ``background``."""

    def uniform(bound: float) -> torch.Tensor:
        return torch.from_numpy(random.uniform(-bound, bound, len(x)).astype(np.float32)).to(x.device)

    angle, size = torch.deg2rad(uniform(recipe.rotation)), 1 + uniform(recipe.scaling)
    cos, sin = torch.cos(angle) / size, torch.sin(angle) / size
    pixel = 2 / x.shape[-1]
    right, down = uniform(recipe.translation) * pixel, uniform(recipe.translation) * pixel
    theta = torch.stack([torch.stack([cos, -sin, right], 1), torch.stack([sin, cos, down], 1)], 1)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    # grid_sample fills with zeros, so the background is made zero for it.
    return F.grid_sample(x - background, grid, align_corners=False) + background
