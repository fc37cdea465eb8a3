"""Analytic memory: what parameters and activations take, by count. Footprints are measured, elsewhere.

Counted are the parameters, the input, and the outputs of convolutions, pools and fully connected layers; batch norm,
ReLU, response normalisation and dropout work in place. What a framework adds (workspaces, fragments, itself) is not.
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
    """What a network needs with so many classes, for pictures of such a size."""

    params: int
    activations: int
    """Elements of analytic memory for one picture beside the parameters."""
    multiply_adds: int

    @property
    def analytic_bytes(self) -> int:
        """Parameters and activations for one picture in float32."""
        return 4 * (self.params + self.activations)


@dataclass(frozen=True, slots=True)
class Needs:
    """Elements that a network needs."""

    params: int
    activations: int
    """Of one picture, the input among them."""

    def bytes(self, batch: int = 1, dtype: Dtype = "float32", purpose: Purpose = "inference") -> int:
        """Analytic memory of a batch.

        Training keeps a gradient and a momentum beside each parameter, and a gradient beside each activation, which
        all wait for the backward pass; float16 means all of it, without float32 copies of the weights.
        """
        copies, gradients = (3, 2) if purpose == "training" else (1, 1)
        return ELEMENT[dtype] * (copies * self.params + gradients * batch * self.activations)

    def largest_batch(self, limit: int, dtype: Dtype = "float32", purpose: Purpose = "inference") -> int:
        """The largest batch whose analytic memory is within ``limit`` bytes; 0 if not even one picture is."""
        fixed = self.bytes(0, dtype, purpose)
        return max(0, (limit - fixed) // (self.bytes(1, dtype, purpose) - fixed))
