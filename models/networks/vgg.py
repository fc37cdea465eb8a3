"""VGG, from Simonyan and Zisserman, "Very deep convolutional networks for large-scale image recognition" (2014).

Module names are as in torchvision, so that its state dicts load as they are.
"""

from __future__ import annotations

import torch
from torch import nn

from models.networks.layers import LRN_PAPER, LocalResponseNorm, init_kaiming

#: Table 1 of the paper, by its column letters: a number is a 3x3 convolution with that many maps, "conv1-256" a 1x1
#: convolution with 256, "M" a 2x2 pool, "LRN" the normalisation that did not help (section 4.1).
CONFIGURATIONS: dict[str, tuple[int | str, ...]] = {
    "A": (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"),
    "A-LRN": (64, "LRN", "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"),
    "B": (64, 64, "M", 128, 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"),
    "C": (
        *(64, 64, "M", 128, 128, "M", 256, 256, "conv1-256", "M"),
        *(512, 512, "conv1-512", "M", 512, 512, "conv1-512", "M"),
    ),
    "D": (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"),
    "E": (
        *(64, 64, "M", 128, 128, "M", 256, 256, 256, 256, "M"),
        *(512, 512, 512, 512, "M", 512, 512, 512, 512, "M"),
    ),
}


class VGG(nn.Module):
    """float (N, 3, 224, 224) -> logits (N, num_classes).

    Raises:
        KeyError: table 1 has no such column.
    """

    def __init__(self, configuration: str, num_classes: int = 1000) -> None:
        super().__init__()
        self.features = _features(CONFIGURATIONS[configuration])
        self.classifier = nn.Sequential(
            nn.Linear(512 * 7 * 7, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(p=0.5),
            nn.Linear(4096, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(p=0.5),
            nn.Linear(4096, num_classes),
        )
        # The paper initialised deep nets from shallow ones and notes that Glorot's scheme makes that unnecessary
        # (section 3.1); He's is the same idea for ReLU, and torchvision's.
        init_kaiming(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # N x 3 x 224 x 224
        x = self.features(x)
        # N x 512 x 7 x 7
        logits: torch.Tensor = self.classifier(torch.flatten(x, 1))
        return logits


def _features(configuration: tuple[int | str, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = 3
    for item in configuration:
        if item == "M":
            layers.append(nn.MaxPool2d(kernel_size=2, stride=2))
        elif item == "LRN":
            # "Where applicable, the parameters for the LRN layer are those of (Krizhevsky et al., 2012)", section 2.1.
            layers.append(LocalResponseNorm(LRN_PAPER))
        else:
            size = 1 if isinstance(item, str) else 3
            maps = int(item.removeprefix("conv1-")) if isinstance(item, str) else item
            layers += [nn.Conv2d(channels, maps, size, padding=size // 2), nn.ReLU(inplace=True)]
            channels = maps
    return nn.Sequential(*layers)


def vgg(num_classes: int = 1000, *, configuration: str) -> VGG:
    """VGG by its column in table 1."""
    return VGG(configuration, num_classes)
