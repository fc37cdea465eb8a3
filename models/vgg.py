"""VGG, from Simonyan and Zisserman, "Very deep convolutional networks for large-scale image recognition" (2014).

Module names are torchvision's, so that its state dicts load as they are.
"""

from __future__ import annotations

import torch
from torch import nn

from models.layers import init_kaiming

#: Table 1 of the paper, by its column letters: a number is a 3x3 convolution with that many maps, "M" a 2x2 pool.
CONFIGURATIONS: dict[str, tuple[int | str, ...]] = {
    "D": (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"),
}


class VGG(nn.Module):
    """float (N, 3, 224, 224) -> logits (N, num_classes).

    Raises:
        KeyError: the configuration is none of Table 1's.
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
        if isinstance(item, int):
            layers += [nn.Conv2d(channels, item, kernel_size=3, padding=1), nn.ReLU(inplace=True)]
            channels = item
        else:
            layers.append(nn.MaxPool2d(kernel_size=2, stride=2))
    return nn.Sequential(*layers)


def vgg(num_classes: int = 1000, *, configuration: str) -> VGG:
    """VGG of the given column of Table 1."""
    return VGG(configuration, num_classes)
