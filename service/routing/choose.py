"""Which checkpoint answers: a pure function of snapshots, load and budget.

A budget says how long the answer may take, how much memory the network may need and how accurate it must be. The most
accurate checkpoint of one label set that fits answers, and the reasons against the others are listed. The function has
no memory. What was learned is given to it: each candidate's safety factor (``safety.py``), the price of device time
(``pressure.py``), and the last choice, which only a clearly better one replaces (``last_choices.py``).

Predictions include corrections learned under load. If only these rule out a checkpoint whose device is idle, a picture
is admitted on trial: a prediction that refuses every picture would never be corrected.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from models.checkpoints.catalogue import Checkpoint
from service.domain.decision import LEAST_SAFETY, Budget, Decision, Fit, Routing, milliseconds
from service.domain.ensemble import Ensemble
from service.domain.snapshot import Candidate, DeviceLoad, LastChoice, Snapshot
from service.routing.refusal import considered, refuse

#: What is to replace the last choice has to fit if it takes this many times as long; or it takes that much less than
#: when it was refused. Forecasts that jitter by 5 % either way differ by less.
_CLEARLY = 1.12


def choose(
    candidates: Sequence[Candidate], budget: Budget, load: DeviceLoad | None = None, *, named: bool = False
) -> Decision:
    """Picks the checkpoint with the highest top-1 accuracy whose predicted time and footprint are within the budget
    and whose accuracy is at least ``min_top1``. Ties: the lower predicted time, then the smaller footprint. While the
    last choice fits, another has to fit by a margin.

    Args:
        candidates: the checkpoints of one label set, or the one candidate that the caller named.
        budget: the limits set by the caller.
        load: the work that the devices have now.
        named: whether the caller named the one candidate; its accuracy need not be known then.

    Raises:
        WeightsMissingError: none of the candidates is loadable.
        NoModelFitsError: no candidate fits the budget, even with empty queues.
        OverloadedError: a candidate could fit, but not now.
    """
    queues = DeviceQueues(load or DeviceLoad())
    whole_s = budget.whole_s
    fits = [_fit(candidate, budget, whole_s, queues, named) for candidate in candidates]
    fitting = [fit for fit in fits if fit.rejected is None]
    if not fitting:
        refuse(fits, budget)
    rank = _ranking(candidates, queues.price)
    steady: Sequence[Fit] = fitting
    best = min(fitting, key=rank)
    if load is not None and load.last is not None and best.candidate.checkpoint.name != load.last.name:
        steady = _steady(fitting, load.last, budget.latency_s, queues)
        best = min(steady, key=rank)
    checkpoint, predicted_s = best.candidate.checkpoint, best.predicted_s
    assert predicted_s is not None
    best_of = f"highest top-1 ({checkpoint.top1} %) of the {len(fitting)} that fit"
    if queues.price and any(_more_accurate(fit, checkpoint) for fit in steady):
        fits = [fit._replace(rejected="overloaded") if _more_accurate(fit, checkpoint) else fit for fit in fits]
        best_of = f"{checkpoint.top1} % top-1, of the {len(fitting)} that fit, while device time is scarce"
    elif steady is not fitting and any(_more_accurate(fit, checkpoint) for fit in fitting):
        best_of = f"answered this budget before ({checkpoint.top1} %), and none better fits by a margin"
    why = "named, and within the budget" if named else best_of
    answered_s = budget.gone_s + predicted_s
    reason = f"{why}, {milliseconds(answered_s)} predicted"
    if best.trial:
        reason += " by the profile (on trial: times that were learned under load would refuse it)"
    routing = Routing(reason=reason, predicted_ms=round(answered_s * 1000, 3), considered=considered(fits))
    decision = Decision(checkpoint, routing, predicted_s, within_s=budget.latency_s, trial=best.trial)
    if named:
        return decision
    routed_for, accuracy_debt = _better(fits, checkpoint.top1 or 0.0)
    spares = bool(queues.price) and _less_would_do(best, fits)
    return decision._replace(routed_for=routed_for, accuracy_debt=accuracy_debt, spares=spares)


def default_label_set(checkpoints: Iterable[Checkpoint]) -> str:
    """The label set for a query that names neither model nor labels: imagenet1k if such a checkpoint is loadable, else
    cifar10 if one is. Never mnist: its digits do not fit photographs."""
    loadable = {c.labels for c in checkpoints if c.state == "loadable"}
    return "cifar10" if "imagenet1k" not in loadable and "cifar10" in loadable else "imagenet1k"


class DeviceQueues:
    """The queues of all devices, and when a picture that joins them now would be answered."""

    def __init__(self, load: DeviceLoad) -> None:
        self.busy = load.busy
        self.ahead: dict[str, float] = {}
        """Mean seconds of all pictures ahead of this one, by device."""
        self.next: dict[str, float] = {}
        """Mean seconds of the longest batch that may begin while this picture is being decoded, by device."""
        for snapshot in load.waiting:
            device, later = snapshot.device, min(snapshot.queued - snapshot.ahead, len(snapshot.forward_s) - 1)
            self.ahead[device] = self.ahead.get(device, 0.0) + snapshot.batches_s(snapshot.ahead)
            self.next[device] = max(self.next.get(device, 0.0), snapshot.mean_s(later))
        self.counted = {id(snapshot) for snapshot in load.waiting}
        self._slack_s = load.slack_s
        self.price = load.price

    def predicted_s(self, snapshot: Snapshot) -> float:
        """Seconds until the answer. The sum of three times: loading what is not in memory; max(decoding, wait for
        the device); and the picture's own batch at the 95th percentile. The wait is for the batch that
        is being computed and for all pictures ahead, at their means."""
        forward_s, decode_s, device, ahead = snapshot.forward_s, snapshot.decode_s, snapshot.device, snapshot.ahead
        ahead_s, shared = self.ahead.get(device, 0.0), 0
        if ahead:
            # Pictures of the same queue that share its batch are computed with it.
            shared = ahead % (len(forward_s) - 1)
            ahead_s -= snapshot.mean_s(shared)
            if id(snapshot) not in self.counted:
                ahead_s += snapshot.batches_s(ahead)
        wait_s = self.busy.get(device, 0.0) + ahead_s
        if wait_s < decode_s:
            # The device does not wait for the decoding: a batch with a later deadline may begin meanwhile.
            wait_s += self.next.get(device, 0.0)
        return snapshot.load_s + (decode_s if decode_s > wait_s else wait_s) + forward_s[shared + 1]

    def idle(self, snapshot: Snapshot) -> bool:
        """Whether no picture is in flight on the snapshot's device."""
        device = snapshot.device
        return not (snapshot.queued or self.ahead.get(device) or self.next.get(device) or self.busy.get(device))

    def can_wait(self, snapshot: Snapshot, times: float = 1.0) -> bool:
        """Whether the admitted pictures behind this one have enough slack for it, if it takes so many times as long."""
        slack_s = self._slack_s.get(snapshot.device)
        return slack_s is None or slack_s == math.inf or snapshot.takes_s * times <= slack_s


def _fit(candidate: Candidate, budget: Budget, whole_s: float, queues: DeviceQueues, named: bool) -> Fit:
    checkpoint, snapshot, safety, trial, _ = candidate
    if checkpoint.state != "loadable":
        return Fit(candidate, "weights missing", None)
    top1, least = checkpoint.top1, budget.min_top1
    if top1 is None:
        if least is not None or not named:
            return Fit(candidate, "accuracy", None)
    elif least is not None and top1 < least:
        return Fit(candidate, "accuracy", None)
    if snapshot is None:
        return Fit(candidate, "overloaded", None)
    predicted_s = queues.predicted_s(snapshot)
    if not snapshot.fits or (budget.memory_bytes is not None and snapshot.footprint_bytes > budget.memory_bytes):
        return Fit(candidate, "memory", predicted_s)
    # "latency" means never, so it rests on the profile alone, and not on the load or what was learned.
    if snapshot.alone_s * LEAST_SAFETY > whole_s:
        return Fit(candidate, "latency", snapshot.alone_s)
    if snapshot.queued >= snapshot.max_queue or not queues.can_wait(snapshot):
        return Fit(candidate, "overloaded", predicted_s)
    if predicted_s * safety <= budget.latency_s:
        return Fit(candidate, None, predicted_s)
    profiled_s = snapshot.load_s + snapshot.alone_s
    if trial and queues.idle(snapshot) and profiled_s * LEAST_SAFETY <= budget.latency_s:
        return Fit(candidate, None, profiled_s if snapshot.alone_s else predicted_s, trial=True)
    return Fit(candidate, "overloaded", predicted_s)


def _steady(fitting: Sequence[Fit], last: LastChoice, latency_s: float, queues: DeviceQueues) -> Sequence[Fit]:
    """Those that may answer: where the last choice fits, it and the ones that are better by a margin, or that take less
    by a margin than when they were refused."""
    known = next((fit for fit in fitting if fit.candidate.checkpoint.name == last.name), None)
    if known is None or known.predicted_s is None:
        return fitting
    top1, sooner_s = known.candidate.checkpoint.top1 or 0.0, known.predicted_s / _CLEARLY
    return [known] + [
        fit
        for fit in fitting
        if fit.predicted_s is not None
        and fit.candidate.snapshot is not None
        and (
            fit.predicted_s * _CLEARLY <= last.refused_s.get(fit.candidate.checkpoint.model, math.inf)
            or (
                fit.predicted_s * fit.candidate.safety * _CLEARLY <= latency_s
                and queues.can_wait(fit.candidate.snapshot, _CLEARLY)
            )
        )
        and ((fit.candidate.checkpoint.top1 or 0.0) != top1 or fit.predicted_s <= sooner_s)
    ]


def _better(fits: Sequence[Fit], top1: float) -> tuple[str, float]:
    """Why no checkpoint with a higher accuracy than ``top1`` was picked, and how many percentage points the load cost:
    the labels ``routed_for`` and ``accuracy_debt`` of a decision."""
    # A checkpoint without weights is not counted: the operator did not install it.
    better = [
        (fit.candidate.checkpoint.top1 or 0.0, _in_the_way(fit))
        for fit in fits
        if fit.rejected != "weights missing" and (fit.candidate.checkpoint.top1 or 0.0) > top1
    ]
    if not better:
        return "most accurate", 0.0
    queued = max((accuracy for accuracy, why in better if why == "overloaded"), default=top1)
    return max(better)[1], queued - top1


def _in_the_way(fit: Fit) -> str:
    """The metrics' label for what rejected a checkpoint. One that is not in memory, or that nothing serves, is
    ``not loaded``: queues are not the reason. One that fits, but by no margin, is ``overloaded``."""
    snapshot = fit.candidate.snapshot
    absent = fit.rejected == "overloaded" and (snapshot is None or snapshot.load_s > 0)
    return "not loaded" if absent else fit.rejected or "overloaded"


def _less_would_do(best: Fit, fits: Sequence[Fit]) -> bool:
    """Whether another that the caller's limits allow takes less of a device, by more than jitter."""
    own = best.candidate.snapshot
    return own is not None and any(
        fit.rejected in (None, "overloaded")
        and fit.candidate.snapshot is not None
        and fit.candidate.snapshot.per_picture_s * _CLEARLY < own.per_picture_s
        for fit in fits
    )


def _more_accurate(fit: Fit, checkpoint: Checkpoint | Ensemble) -> bool:
    """Whether one that fits is more accurate than that checkpoint."""
    return fit.rejected is None and (fit.candidate.checkpoint.top1 or 0.0) > (checkpoint.top1 or 0.0)


def _ranking(candidates: Sequence[Candidate], price: Mapping[str, float]) -> Callable[[Fit], tuple[float, float, int]]:
    """Ranks those that fit, the best first: by top-1 less the price of the device time."""
    times = (c.snapshot.per_picture_s for c in candidates if c.snapshot is not None and not c.members)
    largest_s = max(times, default=1.0) if price else 1.0

    def rank(fit: Fit) -> tuple[float, float, int]:
        candidate, _, predicted_s, _ = fit
        snapshot = candidate.snapshot
        assert snapshot is not None
        assert predicted_s is not None
        worth = candidate.checkpoint.top1 or 0.0
        if price:
            worth -= price.get(snapshot.device, 0.0) * snapshot.per_picture_s / largest_s
        return -worth, predicted_s, snapshot.footprint_bytes

    return rank
