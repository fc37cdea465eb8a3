"""Refusals: the error that a refused caller gets, with the reason against each checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NoReturn

from models.checkpoints.catalogue import Checkpoint, WeightsMissingError
from service.domain.decision import LEAST_SAFETY, Budget, Considered, Fit, milliseconds
from service.domain.ensemble import Ensemble
from service.domain.errors import NoModelFitsError, OverloadedError


def considered(fits: Iterable[Fit]) -> list[Considered]:
    """The checkpoints that were not picked because something is in the way."""
    entries = []
    for fit in fits:
        checkpoint, snapshot = fit.candidate.checkpoint, fit.candidate.snapshot
        if fit.rejected is not None:
            entries.append(
                Considered(
                    model=checkpoint.model,
                    rejected=fit.rejected,
                    predicted_ms=None if fit.predicted_s is None else round(fit.predicted_s * 1000, 3),
                    footprint_mb=None if snapshot is None else round(snapshot.footprint_bytes / 1e6, 1),
                )
            )
    return entries


def refuse(fits: Sequence[Fit], budget: Budget) -> NoReturn:
    """Raises the error that says why no candidate fits.

    Args:
        fits: how each candidate does under the budget; none fits.
        budget: the limits set by the caller.

    Raises:
        WeightsMissingError: none of the candidates is loadable.
        OverloadedError: a candidate would fit with empty queues; its time to come back is the earliest of theirs.
        NoModelFitsError: no candidate would.
    """
    loadable = [fit for fit in fits if fit.rejected != "weights missing"]
    if not loadable:
        missing = [fit.candidate.checkpoint for fit in fits if isinstance(fit.candidate.checkpoint, Checkpoint)]
        raise WeightsMissingError(min(missing, key=lambda checkpoint: checkpoint.costs.params))
    late = [fit for fit in fits if fit.rejected == "overloaded"]
    if late:
        waits = [(_room_in(fit, budget), fit) for fit in late]
        retry_after_s, nearest = min(waits, key=lambda pair: pair[0])
        name = nearest.candidate.checkpoint.name
        raise OverloadedError(
            f"{name} could answer within {budget}, but {_in_the_way(nearest, budget)}",
            retry_after_s,
            considered=considered(fits),
        )
    raise NoModelFitsError(_nearest(loadable, budget), considered(fits))


def _in_the_way(fit: Fit, budget: Budget) -> str:
    """Why the checkpoint cannot answer in time now, with the number that decides."""
    snapshot = fit.candidate.snapshot
    if snapshot is None or fit.predicted_s is None:
        return "nothing serves it now"
    if snapshot.queued >= snapshot.max_queue:
        return f"its queue is full: {snapshot.queued} pictures wait, and the limit is {snapshot.max_queue}"
    counted_s = budget.gone_s + fit.predicted_s * fit.candidate.safety
    if counted_s <= budget.whole_s:
        return "it would make pictures late that were admitted before"
    taken = milliseconds(budget.gone_s + fit.predicted_s)
    counted = milliseconds(counted_s)
    return f"it would take {taken} now, which counts as {counted} (safety factor {fit.candidate.safety:.3g})"


def _room_in(fit: Fit, budget: Budget) -> float:
    """Seconds until an overloaded checkpoint could answer in time, if no other picture arrived."""
    snapshot = fit.candidate.snapshot
    if snapshot is None or fit.predicted_s is None:
        return 1.0
    over_s = fit.predicted_s - budget.latency_s / fit.candidate.safety
    # Where only the slack of other pictures is in the way, one picture less is enough.
    return max(
        over_s, snapshot.takes_s, (snapshot.queued + 1 - snapshot.max_queue) * snapshot.per_picture_s, snapshot.load_s
    )


def _nearest(fits: Sequence[Fit], budget: Budget) -> str:
    """A sentence that gives the reasons against all candidates, and the one that comes nearest."""
    accurate = [(f.candidate.checkpoint, f.candidate.snapshot, f.rejected) for f in fits if f.rejected != "accuracy"]
    if not accurate:
        rated = [f.candidate.checkpoint for f in fits if f.candidate.checkpoint.top1 is not None]
        if isinstance(fits[0].candidate.checkpoint, Ensemble) and not rated:
            return "nobody measured how accurate an ensemble is; name it without min_top1"
        if not rated:
            return "no network of this label set has a known accuracy; name one with model=, and without min_top1"
        best = max(rated, key=lambda c: c.top1 or 0.0)
        return f"none reaches top-1 {budget.min_top1:g} %; the nearest is {best.name} with {best.top1:g} %"
    large = [(c, s) for c, s, rejected in accurate if s is not None and rejected == "memory"]
    slow = [(c, s) for c, s, rejected in accurate if s is not None and rejected == "latency"]
    wishes, nearest = [], []
    if slow:
        checkpoint, snapshot = min(slow, key=lambda pair: pair[1].alone_s)
        wishes.append(f"answers within {budget} even with empty queues")
        said = f"the nearest is {checkpoint.name} with {milliseconds(snapshot.alone_s)}"
        if snapshot.alone_s <= budget.whole_s:
            said += f", which counts as {milliseconds(snapshot.alone_s * LEAST_SAFETY)} (safety factor {LEAST_SAFETY})"
        nearest.append(said)
    if large:
        checkpoint, snapshot = min(large, key=lambda pair: pair[1].footprint_bytes)
        if budget.memory_bytes is not None and snapshot.footprint_bytes > budget.memory_bytes:
            wishes.append(f"fits into {budget.memory_bytes / 1e6:g} MB")
        else:
            wishes.append("fits into the server's memory limit (TOPFIVE_MEMORY_LIMIT_MB)")
        nearest.append(f"{checkpoint.name}, the smallest, needs {snapshot.footprint_bytes / 1e6:.0f} MB")
    return f"none {' and '.join(reversed(wishes))}; {'; '.join(nearest)}"
