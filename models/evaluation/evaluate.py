"""One pass over labelled pictures by several networks, and by all of them together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from models.checkpoints.catalogue import WrongWeightsError
from models.data.errors import DataError
from models.data.sources import Labelled, evenly
from models.evaluation.answers import Answers, answered, joined, probabilities
from models.evaluation.batches import Batch, View, batches, geometry
from models.evaluation.crops import Scheme, crops_in
from models.images.preprocess import Preprocess

#: The name of the result of all networks together.
ENSEMBLE = "ensemble"


@dataclass(frozen=True, slots=True)
class Member:
    """A network that takes part."""

    name: str
    network: nn.Module
    """In eval mode, on the plan's device."""
    preprocess: Preprocess


@dataclass(frozen=True, slots=True)
class Plan:
    """How networks are asked."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    scheme: Scheme = "single"
    limit: int | None = None
    """So many pictures, evenly over all."""
    batch_size: int = 32
    """Crops in one forward pass at most."""
    threads: int | None = None
    """That decode; None for one a core."""
    fail_unreadable: bool = False
    """A picture that cannot be decoded is an error."""


@dataclass(frozen=True, slots=True)
class Result:
    """What one network, or all of them, answered."""

    name: str
    members: tuple[str, ...]
    crops: int
    """Answers that the mean for a picture is made of."""
    answers: Answers


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What came of it."""

    results: list[Result]
    """One a member in their order, and of two or more the ensemble's."""
    unreadable: list[str]
    """Pictures that were left out, each with the reason."""
    absent: list[int]
    """Classes of the label set that the data has no readable picture of."""


@torch.inference_mode()
def evaluate(
    members: Sequence[Member],
    pictures: Labelled,
    classes: int,
    plan: Plan,
    watch: Callable[[int, int], None] = lambda _done, _total: None,
) -> Evaluation:
    """Asks each network about each picture, in float32. The ensemble's probabilities are the mean of its members'
    (Krizhevsky 2012, section 6.1, for seven networks).

    Args:
        members: the networks, all on one label set.
        pictures: a split of a data set.
        classes: how many the label set has.
        plan: which crops, in which batches.
        watch: is told how many pictures are done, and of how many.

    Raises:
        DataError: no picture can be decoded; or, if so planned, one cannot.
        WrongWeightsError: a network has other classes, or answers with what is no number.
    """
    crops = [crops_in(member.preprocess, plan.scheme) for member in members]
    numbers, size = evenly(len(pictures), plan.limit), max(1, plan.batch_size // max(crops))
    seen_as = [member.preprocess for member in members]
    answers: list[list[Answers]] = [[] for _ in range(len(members) + (len(members) > 1))]
    unreadable: dict[int, str] = {}
    done = 0
    for batch in batches(pictures, numbers, seen_as, plan.scheme, size=size, threads=plan.threads):
        for number, reason in batch.unreadable.items():
            unreadable[number] = f"{pictures.source.name(number)}: {reason}"
            if plan.fail_unreadable:
                raise DataError(unreadable[number])
        if len(batch.classes):
            for row, found in zip(answers, _asked(members, batch, classes, plan), strict=True):
                row.append(answered(found, batch.classes))
        done += len(batch.classes) + len(batch.unreadable)
        watch(done, len(numbers))
    if not answers[0]:
        raise DataError("; ".join([f"none of {done:,} pictures can be read", *list(unreadable.values())[:1]]))
    names = tuple(member.name for member in members)
    results = [Result(names[i], (names[i],), crops[i], joined(answers[i])) for i in range(len(members))]
    if len(members) > 1:
        results.append(Result(ENSEMBLE, names, sum(crops), joined(answers[-1])))
    present = np.delete(pictures.classes, list(unreadable)).tolist()
    return Evaluation(results, list(unreadable.values()), sorted(set(range(classes)).difference(present)))


def _asked(members: Sequence[Member], batch: Batch, classes: int, plan: Plan) -> list[torch.Tensor]:
    """Probabilities (N, classes) of each member, and of two or more their mean."""
    shape = len(batch.classes), classes
    # Convolutions in float32 are what is served on a CPU; by default a GPU rounds their factors to ten bits.
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        found = [_averaged(member, batch.views[geometry(member.preprocess)], shape, plan) for member in members]
    return [*found, torch.stack(found).mean(0)] if len(found) > 1 else found


def _averaged(member: Member, view: View, shape: tuple[int, int], plan: Plan) -> torch.Tensor:
    """Probabilities (N, classes), the mean over each picture's crops."""
    total = torch.zeros(shape, device=plan.device)
    crops, weights, owners = (torch.from_numpy(array) for array in view)
    for start in range(0, len(crops), plan.batch_size):
        part = slice(start, start + plan.batch_size)
        found = probabilities(member.network, crops[part].to(plan.device), member.preprocess)
        if found.shape[1] != shape[1]:
            raise WrongWeightsError(f"{member.name} has {found.shape[1]} classes, its label set {shape[1]}")
        total.index_add_(0, owners[part].to(plan.device), found * weights[part, None].to(plan.device))
    if not total.isfinite().all():
        raise WrongWeightsError(f"{member.name} answers with what is no number; its weights are damaged")
    return total
