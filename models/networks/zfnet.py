"""ZFNet, from Zeiler and Fergus, "Visualizing and understanding convolutional networks" (2013).

AlexNet on one tower, after a look at its filters: 7x7 at stride 2 in the first layer instead of 11x11 at stride 4, and
stride 2 in the second (section 4.1). Figure 3 gives the sizes: 224 -> 110 -> 55 -> 26 -> 13 -> 6.
"""

from __future__ import annotations

import torch
from torch import nn

from models.networks.layers import LRN_PAPER, LocalResponseNorm, LRNConstants, init_gaussian


class ZFNet(nn.Module):
    """float (N, 3, 224, 224) -> logits (N, num_classes); 62,357,608 parameters with 1000 classes.

    Args:
        num_classes: outputs of fc8.
        maps: of the third, fourth and fifth convolution.
        hidden: units of fc7.
        zoo: the sizes of the ONNX Model Zoo's ZFNet-512, 224 -> 109 -> 54 -> 25 -> 12 -> 6: no padding of the first
            layer, pools that round down, and a last pool of 2x2.
        lrn: constants of the normalisation after the first two convolutions. The paper says "contrast normalized
            across feature maps" and no more; these are the constants of AlexNet, as in the zoo's graph.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        *,
        maps: tuple[int, int, int] = (384, 384, 256),
        hidden: int = 4096,
        zoo: bool = False,
        lrn: LRNConstants = LRN_PAPER,
    ) -> None:
        super().__init__()
        third, fourth, fifth = maps
        self.normalise_first = zoo
        self.relu = nn.ReLU(inplace=True)
        # A padding of one gives figure 3's 110, which the text does not explain.
        self.conv1 = nn.Conv2d(3, 96, kernel_size=7, stride=2, padding=0 if zoo else 1)
        self.norm1 = LocalResponseNorm(lrn)
        # Rounding up gives figure 3's 55 and 13.
        self.pool1 = nn.MaxPool2d(kernel_size=3, stride=2, ceil_mode=not zoo)
        self.conv2 = nn.Conv2d(96, 256, kernel_size=5, stride=2)
        self.norm2 = LocalResponseNorm(lrn)
        self.pool2 = nn.MaxPool2d(kernel_size=3, stride=2, ceil_mode=not zoo)
        self.conv3 = nn.Conv2d(256, third, kernel_size=3, padding=1)
        self.conv4 = nn.Conv2d(third, fourth, kernel_size=3, padding=1)
        self.conv5 = nn.Conv2d(fourth, fifth, kernel_size=3, padding=1)
        self.pool5 = nn.MaxPool2d(kernel_size=2 if zoo else 3, stride=2)
        self.fc6 = nn.Linear(fifth * 6 * 6, 4096)
        self.fc7 = nn.Linear(4096, hidden)
        self.fc8 = nn.Linear(hidden, num_classes)
        self.dropout6 = nn.Dropout(p=0.5)
        self.dropout7 = nn.Dropout(p=0.5)
        # Section 3.1: "All weights are initialized to 10^-2 and biases are set to 0"; we read a Gaussian of that width.
        init_gaussian(self, std=0.01)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # N x 3 x 224 x 224
        x = self.relu(self.conv1(x))
        # N x 96 x 110 x 110. The figure pools before it normalises; the zoo's graph has it the other way round.
        x = self.pool1(self.norm1(x)) if self.normalise_first else self.norm1(self.pool1(x))
        # N x 96 x 55 x 55
        x = self.relu(self.conv2(x))
        # N x 256 x 26 x 26
        x = self.pool2(self.norm2(x)) if self.normalise_first else self.norm2(self.pool2(x))
        # N x 256 x 13 x 13
        x = self.relu(self.conv5(self.relu(self.conv4(self.relu(self.conv3(x))))))
        # N x 256 x 13 x 13
        x = self.pool5(x)
        # N x 256 x 6 x 6
        x = self.dropout6(self.relu(self.fc6(torch.flatten(x, 1))))
        # N x 4096
        x = self.dropout7(self.relu(self.fc7(x)))
        # N x hidden
        logits: torch.Tensor = self.fc8(x)
        return logits


def zfnet(num_classes: int = 1000, *, lrn: LRNConstants = LRN_PAPER) -> ZFNet:
    """ZFNet of 2013."""
    return ZFNet(num_classes, lrn=lrn)


def zfnet512(num_classes: int = 1000, *, lrn: LRNConstants = LRN_PAPER) -> ZFNet:
    """The ONNX Model Zoo's ZFNet-512: 512 maps from the third convolution on (the "512,1024,512" direction of the
    paper's table 3), and 1024 units in fc7."""
    return ZFNet(num_classes, maps=(512, 512, 512), hidden=1024, zoo=True, lrn=lrn)
