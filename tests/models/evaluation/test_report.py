"""The JSON report of an evaluation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from models.checkpoints.labels import labels
from models.data.sources import Held, Labelled
from models.evaluation.evaluate import Member, Plan, evaluate
from models.evaluation.measures import top1, top5
from models.evaluation.report import to_json
from models.images.preprocess import PRESETS, Preprocess
from tests.data_sets import colours

MNIST, CIFAR10 = PRESETS["mnist"], PRESETS["cifar10"]


class Mixed(nn.Module):
    """A network whose answers depend on colours and their places: a random mixture of the quarters of the picture."""

    def __init__(self, seed: int, classes: int = 10) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.mix = nn.Parameter(torch.randn(12, classes, generator=generator))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = F.adaptive_avg_pool2d(x, 2).flatten(1) @ self.mix
        return found


def member(seed: int, preprocess: Preprocess = CIFAR10, classes: int = 10) -> Member:
    return Member(f"m{seed}", Mixed(seed, classes), preprocess)


@pytest.fixture(scope="module")
def pictures() -> Labelled:
    """Thirty pictures that are wider than high."""
    found = colours(3, 5, (48, 32))
    pixels = np.stack([np.asarray(picture) for _, picture in found])
    return Labelled("test", Held(pixels), np.array([number for number, _ in found]))


def test_the_report_has_everything_in_numbers_that_agree(pictures: Labelled) -> None:
    found = evaluate([member(1), member(2)], pictures, 10, Plan())
    for result, row in zip(found.results, to_json(found, labels("cifar10"))["results"], strict=True):
        assert (row["name"], row["pictures"]) == (result.name, 30)
        assert row["top1"]["right"] == top1(result.answers).right
        assert row["top5"]["error"] == top5(result.answers).error
        assert sum(count for _, _, count in row["confusion"]) == 30
        assert sum(count for true, answer, count in row["confusion"] if true == answer) == row["top1"]["right"]
        assert sum(each["pictures"] for each in row["calibration"]) == 30
        wrong = sum(each["top1"]["pictures"] - each["top1"]["right"] for each in row["classes"])
        assert wrong == 30 - row["top1"]["right"]
        assert row["top1"]["error_interval"][0] < row["top1"]["error"] < row["top1"]["error_interval"][1]
