"""No model named: which checkpoint answers. A pure function of the catalogue and what the caller asks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from models.checkpoints import Checkpoint, WeightsMissingError
from service.errors import NoModelFitsError
from service.schemas import Considered, Routing


class Decision(NamedTuple):
    """The checkpoint to ask, and why."""

    checkpoint: Checkpoint
    routing: Routing | None


def choose(checkpoints: Sequence[Checkpoint], labels: str | None, min_top1: float | None = None) -> Decision:
    """Picks the checkpoint with the highest top-1 accuracy within one label set; ties go to the fewest parameters.

    Without ``labels``: imagenet1k if any such checkpoint is loadable, else cifar10; mnist only when asked for, since
    nobody who posts a photograph wants to know which digit it is. A checkpoint without a top-1 figure is never
    picked, only named. Accuracies of different label sets are never compared.

    Raises:
        WeightsMissingError: the label set has no loadable checkpoint.
        NoModelFitsError: none reaches ``min_top1``.
    """
    label_set = labels or _default_label_set(checkpoints)
    rows = [c for c in checkpoints if c.labels == label_set]
    considered: list[Considered] = []
    candidates: list[Checkpoint] = []
    for row in rows:
        if row.state != "loadable":
            considered.append(Considered(model=row.variant.name, rejected="weights missing"))
        elif row.top1 is None or (min_top1 is not None and row.top1 < min_top1):
            considered.append(Considered(model=row.variant.name, rejected="accuracy"))
        else:
            candidates.append(row)
    if not candidates:
        _refuse(rows, label_set, min_top1)
    best = min(candidates, key=lambda c: (-(c.top1 or 0.0), c.variant.params))
    reason = f"highest top-1 ({best.top1:g} %) of the {len(candidates)} loadable for {label_set}"
    return Decision(best, Routing(reason=reason, considered=considered))


def _default_label_set(checkpoints: Sequence[Checkpoint]) -> str:
    loadable = {c.labels for c in checkpoints if c.state == "loadable"}
    return "cifar10" if "imagenet1k" not in loadable and "cifar10" in loadable else "imagenet1k"


def _refuse(rows: Sequence[Checkpoint], label_set: str, min_top1: float | None) -> None:
    loadable = [c for c in rows if c.state == "loadable"]
    rated = [c for c in loadable if c.top1 is not None]
    if rated:
        nearest = max(rated, key=lambda c: c.top1 or 0.0)
        raise NoModelFitsError(
            f"no checkpoint for {label_set} reaches top-1 {min_top1:g} %; "
            f"the nearest is {nearest.name} with {nearest.top1:g} %"
        )
    if loadable:
        raise NoModelFitsError(f"no checkpoint for {label_set} has a known accuracy; name one with model=")
    if not rows:
        raise NoModelFitsError(f"there is no checkpoint for {label_set}; GET /models lists what there is")
    raise WeightsMissingError(min(rows, key=lambda c: c.variant.params))
