"""Which checkpoint answers: a pure function of profiles, load and budget.

The caller says how long the answer may take, how much memory the network may need and how accurate it must be; the
router picks the most accurate checkpoint of one label set that fits, as things stand. What is in the way of the others
is said too. It has no memory: what keeps choices from flapping is the safety factor in the load, which
``forecast.py`` raises when predictions were missed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Literal, NamedTuple

from models.checkpoints import Checkpoint, WeightsMissingError
from service.errors import NoModelFitsError, OverloadedError
from service.schemas import Considered, Routing

Rejection = Literal["latency", "memory", "accuracy", "overloaded", "weights missing"]


class Budget(NamedTuple):
    """What the caller allows."""

    latency_s: float
    """From now on until the answer."""
    memory_bytes: float | None = None
    """For the footprint."""
    min_top1: float | None = None
    """Percent."""
    stated_s: float | None = None
    """What the caller said: until the answer, from the arrival on."""

    def __str__(self) -> str:
        return _ms(self.latency_s if self.stated_s is None else self.stated_s)


class Standing(NamedTuple):
    """What a checkpoint takes, by its profile, and what it has to do now."""

    forward_s: tuple[float, ...]
    """A forward pass by batch size, at the 95th percentile; [0] is unused and the last is the largest batch."""
    decode_s: float
    footprint_bytes: int
    device: str = ""
    """Checkpoints of one device take turns."""
    ahead: int = 0
    """Pictures that wait or are being decoded, and would go before the one that is to be decided on."""
    queued: int = 0
    """All that wait or are being decoded."""
    max_queue: int = 512
    load_s: float = 0.0
    """Until it is in memory, the loads before its own among it; 0 if it is."""
    spread: float = 1.0
    """The 95th percentile of a forward pass over its mean."""
    safety: float = 1.0
    fits: bool = True
    """Whether the device's memory limit has room for it, whatever else is unloaded."""

    @property
    def alone_s(self) -> float:
        """Of one picture with empty queues, the network in memory."""
        return self.decode_s + self.forward_s[1]

    @property
    def per_picture_s(self) -> float:
        """Device time of a picture in the largest batch, on average."""
        return self.mean_s(len(self.forward_s) - 1) / (len(self.forward_s) - 1)

    def batches_s(self, pictures: int) -> float:
        """Device time of so many in batches as large as possible, on average."""
        largest = len(self.forward_s) - 1
        full, rest = divmod(pictures, largest)
        return full * self.mean_s(largest) + self.mean_s(rest)

    @property
    def takes_s(self) -> float:
        """By how much one more picture delays those who go after it."""
        return self.batches_s(self.ahead + 1) - self.batches_s(self.ahead)

    def mean_s(self, batch_size: int) -> float:
        """Of a forward pass: what counts where many follow each other."""
        return self.forward_s[batch_size] / self.spread


class Candidate(NamedTuple):
    """A checkpoint of the label set that is asked for."""

    checkpoint: Checkpoint
    standing: Standing | None
    """None where nothing is known, or nobody is there to serve it."""


class Load(NamedTuple):
    """What the devices have to do now."""

    busy: Mapping[str, float] = MappingProxyType({})
    """Seconds until each is through with the batch that it computes."""
    waiting: Sequence[Standing] = ()
    """Every checkpoint with a queue, of whatever label set: the candidates' own objects, where they are among them."""
    slack_s: Mapping[str, float] = MappingProxyType({})
    """By how much those may be delayed, on each device, who were let in and would go after the picture."""


class Decision(NamedTuple):
    """The checkpoint to ask, and why."""

    checkpoint: Checkpoint
    routing: Routing | None = None
    predicted_s: float | None = None
    """From the decision until the answer."""
    standing: Standing | None = None


class _Fit(NamedTuple):
    candidate: Candidate
    rejected: Rejection | None
    predicted_s: float | None


def choose(
    candidates: Sequence[Candidate], budget: Budget, load: Load | None = None, *, named: bool = False
) -> Decision:
    """Picks the checkpoint with the highest top-1 accuracy whose predicted time and footprint are within the budget
    and whose accuracy is at least ``min_top1``; of equals the faster, then the smaller.

    Args:
        candidates: the checkpoints of one label set, or the one that was named.
        budget: what the caller allows.
        load: what the devices have to do.
        named: the caller named the one candidate, whose accuracy needs not be known then.

    Raises:
        WeightsMissingError: none of the candidates is loadable.
        NoModelFitsError: the budget could not be met with empty queues either.
        OverloadedError: it could, but not now.
    """
    predict = _Predictor(load or Load())
    fits = [_judge(candidate, budget, predict, named) for candidate in candidates]
    fitting = [fit for fit in fits if fit.rejected is None]
    if not fitting:
        _refuse(fits, budget)
    best = min(fitting, key=_rank)
    checkpoint, predicted_s = best.candidate.checkpoint, best.predicted_s
    assert predicted_s is not None
    if named:
        reason = f"named, and within the budget: {_ms(predicted_s)} predicted"
    else:
        reason = f"highest top-1 ({checkpoint.top1:g} %) of the {len(fitting)} that fit, {_ms(predicted_s)} predicted"
    routing = Routing(reason=reason, predicted_ms=round(predicted_s * 1000, 3), considered=considered(fits))
    return Decision(checkpoint, routing, predicted_s)


def default_label_set(checkpoints: Iterable[Checkpoint]) -> str:
    """Where the caller names neither model nor label set: imagenet1k if any such checkpoint is loadable, else cifar10;
    mnist only when asked for, since nobody who posts a photograph wants to know which digit it is."""
    loadable = {c.labels for c in checkpoints if c.state == "loadable"}
    return "cifar10" if "imagenet1k" not in loadable and "cifar10" in loadable else "imagenet1k"


def considered(fits: Iterable[_Fit]) -> list[Considered]:
    """The ones that were not picked because something is in the way."""
    entries = []
    for (checkpoint, standing), rejected, predicted_s in fits:
        if rejected is not None:
            entries.append(
                Considered(
                    model=checkpoint.variant.name,
                    rejected=rejected,
                    predicted_ms=None if predicted_s is None else round(predicted_s * 1000, 3),
                    footprint_mb=None if standing is None else round(standing.footprint_bytes / 1e6, 1),
                )
            )
    return entries


class _Predictor:
    """Predicts when a picture that arrives now would be answered."""

    def __init__(self, load: Load) -> None:
        self._busy = load.busy
        self._ahead: dict[str, float] = {}
        self._next: dict[str, float] = {}
        for standing in load.waiting:
            device, later = standing.device, min(standing.queued - standing.ahead, len(standing.forward_s) - 1)
            self._ahead[device] = self._ahead.get(device, 0.0) + standing.batches_s(standing.ahead)
            self._next[device] = max(self._next.get(device, 0.0), standing.mean_s(later))
        self._counted = {id(standing) for standing in load.waiting}
        self._slack_s = load.slack_s

    def __call__(self, standing: Standing) -> float:
        """The load of what is not in memory; decoding, or the wait for the device if that is longer: for the batch
        that is being computed and all that goes before, on average; and its own batch at the 95th percentile."""
        forward_s = standing.forward_s
        # Those of its own queue that share its batch are computed with it.
        shared = standing.ahead % (len(forward_s) - 1)
        ahead_s = self._ahead.get(standing.device, 0.0) - standing.mean_s(shared)
        if id(standing) not in self._counted:
            ahead_s += standing.batches_s(standing.ahead)
        wait_s = self._busy.get(standing.device, 0.0) + ahead_s
        if wait_s < standing.decode_s:
            # The device does not wait for it: a batch that should go after it begins while it is being decoded.
            wait_s += self._next.get(standing.device, 0.0)
        return standing.load_s + max(standing.decode_s, wait_s) + forward_s[shared + 1]

    def can_be_spared(self, standing: Standing) -> bool:
        """Whether those who go after it can wait so long."""
        return standing.takes_s <= self._slack_s.get(standing.device, math.inf)


def _judge(candidate: Candidate, budget: Budget, predict: _Predictor, named: bool) -> _Fit:
    checkpoint, standing = candidate
    if checkpoint.state != "loadable":
        return _Fit(candidate, "weights missing", None)
    least = budget.min_top1
    if (checkpoint.top1 is None and not (named and least is None)) or (
        least is not None and checkpoint.top1 is not None and checkpoint.top1 < least
    ):
        return _Fit(candidate, "accuracy", None)
    if standing is None:
        return _Fit(candidate, "overloaded", None)
    predicted_s = predict(standing)
    if not standing.fits or (budget.memory_bytes is not None and standing.footprint_bytes > budget.memory_bytes):
        return _Fit(candidate, "memory", predicted_s)
    if standing.alone_s > budget.latency_s:
        return _Fit(candidate, "latency", standing.alone_s)
    late = predicted_s * standing.safety > budget.latency_s
    if late or standing.queued >= standing.max_queue or not predict.can_be_spared(standing):
        return _Fit(candidate, "overloaded", predicted_s)
    return _Fit(candidate, None, predicted_s)


def _rank(fit: _Fit) -> tuple[float, float, int]:
    standing = fit.candidate.standing
    assert standing is not None
    assert fit.predicted_s is not None
    return -(fit.candidate.checkpoint.top1 or 0.0), fit.predicted_s, standing.footprint_bytes


def _refuse(fits: Sequence[_Fit], budget: Budget) -> None:
    """Raises what says no, and why."""
    loadable = [fit for fit in fits if fit.rejected != "weights missing"]
    if not loadable:
        raise WeightsMissingError(min((f.candidate.checkpoint for f in fits), key=lambda c: c.variant.params))
    late = [fit for fit in fits if fit.rejected == "overloaded"]
    if late:
        waits = [(_room_in(fit, budget), fit) for fit in late]
        retry_after_s, nearest = min(waits, key=lambda pair: pair[0])
        name = nearest.candidate.checkpoint.name
        when = "is not there" if nearest.predicted_s is None else f"would take {_ms(nearest.predicted_s)} now"
        raise OverloadedError(
            f"{name} could answer within {budget}, but {when}",
            retry_after_s,
            considered=considered(fits),
        )
    raise NoModelFitsError(_nearest(loadable, budget), considered(fits))


def _room_in(fit: _Fit, budget: Budget) -> float:
    """Seconds until a checkpoint that is asked for too much could answer in time, if nothing else came."""
    standing = fit.candidate.standing
    if standing is None or fit.predicted_s is None:
        return 1.0
    over_s = fit.predicted_s - budget.latency_s / standing.safety
    # Where only others' slack is in the way, one picture fewer will do.
    return max(
        over_s, standing.takes_s, (standing.queued + 1 - standing.max_queue) * standing.per_picture_s, standing.load_s
    )


def _nearest(fits: Sequence[_Fit], budget: Budget) -> str:
    """In a sentence: what is in the way of all of them, and what comes nearest."""
    accurate = [(f.candidate.checkpoint, f.candidate.standing, f.rejected) for f in fits if f.rejected != "accuracy"]
    if not accurate:
        rated = [f.candidate.checkpoint for f in fits if f.candidate.checkpoint.top1 is not None]
        if not rated:
            return "nothing of these labels has a known accuracy; name one with model=, and without min_top1"
        best = max(rated, key=lambda c: c.top1 or 0.0)
        return f"none reaches top-1 {budget.min_top1:g} %; the nearest is {best.name} with {best.top1:g} %"
    large = [(c, s) for c, s, rejected in accurate if s is not None and rejected == "memory"]
    slow = [(c, s) for c, s, rejected in accurate if s is not None and rejected == "latency"]
    wishes, nearest = [], []
    if slow:
        checkpoint, standing = min(slow, key=lambda pair: pair[1].alone_s)
        wishes.append(f"answers within {budget}, with empty queues either")
        nearest.append(f"the nearest is {checkpoint.name} with {_ms(standing.alone_s)}")
    if large:
        checkpoint, standing = min(large, key=lambda pair: pair[1].footprint_bytes)
        if budget.memory_bytes is not None and standing.footprint_bytes > budget.memory_bytes:
            wishes.append(f"fits into {budget.memory_bytes / 1e6:g} MB")
        else:
            wishes.append("fits into the server's memory limit")
        nearest.append(f"{checkpoint.name}, the smallest, needs {standing.footprint_bytes / 1e6:.0f} MB")
    return f"none {' and '.join(reversed(wishes))}; {'; '.join(nearest)}"


def _ms(seconds: float) -> str:
    milliseconds = seconds * 1000
    return f"{milliseconds:.0f} ms" if milliseconds >= 10 else f"{milliseconds:.3g} ms"
