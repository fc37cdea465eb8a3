"""The choice of a checkpoint against an exhaustive search, and the reasons against the others."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import NamedTuple, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.checkpoints.catalogue import Catalogue, WeightsMissingError
from service.domain.decision import LEAST_SAFETY, Budget, Considered
from service.domain.errors import NoModelFitsError, OverloadedError
from service.domain.snapshot import Candidate, DeviceLoad, Snapshot
from service.routing.choose import choose, default_label_set

ROWS = Catalogue(Path("/nonexistent")).checkpoints()
HERE = Path("weights")
#: Times and factors are binary fractions: sums are exact in whatever order, so that ties are ties.
TICK = 2.0**-10
T = TypeVar("T")


class Situation(NamedTuple):
    candidates: list[Candidate]
    load: DeviceLoad
    budget: Budget


class Digits:
    """Choices out of one drawn number. One draw per candidate is ten times as fast as one per field, and still shrinks:
    0 takes the first of all values."""

    def __init__(self, number: int) -> None:
        self._number = number

    def below(self, bound: int) -> int:
        self._number, digit = divmod(self._number, bound)
        return digit

    def of(self, *values: T) -> T:
        return values[self.below(len(values))]


def snapshot(number: int) -> Snapshot:
    digits = Digits(number)
    forward_s = [0.0, (1 + digits.below(16)) * TICK]
    for _ in range(digits.below(4)):
        forward_s.append(forward_s[-1] + digits.below(8) * TICK)
    queued = digits.of(0, 0, 0, 1, 2, 3, 5, 8)
    return Snapshot(
        tuple(forward_s),
        decode_s=digits.below(12) * TICK,
        footprint_bytes=10 + digits.below(40),
        device=digits.of("", "gpu", "cpu"),
        ahead=digits.below(queued + 1),
        queued=queued,
        max_queue=digits.of(512, 512, 4),
        load_s=digits.of(0, 0, 0, 10) * TICK,
        spread=digits.of(1.0, 2.0),
        fits=digits.below(8) < 7,
        profiled_decode_s=digits.below(8) * TICK,
        profiled_forward_s=digits.of(0, 1, 2, 4, 16) * TICK,
    )


def candidate(number: int) -> Candidate:
    digits = Digits(number)
    row = replace(
        digits.of(*ROWS), top1=digits.of(60.0, 70.0, 80.0, None, 70.5), path=digits.of(HERE, HERE, HERE, None)
    )
    own = None if digits.below(16) == 15 else snapshot(digits.below(2**64))
    return Candidate(row, own, safety=digits.of(1.0, 1.0, 1.25, 2.0), trial=digits.below(2) == 1)


def situation(numbers: list[int], foreign: list[int], number: int) -> Situation:
    digits, candidates = Digits(number), [candidate(n) for n in numbers]
    waiting = [c.snapshot for c in candidates if c.snapshot is not None and c.snapshot.queued]
    budget = Budget(
        (1 + digits.below(64)) * TICK,
        digits.of(None, None, 10 + digits.below(45)),
        digits.of(None, None, 60.0, 70.0, 75.0, 90.0),
    )
    if digits.below(4) == 3:
        # Some of it has passed before the decision.
        budget = budget._replace(stated_s=budget.latency_s + digits.below(16) * TICK)
    busy = {device: digits.of(0, 0, 4, 15) * TICK for device in ("", "gpu")}
    slack_s = {device: digits.of(math.inf, math.inf, digits.below(32) * TICK) for device in ("", "gpu")}
    price = digits.of({}, {}, {device: digits.of(0.0, 1.0, 8.0, 64.0) for device in ("", "gpu")})
    load = DeviceLoad(busy, waiting + [snapshot(n) for n in foreign], slack_s, price=price)
    return Situation(candidates, load, budget)


number = st.integers(0, 2**80 - 1)
situations = st.builds(
    situation, st.lists(number, min_size=1, max_size=6), st.lists(st.integers(0, 2**64 - 1), max_size=2), number
)


def predicted(own: Snapshot, load: DeviceLoad) -> float:
    """Seconds until the answer, batch by batch as the device would run them; pictures of the same queue that fill the
    picture's own batch run with it."""
    largest = len(own.forward_s) - 1
    waiting = [other for other in load.waiting if other.device == own.device]
    clock_s = load.busy.get(own.device, 0.0)
    for other in waiting:
        left = other.ahead - (own.ahead % largest if other is own else 0)
        while left:
            batch = min(left, len(other.forward_s) - 1)
            clock_s += other.forward_s[batch] / other.spread
            left -= batch
    if clock_s < own.decode_s:
        # The device does not wait for the picture to be decoded.
        later = [(other, min(other.queued - other.ahead, len(other.forward_s) - 1)) for other in waiting]
        clock_s += max((other.forward_s[batch] / other.spread for other, batch in later), default=0.0)
    return own.load_s + max(clock_s, own.decode_s) + own.forward_s[own.ahead % largest + 1]


def delay(own: Snapshot) -> float:
    """How many seconds the picture delays those behind it."""
    batch = own.ahead % (len(own.forward_s) - 1)
    return (own.forward_s[batch + 1] - own.forward_s[batch]) / own.spread


def idle(own: Snapshot, load: DeviceLoad) -> bool:
    """Whether its device has nothing to do."""
    everybody = [own, *(other for other in load.waiting if other.device == own.device)]
    return not any(other.queued for other in everybody) and load.busy.get(own.device, 0.0) == 0


def found(candidate: Candidate, own: Snapshot, load: DeviceLoad, budget: Budget) -> tuple[float, float, int] | None:
    """Accuracy, predicted time and footprint of a candidate that fits now; None for one that does not."""
    checkpoint = candidate.checkpoint
    assert checkpoint.top1 is not None
    if own.queued >= own.max_queue or delay(own) > load.slack_s.get(own.device, math.inf):
        return None
    took_s = predicted(own, load)
    if took_s * candidate.safety > budget.latency_s:
        # Learned times refuse it. On an idle device the profile may admit it on trial.
        profiled_s = own.load_s + own.profiled_decode_s + own.profiled_forward_s
        if not (candidate.trial and idle(own, load)) or profiled_s * LEAST_SAFETY > budget.latency_s:
            return None
        took_s = profiled_s if profiled_s > own.load_s else took_s
    return checkpoint.top1, took_s, own.footprint_bytes


def each_s(own: Snapshot) -> float:
    """The mean device time of a picture in the largest batch."""
    largest = len(own.forward_s) - 1
    return own.forward_s[largest] / own.spread / largest


def worth(candidate: Candidate, case: Situation) -> float:
    """The accuracy less the price of the device time, in points of the largest network's."""
    largest_s = max(each_s(c.snapshot) for c in case.candidates if c.snapshot is not None)
    own = candidate.snapshot
    assert own is not None
    return (candidate.checkpoint.top1 or 0.0) - case.load.price.get(own.device, 0.0) * each_s(own) / largest_s


def possible(candidate: Candidate, budget: Budget) -> bool:
    """Whether a candidate would fit with empty queues. One of which nothing is known counts as possible."""
    checkpoint, own, *_ = candidate
    least, whole_s = budget.min_top1, budget.stated_s or budget.latency_s
    return (
        checkpoint.path is not None
        and checkpoint.top1 is not None
        and (least is None or checkpoint.top1 >= least)
        and (own is None or (own.fits and (own.profiled_decode_s + own.profiled_forward_s) * LEAST_SAFETY <= whole_s))
        and (own is None or budget.memory_bytes is None or own.footprint_bytes <= budget.memory_bytes)
    )


def brute_force(case: Situation) -> type[Exception] | tuple[float, float, int]:
    """The error that must be raised, or else what the best candidate is worth, its predicted time and footprint."""
    candidates, load, budget = case
    if all(c.checkpoint.path is None for c in candidates):
        return WeightsMissingError
    best: tuple[float, float, int] | None = None
    for candidate in (c for c in candidates if possible(c, budget)):
        fit = None if candidate.snapshot is None else found(candidate, candidate.snapshot, load, budget)
        if fit is not None:
            fit = (worth(candidate, case), *fit[1:])
            best = fit if best is None else min(best, fit, key=lambda one: (-one[0], *one[1:]))
    some = any(possible(c, budget) for c in candidates)
    return best or (OverloadedError if some else NoModelFitsError)


def chosen(case: Situation, budget: Budget | None = None) -> type[Exception] | Candidate:
    try:
        decision = choose(case.candidates, budget or case.budget, case.load)
    except (WeightsMissingError, NoModelFitsError, OverloadedError) as error:
        return type(error)
    return next(c for c in case.candidates if c.checkpoint is decision.checkpoint)


def check_the_choice_is_the_best_there_is(case: Situation, _more: int) -> None:
    choice = chosen(case)
    if isinstance(choice, Candidate):
        assert choice.snapshot is not None
        fit = found(choice, choice.snapshot, case.load, case.budget)
        assert fit is not None
        assert (worth(choice, case), *fit[1:]) == brute_force(case)
    else:
        assert choice is brute_force(case)


def check_a_choice_keeps_to_the_budget_and_each_rejection_has_its_cause(case: Situation, _more: int) -> None:
    candidates, load, budget = case
    considered: Sequence[Considered] = ()
    retry_after_s, decision = 1.0, None
    try:
        decision = choose(candidates, budget, load)
    except WeightsMissingError:
        return
    except OverloadedError as error:
        considered, retry_after_s = error.considered, error.retry_after_s
    except NoModelFitsError as error:
        considered = error.considered
    assert retry_after_s > 0
    if decision is not None:
        assert decision.routing is not None
        considered = decision.routing.considered
        choice = next(c for c in candidates if c.checkpoint is decision.checkpoint)
        own = choice.snapshot
        assert own is not None
        assert decision.predicted_s is not None
        assert decision.within_s == budget.latency_s
        if not decision.trial:
            assert decision.predicted_s == predicted(own, load)
            assert decision.predicted_s * choice.safety <= budget.latency_s
        else:
            assert choice.trial
            assert budget.latency_s < predicted(own, load) * choice.safety
        assert own.fits
        assert own.footprint_bytes <= (budget.memory_bytes or own.footprint_bytes)
        assert (decision.checkpoint.top1 or 0.0) >= (budget.min_top1 or 0.0)
        assert own.queued < own.max_queue
    reasons = Counter(entry.rejected for entry in considered)
    assert reasons["weights missing"] == sum(c.checkpoint.path is None for c in candidates)
    assert len(considered) - reasons["overloaded"] == sum(not possible(c, budget) for c in candidates)


def check_a_wider_budget_never_brings_a_worse_choice(case: Situation, more: int) -> None:
    digits = Digits(more)
    budget, longer_s = case.budget, digits.below(32) * TICK
    memory_bytes, least = budget.memory_bytes, budget.min_top1
    wider = budget._replace(
        latency_s=budget.latency_s + longer_s,
        stated_s=None if budget.stated_s is None else budget.stated_s + longer_s,
        memory_bytes=None if memory_bytes is None else digits.of(memory_bytes + digits.below(20), None),
        min_top1=None if least is None else digits.of(least - digits.below(30), None),
    )
    before, after = chosen(case), chosen(case, wider)
    if isinstance(before, Candidate):
        assert isinstance(after, Candidate)
        assert worth(after, case) >= worth(before, case)
    elif before is OverloadedError:
        assert after is not NoModelFitsError


CHECKS = [
    check_the_choice_is_the_best_there_is,
    check_a_choice_keeps_to_the_budget_and_each_rejection_has_its_cause,
    check_a_wider_budget_never_brings_a_worse_choice,
]


@pytest.mark.parametrize(
    ("here", "labels"),
    [
        ([], "imagenet1k"),
        (["mnist"], "imagenet1k"),  # a photograph is not answered with a digit
        (["mnist", "cifar10"], "cifar10"),
        (["cifar10", "imagenet1k"], "imagenet1k"),
    ],
)
def test_the_default_label_set_is_the_largest_with_a_loadable_checkpoint(here: list[str], labels: str) -> None:
    missing = [replace(row, path=None) for row in ROWS]
    rows = [replace(row, labels=found, path=Path("weights")) for row, found in zip(ROWS, here, strict=False)]
    assert default_label_set([*missing, *rows]) == labels


def rated(top1: float | None, own: Snapshot | None, path: Path | None = HERE) -> Candidate:
    return Candidate(replace(ROWS[0], top1=top1, path=path), own)


QUICK = Snapshot((0.0, 0.125), 0.0, 10, profiled_forward_s=0.125)
FULL = QUICK._replace(queued=512)


@pytest.mark.parametrize(
    ("others", "budget", "routed_for", "debt"),
    [
        ([], Budget(1.0), "most accurate", 0.0),
        ([rated(60.0, FULL)], Budget(1.0), "most accurate", 0.0),
        ([rated(80.0, FULL)], Budget(1.0), "overloaded", 10.0),
        ([rated(80.0, FULL), rated(75.0, FULL)], Budget(1.0), "overloaded", 10.0),
        # The load cost 5 points; a faster device would have won 10.
        ([rated(80.0, QUICK._replace(profiled_forward_s=9.0)), rated(75.0, FULL)], Budget(1.0), "latency", 5.0),
        ([rated(80.0, QUICK._replace(footprint_bytes=99))], Budget(1.0, 50.0), "memory", 0.0),
        ([rated(80.0, QUICK._replace(load_s=9.0))], Budget(1.0), "not loaded", 0.0),
        ([rated(80.0, None)], Budget(1.0), "not loaded", 0.0),
        ([rated(80.0, QUICK, None)], Budget(1.0), "most accurate", 0.0),
        ([rated(None, QUICK)], Budget(1.0), "most accurate", 0.0),
    ],
)
def test_metrics_say_what_is_in_the_way_of_a_more_accurate_network(
    others: list[Candidate], budget: Budget, routed_for: str, debt: float
) -> None:
    decision = choose([rated(70.0, QUICK), *others], budget)
    assert (decision.checkpoint.top1, decision.routed_for, decision.accuracy_debt) == (70.0, routed_for, debt)


def test_a_named_network_has_no_accuracy_debt() -> None:
    decision = choose([rated(70.0, QUICK)], Budget(1.0), named=True)
    assert (decision.routed_for, decision.accuracy_debt) == ("named", None)


def test_ties_go_to_the_lower_predicted_time_then_to_the_smaller_footprint() -> None:
    slow, large = QUICK._replace(forward_s=(0.0, 0.25)), QUICK._replace(footprint_bytes=20)
    candidates = [rated(70.0, slow), rated(70.0, large), rated(70.0, QUICK)]
    for number, candidate in enumerate(candidates):
        candidates[number] = candidate._replace(checkpoint=replace(candidate.checkpoint, origin=str(number)))
    assert choose(candidates, Budget(1.0)).checkpoint.origin == "2"
    assert choose(candidates[:2], Budget(1.0)).checkpoint.origin == "1"


def test_exactly_the_limit_fits() -> None:
    """A predicted time of exactly the budget, a footprint of exactly the memory, the least accuracy, the last place."""
    own = QUICK._replace(forward_s=(0.0, 0.5), profiled_forward_s=0.25, queued=3, max_queue=4)
    exactly = Candidate(replace(ROWS[0], top1=70.0, path=HERE), own, safety=2.0)
    assert choose([exactly], Budget(1.0, 10.0, 70.0)).predicted_s == 0.5
    for budget in (Budget(0.999, 10.0, 70.0), Budget(1.0, 9.99, 70.0), Budget(1.0, 10.0, 70.1)):
        with pytest.raises((NoModelFitsError, OverloadedError)):
            choose([exactly], budget)
    with pytest.raises(OverloadedError):
        choose([exactly._replace(snapshot=own._replace(queued=4))], Budget(1.0))
    for slack_s, admitted in ((0.5, True), (0.499, False)):
        load = DeviceLoad(slack_s={"": slack_s})
        if admitted:
            assert choose([exactly], Budget(1.0), load)
        else:
            with pytest.raises(OverloadedError):
                choose([exactly], Budget(1.0), load)


@settings(max_examples=1_000, deadline=None)
@given(case=situations, more=number)
def test_choices_in_a_thousand_situations(case: Situation, more: int) -> None:
    for check in CHECKS:
        check(case, more)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(seed=number)
def test_choices_in_ten_thousand_situations(seed: int) -> None:
    """Fifty at a time, since drawing them one by one takes ten times as long as checking them."""
    random = Random(seed)
    for _ in range(50):
        numbers = [random.getrandbits(80) for _ in range(random.randint(1, 6))]
        foreign = [random.getrandbits(64) for _ in range(random.randint(0, 2))]
        case, more = situation(numbers, foreign, random.getrandbits(80)), random.getrandbits(80)
        for check in CHECKS:
            check(case, more)


def test_while_device_time_is_dear_a_smaller_network_answers_and_the_load_is_told_as_the_reason() -> None:
    """The large one takes 0.5 s for 10 points more, the small one a fifth of it."""
    large = rated(70.0, QUICK._replace(forward_s=(0.0, 0.5)))
    small = Candidate(replace(ROWS[1], top1=60.0, path=HERE), QUICK._replace(forward_s=(0.0, 0.1)))
    for price, accurate in ((0.0, True), (12.4, True), (12.6, False), (1000.0, False)):
        decision = choose([large, small], Budget(1.0), DeviceLoad(price={"": price}))
        assert (decision.checkpoint is large.checkpoint) == accurate
        assert decision.routed_for == ("most accurate" if accurate else "overloaded")
        assert decision.accuracy_debt == (0.0 if accurate else 10.0)
        assert decision.routing is not None
        assert ("while device time is scarce" in decision.routing.reason) != accurate
        told = [(entry.model, entry.rejected) for entry in decision.routing.considered]
        assert told == ([] if accurate else [(large.checkpoint.model, "overloaded")])


def test_another_devices_time_has_its_own_price() -> None:
    large = rated(70.0, QUICK._replace(forward_s=(0.0, 0.5), device="gpu"))
    small = Candidate(replace(ROWS[1], top1=60.0, path=HERE), QUICK._replace(forward_s=(0.0, 0.1)))
    for price, accurate in (({"gpu": 99.0}, False), ({"": 99.0}, True)):
        assert (choose([large, small], Budget(1.0), DeviceLoad(price=price)).checkpoint is large.checkpoint) == accurate


def test_min_top1_holds_whatever_device_time_costs() -> None:
    large = rated(70.0, QUICK._replace(forward_s=(0.0, 0.5)))
    small = Candidate(replace(ROWS[1], top1=60.0, path=HERE), QUICK._replace(forward_s=(0.0, 0.1)))
    decision = choose([large, small], Budget(1.0, min_top1=65.0), DeviceLoad(price={"": 1000.0}))
    assert decision.checkpoint is large.checkpoint


@pytest.mark.parametrize(
    ("price", "min_top1", "spares"),
    [({}, None, False), ({"": 1.0}, None, True), ({"": 1.0}, 65.0, False), ({"": 1000.0}, None, False)],
    ids=["nothing has a price", "the small one would do", "not for this caller", "it answers already"],
)
def test_a_decision_tells_whether_a_smaller_network_would_do(
    price: dict[str, float], min_top1: float | None, spares: bool
) -> None:
    large = rated(70.0, QUICK._replace(forward_s=(0.0, 0.5)))
    small = Candidate(replace(ROWS[1], top1=60.0, path=HERE), QUICK._replace(forward_s=(0.0, 0.1)))
    assert choose([large, small], Budget(1.0, min_top1=min_top1), DeviceLoad(price=price)).spares is spares
