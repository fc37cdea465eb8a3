"""LeNet-5 on MNIST: SGD with momentum, one cycle of the learning rate, small distortions of the digits.

The paper trains for 20 passes with a falling rate and shows (section III-C) that distorted copies of the digits
lower the error; both are kept, its second-order step sizes are replaced by momentum.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from models.lenet import LeNet5
from models.preprocess import PRESETS, Preprocess
from models.training.mnist import MNIST, Bytes


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides the result, beside the data and the build of torch."""

    epochs: int = 20
    batch_size: int = 64
    peak_rate: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 1e-4
    rotation: float = 10.0
    """Degrees, either way."""
    scaling: float = 0.1
    """Share of the size, either way."""
    shift: float = 2.0
    """Pixels, either way."""
    seed: int = 1998

    def __str__(self) -> str:
        return (
            f"SGD momentum {self.momentum}, one cycle to {self.peak_rate}, weight decay {self.weight_decay}, "
            f"{self.epochs} epochs of batch {self.batch_size}, rotation {self.rotation:g} degrees, "
            f"scaling {self.scaling:g}, shift {self.shift:g} pixels, seed {self.seed}"
        )


@dataclass(frozen=True, slots=True)
class Epoch:
    """Progress after one pass over the training pictures."""

    number: int
    loss: float
    top1: float
    """Percent on the test pictures."""


def train(network: LeNet5, data: MNIST, recipe: Recipe) -> Iterator[Epoch]:
    """Trains in place, yielding after each epoch."""
    torch.manual_seed(recipe.seed)
    preprocess = PRESETS["mnist"]
    pictures = to_input(data.train_pictures, preprocess)
    digits = torch.from_numpy(data.train_digits).long()
    steps = -(-len(digits) // recipe.batch_size)
    optimizer = torch.optim.SGD(
        network.parameters(), recipe.peak_rate, recipe.momentum, weight_decay=recipe.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.peak_rate, epochs=recipe.epochs, steps_per_epoch=steps
    )
    background = float((0 - preprocess.mean[0]) / preprocess.std[0])
    for number in range(1, recipe.epochs + 1):
        network.train()
        total = 0.0
        for batch in torch.split(torch.randperm(len(digits)), recipe.batch_size):
            optimizer.zero_grad()
            distorted = distort(pictures[batch], recipe, background)
            loss = F.cross_entropy(network(distorted), digits[batch])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            total += loss.item() * len(batch)
        yield Epoch(number, total / len(digits), accuracy(network, data.test_pictures, data.test_digits))


def to_input(pictures: Bytes, preprocess: Preprocess) -> torch.Tensor:
    """(N, 28, 28) bytes -> float (N, 1, 32, 32), as serving makes them from a 28x28 picture."""
    padded = np.pad(pictures, ((0, 0), (preprocess.pad,) * 2, (preprocess.pad,) * 2))
    scaled = torch.from_numpy(padded).float().unsqueeze(1) * preprocess.scale
    return (scaled - preprocess.mean[0]) / preprocess.std[0]


def distort(pictures: torch.Tensor, recipe: Recipe, background: float) -> torch.Tensor:
    """Turns, scales and shifts each picture by its own random amount."""
    n, side = len(pictures), pictures.shape[-1]

    def uniform(bound: float) -> torch.Tensor:
        return (torch.rand(n) * 2 - 1) * bound

    angle, size = torch.deg2rad(uniform(recipe.rotation)), 1 + uniform(recipe.scaling)
    cos, sin = torch.cos(angle) / size, torch.sin(angle) / size
    pixel = 2 / side
    x, y = uniform(recipe.shift) * pixel, uniform(recipe.shift) * pixel
    theta = torch.stack([torch.stack([cos, -sin, x], 1), torch.stack([sin, cos, y], 1)], 1)
    grid = F.affine_grid(theta, list(pictures.shape), align_corners=False)
    # grid_sample fills with zero outside; the shift makes zero the ground.
    return F.grid_sample(pictures - background, grid, align_corners=False) + background


@torch.inference_mode()
def accuracy(network: nn.Module, pictures: Bytes, digits: Bytes) -> float:
    """Top-1 accuracy in percent."""
    network.eval()
    parts = torch.split(to_input(pictures, PRESETS["mnist"]), 1000)
    answers = torch.cat([network(part).argmax(1) for part in parts])
    return 100.0 * float((answers == torch.from_numpy(digits)).double().mean())
