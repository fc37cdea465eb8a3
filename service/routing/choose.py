"""Which checkpoint answers: a pure function of profiles, load and budget.

The caller says how long the answer may take, how much memory the network may need and how accurate it must be; the
router picks the most accurate checkpoint of one label set that fits, as things stand. What is in the way of the others
is said too. It has no memory: what keeps choices from flapping is the safety factor in the load, which
``forecast.py`` raises when predictions were missed.

Predictions hold what was learned under load. Where they alone are in the way of a checkpoint whose device is idle, a
picture is let in on trial: a prediction that keeps everybody away would never be found wrong.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from models.checkpoints.catalogue import Checkpoint
from service.domain.decision import LEAST_SAFETY, Budget, Decision, Fit, Routing, milliseconds
from service.domain.snapshot import Candidate, DeviceLoad, Snapshot
from service.routing.refusal import considered, refuse


def choose(
    candidates: Sequence[Candidate], budget: Budget, load: DeviceLoad | None = None, *, named: bool = False
) -> Decision:
    """Picks the checkpoint with the highest top-1 accuracy whose predicted time and footprint are within the budget
    and whose accuracy is at least ``min_top1``; of equals the faster, then the smaller.

    Args:
        candidates: the checkpoints of one label set, or the one that was named.
        budget: what the caller allows.
        load: what the devices have to do.
        named: the caller named the one candidate, whose accuracy needs not be known then. An ensemble is always named.

    Raises:
        WeightsMissingError: none of the candidates is loadable.
        NoModelFitsError: the profiles forbid it even with empty queues.
        OverloadedError: it could, but not now.
    """
    predict = _Schedule(load or DeviceLoad())
    fits = [_fit(candidate, budget, predict, named) for candidate in candidates]
    fitting = [fit for fit in fits if fit.rejected is None]
    if not fitting:
        refuse(fits, budget)
    best = min(fitting, key=_rank)
    checkpoint, predicted_s = best.candidate.checkpoint, best.predicted_s
    assert predicted_s is not None
    best_of = f"highest top-1 ({checkpoint.top1} %) of the {len(fitting)} that fit"
    why = "named, and within the budget" if named else best_of
    answered_s = budget.gone_s + predicted_s
    reason = f"{why}, {milliseconds(answered_s)} predicted"
    if best.trial:
        reason += " by the profile: on trial, since what was learned under load would refuse it"
    routing = Routing(reason=reason, predicted_ms=round(answered_s * 1000, 3), considered=considered(fits))
    trial_s = budget.latency_s if best.trial else None
    if named:
        return Decision(checkpoint, routing, predicted_s, trial_s=trial_s)
    routed_for, accuracy_debt = _missed(fits, checkpoint.top1 or 0.0)
    return Decision(
        checkpoint, routing, predicted_s, routed_for=routed_for, accuracy_debt=accuracy_debt, trial_s=trial_s
    )


def default_label_set(checkpoints: Iterable[Checkpoint]) -> str:
    """Where the caller names neither model nor label set: imagenet1k if any such checkpoint is loadable, else cifar10;
    mnist only when asked for, since nobody who posts a photograph wants to know which digit it is."""
    loadable = {c.labels for c in checkpoints if c.state == "loadable"}
    return "cifar10" if "imagenet1k" not in loadable and "cifar10" in loadable else "imagenet1k"


class _Schedule:
    """Predicts when a picture that arrives now would be answered."""

    def __init__(self, load: DeviceLoad) -> None:
        self._busy = load.busy
        self._ahead: dict[str, float] = {}
        self._next: dict[str, float] = {}
        for snapshot in load.waiting:
            device, later = snapshot.device, min(snapshot.queued - snapshot.ahead, len(snapshot.forward_s) - 1)
            self._ahead[device] = self._ahead.get(device, 0.0) + snapshot.batches_s(snapshot.ahead)
            self._next[device] = max(self._next.get(device, 0.0), snapshot.mean_s(later))
        self._counted = {id(snapshot) for snapshot in load.waiting}
        self._slack_s = load.slack_s

    def __call__(self, snapshot: Snapshot) -> float:
        """The load of what is not in memory; decoding, or the wait for the device if that is longer: for the batch
        that is being computed and all that goes before, on average; and its own batch at the 95th percentile."""
        if snapshot.members:
            return max(self._in_turn(some) for some in snapshot.by_device.values())
        forward_s = snapshot.forward_s
        # Those of its own queue that share its batch are computed with it.
        shared = snapshot.ahead % (len(forward_s) - 1)
        ahead_s = self._ahead.get(snapshot.device, 0.0) - snapshot.mean_s(shared)
        if id(snapshot) not in self._counted:
            ahead_s += snapshot.batches_s(snapshot.ahead)
        wait_s = self._busy.get(snapshot.device, 0.0) + ahead_s
        if wait_s < snapshot.decode_s:
            # The device does not wait for it: a batch that should go after it begins while it is being decoded.
            wait_s += self._next.get(snapshot.device, 0.0)
        return snapshot.load_s + max(snapshot.decode_s, wait_s) + forward_s[shared + 1]

    def _in_turn(self, members: Sequence[Snapshot]) -> float:
        """The same of an ensemble's members on one device: they wait for what is ahead of them together, and each
        computes a batch of its own after the other."""
        device = members[0].device
        shared = [snapshot.ahead % (len(snapshot.forward_s) - 1) for snapshot in members]
        ahead_s = self._ahead.get(device, 0.0)
        ahead_s -= sum(s.mean_s(n) for s, n in zip(members, shared, strict=True))
        ahead_s += sum(s.batches_s(s.ahead) for s in members if id(s) not in self._counted)
        decode_s, wait_s = max(s.decode_s for s in members), self._busy.get(device, 0.0) + ahead_s
        if wait_s < decode_s:
            wait_s += self._next.get(device, 0.0)
        own_s = sum(s.forward_s[n + 1] for s, n in zip(members, shared, strict=True))
        return sum(s.load_s for s in members) + max(decode_s, wait_s) + own_s

    def idle(self, snapshot: Snapshot) -> bool:
        """Whether nothing is in flight on its devices."""
        devices = snapshot.by_device
        queued = any(self._ahead.get(device) or self._next.get(device) for device in devices)
        return not (snapshot.queued or queued or any(self._busy.get(device) for device in devices))

    def can_be_spared(self, snapshot: Snapshot) -> bool:
        """Whether those who go after it can wait so long."""
        if snapshot.members:
            takes_s = {device: sum(s.takes_s for s in some) for device, some in snapshot.by_device.items()}
            return all(took <= self._slack_s.get(device, math.inf) for device, took in takes_s.items())
        slack_s = self._slack_s.get(snapshot.device, math.inf)
        return slack_s == math.inf or snapshot.takes_s <= slack_s


def _fit(candidate: Candidate, budget: Budget, predict: _Schedule, named: bool) -> Fit:
    checkpoint, snapshot = candidate.checkpoint, candidate.snapshot
    if checkpoint.state != "loadable":
        return Fit(candidate, "weights missing", None)
    least = budget.min_top1
    if (checkpoint.top1 is None and not (named and least is None)) or (
        least is not None and checkpoint.top1 is not None and checkpoint.top1 < least
    ):
        return Fit(candidate, "accuracy", None)
    if snapshot is None:
        return Fit(candidate, "overloaded", None)
    predicted_s = predict(snapshot)
    if not snapshot.fits or (budget.memory_bytes is not None and snapshot.footprint_bytes > budget.memory_bytes):
        return Fit(candidate, "memory", predicted_s)
    # Only what the profile forbids is forbidden for good.
    if snapshot.alone_s * LEAST_SAFETY > budget.whole_s:
        return Fit(candidate, "latency", snapshot.alone_s)
    if snapshot.queued >= snapshot.max_queue or not predict.can_be_spared(snapshot):
        return Fit(candidate, "overloaded", predicted_s)
    if predicted_s * candidate.safety <= budget.latency_s:
        return Fit(candidate, None, predicted_s)
    profiled_s = snapshot.load_s + snapshot.alone_s
    if candidate.trial and predict.idle(snapshot) and profiled_s * LEAST_SAFETY <= budget.latency_s:
        return Fit(candidate, None, profiled_s if snapshot.alone_s else predicted_s, trial=True)
    return Fit(candidate, "overloaded", predicted_s)


def _missed(fits: Sequence[Fit], top1: float) -> tuple[str, float]:
    """What is in the way of the most accurate checkpoint, if that is not the one with this accuracy, and by how much
    queues alone made the choice worse."""
    # Of equals the faster answers, which costs nobody anything; and what nobody put here is in nobody's way.
    better = [
        (fit.candidate.checkpoint.top1 or 0.0, _in_the_way(fit))
        for fit in fits
        if fit.rejected not in (None, "weights missing") and (fit.candidate.checkpoint.top1 or 0.0) > top1
    ]
    if not better:
        return "most accurate", 0.0
    queued = max((accuracy for accuracy, why in better if why == "overloaded"), default=top1)
    return max(better)[1], queued - top1


def _in_the_way(fit: Fit) -> str:
    """For the metrics: what would have to be loaded first, or has nobody to serve it, is not the queue's doing."""
    snapshot = fit.candidate.snapshot
    absent = fit.rejected == "overloaded" and (snapshot is None or snapshot.load_s > 0)
    return "not loaded" if absent else str(fit.rejected)


def _rank(fit: Fit) -> tuple[float, float, int]:
    snapshot = fit.candidate.snapshot
    assert snapshot is not None
    assert fit.predicted_s is not None
    return -(fit.candidate.checkpoint.top1 or 0.0), fit.predicted_s, snapshot.footprint_bytes
