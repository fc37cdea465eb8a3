"""LeNet-5, from LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition" (1998).

This is the paper's network, not the simplified one of textbooks: table I says which maps of S2 each map of C3 sees,
the two subsampling layers have a trainable coefficient and bias for each map, and a scaled tanh follows each layer up
to F6.
One deviation: the paper ends in ten radial basis functions with fixed codes; here the output is linear (850
parameters), so that softmax gives probabilities.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

#: Table I of the paper: for each of C3's sixteen maps, the maps of S2 that it is connected to.
C3_TABLE: tuple[tuple[int, ...], ...] = (
    (0, 1, 2),
    (1, 2, 3),
    (2, 3, 4),
    (3, 4, 5),
    (0, 4, 5),
    (0, 1, 5),
    (0, 1, 2, 3),
    (1, 2, 3, 4),
    (2, 3, 4, 5),
    (0, 3, 4, 5),
    (0, 1, 4, 5),
    (0, 1, 2, 5),
    (0, 1, 3, 4),
    (1, 2, 4, 5),
    (0, 2, 3, 5),
    (0, 1, 2, 3, 4, 5),
)


class ScaledTanh(nn.Module):
    """A tanh(S a) with A = 1.7159 and S = 2/3, so that f(1) = 1 and f(-1) = -1 (appendix A)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 1.7159 * torch.tanh(x * (2.0 / 3.0))


class Subsampling(nn.Module):
    """The sum over 2x2, times a trainable coefficient of the map, plus its trainable bias (section II-B)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        # The paper gives no initial values for these two. A quarter makes the sum an average.
        self.coefficient = nn.Parameter(torch.full((channels, 1, 1), 0.25))
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(x, 2) * (4.0 * self.coefficient) + self.bias


class TableConv2d(nn.Module):
    """A convolution in which each output map sees only the input maps that a table names.

    Only the kernels of the table are parameters: (connections, size, size). ``forward`` puts them into a dense weight
    of (out, in, size, size), since one dense convolution is faster than sixteen small ones.
    """

    def __init__(self, in_channels: int, table: tuple[tuple[int, ...], ...], kernel_size: int) -> None:
        super().__init__()
        self.shape = (len(table), in_channels, kernel_size, kernel_size)
        # Plain lists rather than buffers: the table is part of the architecture, and no part of a state dict.
        self.rows = [row for row, columns in enumerate(table) for _ in columns]
        self.columns = [column for columns in table for column in columns]
        self.weight = nn.Parameter(torch.empty(len(self.rows), kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(len(table)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, self.dense(), self.bias)

    def dense(self) -> torch.Tensor:
        """The weight as (out, in, size, size), zero where nothing is connected."""
        where = torch.tensor([self.rows, self.columns], device=self.weight.device)
        return self.weight.new_zeros(self.shape).index_put((where[0], where[1]), self.weight)


class LeNet5(nn.Module):
    """float (N, 1, 32, 32) -> logits (N, num_classes); 60,850 parameters with ten classes."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.c1 = nn.Conv2d(1, 6, kernel_size=5)
        self.s2 = Subsampling(6)
        self.c3 = TableConv2d(6, C3_TABLE, kernel_size=5)
        self.s4 = Subsampling(16)
        self.c5 = nn.Conv2d(16, 120, kernel_size=5)
        self.f6 = nn.Linear(120, 84)
        self.output = nn.Linear(84, num_classes)
        self.squash = ScaledTanh()
        self._init_weights()

    def _init_weights(self) -> None:
        """Uniform within 2.4 / fan-in (appendix A)."""
        for layer, inputs in ((self.c1, 25), (self.c5, 16 * 25), (self.f6, 120), (self.output, 84)):
            nn.init.uniform_(layer.weight, -2.4 / inputs, 2.4 / inputs)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        # C3's maps have 3, 4 or 6 inputs; one bound for all, by the mean of table I (60 / 16).
        bound = 2.4 / (25 * len(self.c3.rows) / len(C3_TABLE))
        nn.init.uniform_(self.c3.weight, -bound, bound)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # N x 1 x 32 x 32
        x = self.squash(self.c1(x))
        # N x 6 x 28 x 28
        x = self.squash(self.s2(x))
        # N x 6 x 14 x 14
        x = self.squash(self.c3(x))
        # N x 16 x 10 x 10
        x = self.squash(self.s4(x))
        # N x 16 x 5 x 5
        x = self.squash(self.c5(x))
        # N x 120 x 1 x 1
        x = self.squash(self.f6(torch.flatten(x, 1)))
        # N x 84
        logits: torch.Tensor = self.output(x)
        return logits


def lenet5(num_classes: int = 10) -> LeNet5:
    """LeNet-5 as in the paper, with a linear output."""
    return LeNet5(num_classes)
