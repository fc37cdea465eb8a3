"""AlexNet, from Krizhevsky, Sutskever and Hinton, "ImageNet classification with deep convolutional neural networks"
(2012), and the one tower of Krizhevsky, "One weird trick for parallelizing convolutional neural networks" (2014).

Two towers. The paper splits every layer over two GPUs with 3 GB each; conv2, conv4 and conv5 see only the maps of
their own GPU, conv3 and the fully connected layers see both. In one process that is a grouped convolution
(``groups=2``) in exactly those three layers.

227, not 224. The paper says 224 x 224, but 55 x 55 outputs of an 11 x 11 kernel at stride 4 without padding need
(55 - 1) * 4 + 11 = 227 pixels, and Caffe's reproduction takes 227.
"""

from __future__ import annotations

import torch
from torch import nn

from models.networks.layers import LRN_PAPER, LocalResponseNorm, LRNConstants, init_gaussian


class AlexNet(nn.Module):
    """float (N, 3, 227, 227) -> logits (N, num_classes); 60,965,224 parameters with 1000 classes.

    Args:
        num_classes: outputs of fc8.
        lrn: constants of the two normalisation layers; by default from the paper. A checkpoint may have others.
        pool_first: pools before it normalises, as Caffe's CaffeNet does; the paper normalises first.
        as_graph: the checkpoint takes pictures of 224 pixels, as the ONNX Model Zoo's conversion does: 54 -> 26 ->
            12 -> 6 in place of 55 -> 27 -> 13 -> 6. The layers are the same either way.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        *,
        lrn: LRNConstants = LRN_PAPER,
        pool_first: bool = False,
        as_graph: bool = False,
    ) -> None:
        super().__init__()
        self.pool_first = pool_first
        self.relu = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(3, 96, kernel_size=11, stride=4)
        self.norm1 = LocalResponseNorm(lrn)
        self.pool1 = nn.MaxPool2d(kernel_size=3, stride=2)
        self.conv2 = nn.Conv2d(96, 256, kernel_size=5, padding=2, groups=2)
        self.norm2 = LocalResponseNorm(lrn)
        self.pool2 = nn.MaxPool2d(kernel_size=3, stride=2)
        self.conv3 = nn.Conv2d(256, 384, kernel_size=3, padding=1)
        self.conv4 = nn.Conv2d(384, 384, kernel_size=3, padding=1, groups=2)
        self.conv5 = nn.Conv2d(384, 256, kernel_size=3, padding=1, groups=2)
        # Rounding up changes nothing at 227 pixels (13 -> 6). At the zoo's 224 (12 -> 6) it gives the 6 x 6 that fc6
        # needs: the zoo's last pool has an extra row and column at the end.
        self.pool5 = nn.MaxPool2d(kernel_size=3, stride=2, ceil_mode=True)
        self.fc6 = nn.Linear(256 * 6 * 6, 4096)
        self.fc7 = nn.Linear(4096, 4096)
        self.fc8 = nn.Linear(4096, num_classes)
        self.dropout6 = nn.Dropout(p=0.5)
        self.dropout7 = nn.Dropout(p=0.5)
        self._init_weights()

    def _init_weights(self) -> None:
        """Gaussian weights (0.01); biases are one in conv2, conv4, conv5, fc6 and fc7, else zero (section 5)."""
        init_gaussian(self, std=0.01)
        for layer in (self.conv2, self.conv4, self.conv5, self.fc6, self.fc7):
            assert layer.bias is not None
            nn.init.ones_(layer.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # N x 3 x 227 x 227
        x = self.relu(self.conv1(x))
        # N x 96 x 55 x 55
        x = self.norm1(self.pool1(x)) if self.pool_first else self.pool1(self.norm1(x))
        # N x 96 x 27 x 27
        x = self.relu(self.conv2(x))
        # N x 256 x 27 x 27
        x = self.norm2(self.pool2(x)) if self.pool_first else self.pool2(self.norm2(x))
        # N x 256 x 13 x 13
        x = self.relu(self.conv3(x))
        # N x 384 x 13 x 13
        x = self.relu(self.conv4(x))
        # N x 384 x 13 x 13
        x = self.relu(self.conv5(x))
        # N x 256 x 13 x 13
        x = self.pool5(x)
        # N x 256 x 6 x 6
        x = self.dropout6(self.relu(self.fc6(torch.flatten(x, 1))))
        # N x 4096
        x = self.dropout7(self.relu(self.fc7(x)))
        # N x 4096
        logits: torch.Tensor = self.fc8(x)
        return logits


def alexnet(
    num_classes: int = 1000,
    *,
    lrn: LRNConstants = LRN_PAPER,
    pool_first: bool = False,
    as_graph: bool = False,
) -> AlexNet:
    """AlexNet of 2012."""
    return AlexNet(num_classes, lrn=lrn, pool_first=pool_first, as_graph=as_graph)


class AlexNetOWT(nn.Module):
    """float (N, 3, 224, 224) -> logits (N, num_classes); 61,100,840 parameters with 1000 classes.

    This is torchvision's ``alexnet`` with its module names, so that its state dicts load as they are. The paper of
    2014 describes the net of 2012 without the second tower; torchvision also drops local response normalisation, and
    takes 224 pixels with a padding of two, which make 55 x 55 as well.
    """

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, kernel_size=11, stride=4, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.Conv2d(64, 192, kernel_size=5, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.Conv2d(192, 384, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(384, 256, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(256, 256, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2),
        )
        # torchvision has an adaptive pool to 6 x 6 here; 224 pixels are 6 x 6 already.
        self.classifier = nn.Sequential(
            nn.Dropout(p=0.5),
            nn.Linear(256 * 6 * 6, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(p=0.5),
            nn.Linear(4096, 4096),
            nn.ReLU(inplace=True),
            nn.Linear(4096, num_classes),
        )
        init_gaussian(self, std=0.01)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # N x 3 x 224 x 224
        x = self.features(x)
        # N x 256 x 6 x 6
        logits: torch.Tensor = self.classifier(torch.flatten(x, 1))
        return logits


def alexnet_owt(num_classes: int = 1000) -> AlexNetOWT:
    """AlexNet of 2014, one tower."""
    return AlexNetOWT(num_classes)
