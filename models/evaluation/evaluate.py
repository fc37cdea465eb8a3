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
    """A network that is evaluated."""

    name: str
    network: nn.Module
    """In eval mode, on the device of the plan."""
    preprocess: Preprocess


@dataclass(frozen=True, slots=True)
class Plan:
    """The options of an evaluation."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    scheme: Scheme = "single"
    limit: int | None = None
    """The number of pictures used, evenly spaced; None: all."""
    batch_size: int = 32
    """How many crops are in one forward pass at most."""
    threads: int | None = None
    """The number of threads that decode; None: one per core."""
    fail_unreadable: bool = False
    """Whether a picture that cannot be decoded is an error; otherwise it is left out."""


@dataclass(frozen=True, slots=True)
class Result:
    """The answers of one network, or of the ensemble of all."""

    name: str
    members: tuple[str, ...]
    crops: int
    """Crops averaged for each picture's answer, over all members."""
    answers: Answers


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The outcome of an evaluation."""

    results: list[Result]
    """One for each member, in their order; and, of two members or more, one for the ensemble."""
    unreadable: list[str]
    """The names of the pictures that were left out, each with the reason."""
    absent: list[int]
    """The numbers of the classes without a readable picture."""


@torch.inference_mode()
def evaluate(
    members: Sequence[Member],
    pictures: Labelled,
    classes: int,
    plan: Plan,
    watch: Callable[[int, int], None] = lambda _done, _total: None,
) -> Evaluation:
    """Runs each network on each picture, in float32. The ensemble's probabilities are the mean of its members'
    (Krizhevsky 2012, section 6.1, for seven networks).

    Args:
        members: the networks, all on one label set.
        pictures: a split of a data set.
        classes: the number of classes of the label set.
        plan: the options.
        watch: called with the number of pictures done so far, and of all.

    Raises:
        DataError: no picture can be decoded; or ``plan.fail_unreadable`` is set and one cannot; or torchvision, which
            cuts 10 and 144 crops, is not installed.
        WrongWeightsError: a network has another number of classes, or its answers are not numbers.
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
    """The probabilities (N, classes) of each member, followed by their mean if there are two members or more."""
    shape = len(batch.classes), classes
    # A CPU serves convolutions in float32; a GPU would by default round inputs to a 10-bit mantissa (TF32).
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        found = [_averaged(member, batch.views[geometry(member.preprocess)], shape, plan) for member in members]
    return [*found, torch.stack(found).mean(0)] if len(found) > 1 else found


def _averaged(member: Member, view: View, shape: tuple[int, int], plan: Plan) -> torch.Tensor:
    """A member's probabilities (N, classes), the mean over each picture's crops."""
    total = torch.zeros(shape, device=plan.device)
    crops, weights, owners = (torch.from_numpy(array) for array in view)
    for start in range(0, len(crops), plan.batch_size):
        part = slice(start, start + plan.batch_size)
        found = probabilities(member.network, crops[part].to(plan.device), member.preprocess)
        if found.shape[1] != shape[1]:
            raise WrongWeightsError(f"{member.name} has {found.shape[1]} classes, its label set {shape[1]}")
        total.index_add_(0, owners[part].to(plan.device), found * weights[part, None].to(plan.device))
    if not total.isfinite().all():
        raise WrongWeightsError(f"{member.name} answers with values that are not numbers; its weights are damaged")
    return total
