"""BN-Inception, from Ioffe and Szegedy, "Batch normalization: accelerating deep network training by reducing internal
covariate shift" (2015), appendix and figure 5. The ONNX Model Zoo, and others, call it Inception v2.

GoogLeNet with batch norm after every convolution, two 3x3 in place of each 5x5, average pools inside most modules, and
modules of stride 2 (3c, 4e) in place of the pools between them.
Figure 5 gives the sizes, except for the pool projections of 4c and 4d: with the printed 128 maps the outputs would not
be the figure's 576. They are 96, as in the network that the zoo converted.
"""

from __future__ import annotations

import torch
from torch import nn

from models.networks.layers import ConvBNReLU, init_kaiming

#: What Caffe's batch norm adds to the variance.
EPS = 1e-5

#: Figure 5: channels in, #1x1, #3x3 reduce, #3x3, double #3x3 reduce, double #3x3, pool proj. A module without a
#: 1x1 (0) has stride 2 and passes its pool on.
FIGURE_5: dict[str, tuple[int, int, int, int, int, int, int]] = {
    "3a": (192, 64, 64, 64, 64, 96, 32),
    "3b": (256, 64, 64, 96, 64, 96, 64),
    "3c": (320, 0, 128, 160, 64, 96, 0),
    "4a": (576, 224, 64, 96, 96, 128, 128),
    "4b": (576, 192, 96, 128, 96, 128, 128),
    "4c": (576, 160, 128, 160, 128, 160, 96),
    "4d": (576, 96, 128, 192, 160, 192, 96),
    "4e": (576, 0, 128, 192, 192, 256, 0),
    "5a": (1024, 352, 192, 320, 160, 224, 128),
    "5b": (1024, 352, 192, 320, 192, 224, 128),
}


class InceptionV2(nn.Module):
    """1x1; 1x1 then 3x3; 1x1 then two 3x3; 3x3 pool then 1x1; concatenated in that order.

    Args:
        pool: the pool of the last branch, for modules of stride 1.
    """

    def __init__(
        self,
        in_channels: int,
        ch1x1: int,
        ch3x3_reduce: int,
        ch3x3: int,
        double3x3_reduce: int,
        double3x3: int,
        pool_proj: int,
        *,
        pool: nn.Module | None = None,
    ) -> None:
        super().__init__()
        stride = 1 if ch1x1 else 2
        self.branch1 = ConvBNReLU(in_channels, ch1x1, kernel_size=1, eps=EPS) if ch1x1 else None
        self.branch2 = nn.Sequential(
            ConvBNReLU(in_channels, ch3x3_reduce, kernel_size=1, eps=EPS),
            ConvBNReLU(ch3x3_reduce, ch3x3, kernel_size=3, stride=stride, padding=1, eps=EPS),
        )
        self.branch3 = nn.Sequential(
            ConvBNReLU(in_channels, double3x3_reduce, kernel_size=1, eps=EPS),
            ConvBNReLU(double3x3_reduce, double3x3, kernel_size=3, padding=1, eps=EPS),
            ConvBNReLU(double3x3, double3x3, kernel_size=3, stride=stride, padding=1, eps=EPS),
        )
        self.branch4 = nn.Sequential(pool or nn.MaxPool2d(kernel_size=3, stride=2, ceil_mode=True))
        if pool_proj:
            self.branch4.append(ConvBNReLU(in_channels, pool_proj, kernel_size=1, eps=EPS))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        branches = [self.branch2(x), self.branch3(x), self.branch4(x)]
        return torch.cat(branches if self.branch1 is None else [self.branch1(x), *branches], 1)


class BNInception(nn.Module):
    """float (N, 3, 224, 224) -> logits (N, num_classes); 11,194,984 parameters with 1000 classes.

    Args:
        num_classes: outputs of the last layer.
        as_graph: the average pools inside the modules leave the padding out of their count, as in the ONNX Model
            Zoo's conversion. Caffe, where the weights were trained, counts it.
    """

    def __init__(self, num_classes: int = 1000, *, as_graph: bool = False) -> None:
        super().__init__()

        def average() -> nn.AvgPool2d:
            return nn.AvgPool2d(kernel_size=3, stride=1, padding=1, count_include_pad=not as_graph)

        # The paper's appendix has a separable convolution of depth multiplier 8 here; the public weights a plain one.
        self.conv1 = ConvBNReLU(3, 64, kernel_size=7, stride=2, padding=3, eps=EPS)
        self.pool1 = nn.MaxPool2d(kernel_size=3, stride=2, ceil_mode=True)
        self.conv2_reduce = ConvBNReLU(64, 64, kernel_size=1, eps=EPS)
        self.conv2 = ConvBNReLU(64, 192, kernel_size=3, padding=1, eps=EPS)
        self.pool2 = nn.MaxPool2d(kernel_size=3, stride=2, ceil_mode=True)
        self.inception3a = InceptionV2(*FIGURE_5["3a"], pool=average())
        self.inception3b = InceptionV2(*FIGURE_5["3b"], pool=average())
        self.inception3c = InceptionV2(*FIGURE_5["3c"])
        self.inception4a = InceptionV2(*FIGURE_5["4a"], pool=average())
        self.inception4b = InceptionV2(*FIGURE_5["4b"], pool=average())
        self.inception4c = InceptionV2(*FIGURE_5["4c"], pool=average())
        self.inception4d = InceptionV2(*FIGURE_5["4d"], pool=average())
        self.inception4e = InceptionV2(*FIGURE_5["4e"])
        self.inception5a = InceptionV2(*FIGURE_5["5a"], pool=average())
        # The one module of stride 1 with a max pool.
        self.inception5b = InceptionV2(*FIGURE_5["5b"], pool=nn.MaxPool2d(kernel_size=3, stride=1, padding=1))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(1024, num_classes)
        init_kaiming(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # N x 3 x 224 x 224
        x = self.pool1(self.conv1(x))
        # N x 64 x 56 x 56
        x = self.pool2(self.conv2(self.conv2_reduce(x)))
        # N x 192 x 28 x 28
        x = self.inception3b(self.inception3a(x))
        # N x 320 x 28 x 28
        x = self.inception3c(x)
        # N x 576 x 14 x 14
        x = self.inception4d(self.inception4c(self.inception4b(self.inception4a(x))))
        # N x 576 x 14 x 14
        x = self.inception4e(x)
        # N x 1024 x 7 x 7
        x = self.inception5b(self.inception5a(x))
        # N x 1024 x 7 x 7
        logits: torch.Tensor = self.fc(torch.flatten(self.avgpool(x), 1))
        return logits


def inception_v2(num_classes: int = 1000, *, as_graph: bool = False) -> BNInception:
    """BN-Inception of 2015."""
    return BNInception(num_classes, as_graph=as_graph)
