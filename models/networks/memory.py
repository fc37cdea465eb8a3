"""Costs of a network: parameters, activations, multiply-adds, and the analytic memory that follows from them.

Activations are the input and the outputs of convolutions, pools and fully connected layers; batch norm, ReLU, response
normalisation and dropout work in place. A framework needs more (workspaces, fragments, itself): what a checkpoint
really takes is its footprint, which is measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Dtype = Literal["float32", "float16"]
Purpose = Literal["inference", "training"]

#: Bytes of an element.
ELEMENT: dict[Dtype, int] = {"float32": 4, "float16": 2}


@dataclass(frozen=True, slots=True)
class Costs:
    """Costs of a network with a given number of classes, for one picture of a given size."""

    params: int
    activations: int
    """Elements, those of the input included."""
    multiply_adds: int

    @property
    def analytic_bytes(self) -> int:
        """Analytic memory of one picture in float32."""
        return self.bytes()

    def bytes(self, batch: int = 1, dtype: Dtype = "float32", purpose: Purpose = "inference") -> int:
        """Analytic memory of a batch.

        Training keeps a gradient and a momentum beside each parameter, and a gradient beside each activation, all
        alive until the backward pass. With float16 everything has two bytes: there are no float32 copies of weights.
        """
        copies, gradients = (3, 2) if purpose == "training" else (1, 1)
        return ELEMENT[dtype] * (copies * self.params + gradients * batch * self.activations)

    def largest_batch(self, limit: int, dtype: Dtype = "float32", purpose: Purpose = "inference") -> int:
        """The largest batch whose analytic memory is at most ``limit`` bytes; 0 if not even one picture fits."""
        fixed = self.bytes(0, dtype, purpose)
        return max(0, (limit - fixed) // (self.bytes(1, dtype, purpose) - fixed))
