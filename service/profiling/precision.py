"""Chooses the precision that a checkpoint computes in on a GPU, where nobody has set one.

The network answers the same pictures (``precision_pictures.py``) in float32 and in both half precisions. One passes if
all its numbers are finite and its most probable class is float32's on nearly all pictures. The fastest that passes is
chosen; float32 if none does or none is faster. Tensor cores take equally long for both halves, so mostly they are
level, and then bfloat16 is chosen: it has float32's range, so that no picture which was not tried can overflow. Its
mantissa is three bits shorter than float16's, and it fails more often; hence both are tried.

float32 is what would be served otherwise: on cards that have it, convolutions in TF32.

python -m service.profiling.precision googlenet --cache-dir DIR ...    prints the choice as JSON
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from models.checkpoints.catalogue import Checkpoint
from service.engines.loader import Loader
from service.profiling.child import parsed, parser
from service.profiling.precision_pictures import VERSION, pictures

#: The half precisions, the one that is chosen if they are level first.
HALVES = ("bfloat16", "float16")
#: The share of pictures on which a half precision must name float32's class.
AGREES = 0.995
#: Precisions whose times differ by less than this share are level: two measurements of one differ as much.
_LEVEL = 0.05
#: Pictures in a forward pass, and how often all pictures are timed: the best time counts.
_BATCH, _ROUNDS = 64, 3


class Answers(NamedTuple):
    """What a network answers in one precision."""

    classes: npt.NDArray[np.int64]
    """(N,): the most probable class of each picture."""
    finite: bool
    """Whether all its probabilities are finite numbers."""
    ms: float
    """Milliseconds for a picture, in batches."""


#: Runs the network in a precision on all pictures. Raises an exception if the device cannot compute in it.
Run: TypeAlias = Callable[[str], Answers]


class Tried(BaseModel):
    """How a half precision did beside float32."""

    model_config = ConfigDict(frozen=True)

    agreement: float = Field(ge=0, le=1)
    """The share of pictures on which its most probable class is float32's; 0 if some numbers are not finite."""
    time_ratio: float = Field(gt=0, allow_inf_nan=False)
    """Its time for a picture over float32's."""

    @property
    def pays(self) -> bool:
        """Whether it may be chosen."""
        return self.agreement >= AGREES and self.time_ratio < 1 - _LEVEL


class Choice(BaseModel):
    """A precision, and why it was chosen."""

    model_config = ConfigDict(frozen=True)

    precision: Literal["float32", "bfloat16", "float16"]
    pictures: int = VERSION
    """The version of the pictures that were answered."""
    count: int
    """How many pictures there were."""
    classes: int
    """How many classes float32 named. If they are few, agreement says little: random weights may name one alone."""
    tried: dict[str, Tried]
    """By precision. One that the device cannot compute in is left out."""

    def __str__(self) -> str:
        """``float16: of 512 pictures (64 classes) bfloat16 names float32's class on 99.2 % in 52 % of its time``."""
        told = [
            f"{name} names float32's class on {100 * t.agreement:.1f} % in {100 * t.time_ratio:.0f} % of its time"
            for name, t in self.tried.items()
        ]
        if not told:
            return f"{self.precision}: the device computes in nothing else"
        return f"{self.precision}: of {self.count} pictures ({self.classes} classes) {', '.join(told)}"


def choose(run: Run) -> Choice:
    """Compares the precisions.

    Args:
        run: runs the network.

    Raises:
        Exception: the network does not run in float32.
    """
    exact = run("float32")
    tried: dict[str, Tried] = {}
    for name in HALVES:
        try:
            found = run(name)
        except (RuntimeError, ValueError):
            continue
        agreement = float(np.mean(found.classes == exact.classes)) if found.finite else 0.0
        tried[name] = Tried(agreement=round(agreement, 6), time_ratio=round(found.ms / exact.ms, 4))
    paying = {name: t.time_ratio for name, t in tried.items() if t.pays}
    fastest = min(paying.values(), default=0.0)
    # In the order of HALVES, which decides where two are level.
    chosen = next((name for name, ratio in paying.items() if ratio <= fastest * (1 + _LEVEL)), "float32")
    named = len(np.unique(exact.classes))
    return Choice.model_validate({"precision": chosen, "count": len(exact.classes), "classes": named, "tried": tried})


def answers(checkpoint: Checkpoint, loader: Loader, crops: npt.NDArray[np.uint8], precision: str) -> Answers:
    """Loads a checkpoint in a precision, runs it on all crops, and frees it again.

    Args:
        checkpoint: a loadable checkpoint.
        loader: loads it; its own precision does not count.
        crops: uint8 (N, side, side, channels).
        precision: ``float32``, ``bfloat16`` or ``float16``.
    """
    size = min(_BATCH, loader.max_batch_size)
    batches = [crops[start : start + size] for start in range(0, len(crops), size)]
    engine = replace(loader, precision=precision)(checkpoint)
    try:
        engine.warm_up(size)
        times = []
        for _ in range(_ROUNDS):
            started = time.perf_counter()
            tops = [engine.run(batch) for batch in batches]
            times.append(time.perf_counter() - started)
    finally:
        engine.close()
    return Answers(
        np.concatenate([top.indices[:, 0] for top in tops]),
        all(bool(np.isfinite(top.probabilities).all()) for top in tops),
        1000 * min(times) / len(crops),
    )


def main(arguments: list[str] | None = None) -> int:
    """Chooses for the checkpoint that the command line names, and prints the choice."""
    checkpoint, loader, _ = parsed(parser("service.profiling.precision"), arguments)
    choice = choose(partial(answers, checkpoint, loader, pictures(checkpoint.preprocess)))
    sys.stdout.write(choice.model_dump_json() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
