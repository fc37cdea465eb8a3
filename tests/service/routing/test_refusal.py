"""Refusals: the reasons against each checkpoint, the nearest one, and the time to come back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from models.checkpoints.catalogue import Catalogue, Checkpoint, WeightsMissingError
from models.networks.variants import VARIANTS
from service.domain.decision import Budget
from service.domain.errors import NoModelFitsError, OverloadedError
from service.domain.snapshot import Candidate, DeviceLoad, Snapshot
from service.routing.choose import choose

ROWS = Catalogue(Path("/nonexistent")).checkpoints()
#: Decoding and forward pass take an eighth of a second together.
QUICK = Snapshot(
    (0.0, 0.0625, 0.125),
    decode_s=0.0625,
    footprint_bytes=40_000_000,
    profiled_decode_s=0.0625,
    profiled_forward_s=0.0625,
)
HEAVY = QUICK._replace(forward_s=(0.0, 0.5, 1.0), footprint_bytes=600_000_000, profiled_forward_s=0.5)
#: QUICK after it was under load: everything took four times as long.
LEARNED = QUICK._replace(forward_s=(0.0, 0.25, 0.5), decode_s=0.25)


def network(name: str, top1: float | None, path: Path | None = Path("weights")) -> Checkpoint:
    row = next(row for row in ROWS if row.variant.name == name)
    return replace(row, top1=top1, path=path)


def pair(quick: Snapshot | None = QUICK, heavy: Snapshot | None = HEAVY) -> list[Candidate]:
    return [Candidate(network("googlenet", 67.5), quick), Candidate(network("vgg19", 72.5), heavy)]


def learned(*, trial: bool = True, **changes: Any) -> Candidate:
    """GoogLeNet after it was under load, with the safety factor of missed predictions."""
    return Candidate(network("googlenet", 67.5), LEARNED._replace(**changes), safety=2.0, trial=trial)


def test_a_picture_waits_for_its_own_device_alone_and_is_decoded_meanwhile() -> None:
    own = Snapshot((0.0, 0.25), decode_s=0.5, footprint_bytes=1, device="gpu")
    other = Snapshot((0.0, 0.25, 0.5), decode_s=0.0, footprint_bytes=1, device="gpu", ahead=3, queued=3)
    for load, expected_s in (
        (DeviceLoad(), 0.75),
        (DeviceLoad({"cpu": 9.0}, [other._replace(device="cpu")]), 0.75),
        (DeviceLoad({"gpu": 0.5}), 0.75),
        (DeviceLoad({"gpu": 0.5}, [other]), 1.5),
        (DeviceLoad({"gpu": 0.5}, [own]), 0.75),
    ):
        assert choose([Candidate(network("googlenet", 67.5), own)], Budget(2.0), load).predicted_s == expected_s


def test_each_rejected_checkpoint_is_listed_with_its_reason() -> None:
    candidates = [
        *pair(),
        Candidate(network("vgg16", 71.5), QUICK._replace(footprint_bytes=550_000_000)),
        Candidate(network("alexnet", 55.0), QUICK),
        Candidate(network("inception_v3", 77.5), QUICK._replace(ahead=9, queued=9)),
        Candidate(network("inception_v2", 75.0), None),
        Candidate(network("vgg11", 69.0, None), QUICK),
    ]
    decision = choose(candidates, Budget(0.25, 100e6, 60.0))
    assert decision.checkpoint.variant.name == "googlenet"
    assert decision.predicted_s == 0.125
    assert decision.routing is not None
    assert decision.routing.predicted_ms == 125
    assert "67.5 % of the 1 that fit, 125 ms" in decision.routing.reason.replace("(", "").replace(")", "")
    found = {e.model: (e.rejected, e.predicted_ms, e.footprint_mb) for e in decision.routing.considered}
    assert found == {
        "vgg19": ("memory", 562.5, 600),
        "vgg16": ("memory", 125, 550),
        "alexnet": ("accuracy", None, 40),
        "inception_v3": ("overloaded", 625, 40),
        "inception_v2": ("overloaded", None, None),
        "vgg11": ("weights missing", None, 40),
    }


def test_a_checkpoint_that_is_too_slow_is_listed_with_its_time_on_empty_queues() -> None:
    decision = choose(pair(heavy=HEAVY._replace(ahead=7, queued=7)), Budget(0.25))
    assert decision.routing is not None
    (entry,) = decision.routing.considered
    assert (entry.model, entry.rejected, entry.predicted_ms) == ("vgg19", "latency", 562.5)


def test_the_reasons_name_every_other_checkpoint_of_the_set() -> None:
    rows = [row for row in ROWS if row.labels == "imagenet1k" and row.variant.name != "googlenet"]
    routing = choose([pair()[0], *(Candidate(row, None) for row in rows)], Budget(1.0)).routing
    assert routing is not None
    others = {name for name, row in VARIANTS.items() if row.labels == "imagenet1k"} - {"googlenet"}
    assert {(entry.model, entry.rejected) for entry in routing.considered} == {
        (name, "weights missing") for name in others
    }


@pytest.mark.parametrize(
    ("candidates", "budget", "text"),
    [
        (pair(), Budget(1.0, 39e6), "none fits into 39 MB; googlenet@imagenet1k, the smallest, needs 40 MB"),
        (pair(QUICK._replace(fits=False), HEAVY._replace(fits=False)), Budget(1.0), "the server's memory limit"),
        (pair(), Budget(0.09375), "within 94 ms.*the nearest is googlenet@imagenet1k with 125 ms"),
        (pair(), Budget(1.0, None, 80.0), "reaches top-1 80 %; the nearest is vgg19@imagenet1k with 72.5 %"),
        (pair(), Budget(0.25, None, 70.0), "the nearest is vgg19@imagenet1k with 562 ms"),
        ([Candidate(network("zfnet", None), QUICK)], Budget(1.0), "known accuracy; name one"),
    ],
)
def test_a_refusal_names_the_nearest_checkpoint(candidates: list[Candidate], budget: Budget, text: str) -> None:
    with pytest.raises(NoModelFitsError, match=text) as refused:
        choose(candidates, budget)
    assert len(refused.value.considered) == len(candidates)


@pytest.mark.parametrize(
    ("snapshot", "latency_s", "safety", "drains_s"),
    [
        (QUICK._replace(ahead=8, queued=8), 0.25, 1.0, 0.3125),  # four full batches and its own pass, less the budget
        (QUICK._replace(ahead=8, queued=8), 0.25, 1.25, 0.3625),  # the same, less the budget over the safety factor
        (QUICK._replace(ahead=4, queued=4, max_queue=4), 9.0, 1.0, 0.0625),
        (QUICK._replace(ahead=6, queued=6, max_queue=4), 9.0, 1.0, 0.1875),
        (QUICK._replace(load_s=2.0), 1.0, 1.0, 2.0),
    ],
)
def test_a_refused_caller_is_told_when_there_will_be_room(
    snapshot: Snapshot, latency_s: float, safety: float, drains_s: float
) -> None:
    with pytest.raises(OverloadedError, match="googlenet@imagenet1k could answer within") as refused:
        choose([pair(snapshot)[0]._replace(safety=safety)], Budget(latency_s))
    assert refused.value.retry_after_s == pytest.approx(drains_s)
    assert [entry.rejected for entry in refused.value.considered] == ["overloaded"]


def test_the_time_to_come_back_is_that_of_the_first_checkpoint_with_room() -> None:
    with pytest.raises(OverloadedError, match="googlenet") as refused:
        choose(pair(QUICK._replace(ahead=18, queued=18), HEAVY._replace(ahead=18, queued=18)), Budget(0.75))
    assert 0 < refused.value.retry_after_s < 1


def test_a_checkpoint_that_nothing_serves_counts_as_overloaded() -> None:
    with pytest.raises(OverloadedError, match="nothing serves it now") as refused:
        choose(pair(None, None), Budget(1.0))
    assert refused.value.retry_after_s > 0


def test_a_named_checkpoint_needs_no_known_accuracy_but_must_fit_the_budget() -> None:
    unrated = [Candidate(network("zfnet", None), QUICK)]
    decision = choose(unrated, Budget(1.0), named=True)
    assert decision.checkpoint is unrated[0].checkpoint
    assert decision.routing is not None
    assert decision.routing.reason == "named, and within the budget, 125 ms predicted"
    for budget in (Budget(0.0625), Budget(1.0, 1e6), Budget(1.0, None, 50.0)):
        with pytest.raises(NoModelFitsError):
            choose(unrated, budget, named=True)


def test_without_any_weights_the_error_names_the_smallest_network() -> None:
    rows = [row for row in ROWS if row.labels == "imagenet1k"]
    with pytest.raises(WeightsMissingError, match="googlenet"):
        choose([Candidate(row, None) for row in rows], Budget(1.0))


def test_only_the_profile_can_rule_a_budget_out_for_good() -> None:
    with pytest.raises(OverloadedError):
        choose([learned(trial=False)], Budget(0.25))
    with pytest.raises(OverloadedError):
        # More than half of the stated time has passed; all of it would be enough.
        choose(pair()[:1], Budget(0.1, stated_s=0.25))
    with pytest.raises(NoModelFitsError, match="the nearest is googlenet@imagenet1k with 125 ms"):
        choose([learned(trial=False)], Budget(0.0625))
    unknown = learned(trial=False, profiled_decode_s=0.0, profiled_forward_s=0.0)
    with pytest.raises(OverloadedError):
        choose([unknown], Budget(0.0625))


@pytest.mark.parametrize(
    ("candidate", "load", "latency_s", "admitted"),
    [
        (learned(), DeviceLoad(), 0.25, True),
        (learned(), DeviceLoad({"other": 9.0}, [HEAVY._replace(device="other", queued=1, ahead=1)]), 0.25, True),
        (learned(trial=False), DeviceLoad(), 0.25, False),
        (learned(), DeviceLoad({"": 0.001}), 0.25, False),  # a batch is on the device
        (
            learned(),
            DeviceLoad(waiting=[HEAVY._replace(queued=1, ahead=1)]),
            0.25,
            False,
        ),  # another network has a queue
        (
            learned(),
            DeviceLoad(waiting=[HEAVY._replace(queued=1)]),
            0.25,
            False,
        ),  # although it would run after the picture
        (learned(queued=1), DeviceLoad(), 0.25, False),  # a picture is on trial already
        (learned(load_s=0.125), DeviceLoad(), 0.25, False),  # it would be late by the profile too
        (learned(load_s=0.125), DeviceLoad(), 0.375, True),
        (learned(), DeviceLoad(slack_s={"": 0.0}), 0.25, False),  # it would make an admitted picture late
    ],
)
def test_a_picture_is_admitted_on_trial_on_an_idle_device_alone(
    candidate: Candidate, load: DeviceLoad, latency_s: float, admitted: bool
) -> None:
    if not admitted:
        with pytest.raises(OverloadedError):
            choose([candidate], Budget(latency_s), load)
        return
    decision = choose([candidate], Budget(latency_s), load)
    assert candidate.snapshot is not None
    assert decision.predicted_s == candidate.snapshot.load_s + 0.125  # the profile's
    assert (decision.within_s, decision.trial) == (latency_s, True)
    assert decision.routing is not None
    assert "on trial" in decision.routing.reason


def test_a_picture_that_fits_by_the_predictions_is_not_on_trial() -> None:
    decision = choose([learned()], Budget(1.0))
    assert (decision.predicted_s, decision.trial) == (0.5, False)


def test_without_a_profile_a_guess_does_not_refuse_a_trial() -> None:
    guessed = learned(profiled_decode_s=0.0, profiled_forward_s=0.0)
    decision = choose([guessed], Budget(0.125))
    assert (decision.predicted_s, decision.within_s, decision.trial) == (0.5, 0.125, True)


@pytest.mark.parametrize(
    ("candidate", "budget", "load", "text"),
    [
        (
            learned(trial=False),
            Budget(0.75),
            DeviceLoad(),
            "within 750 ms, but it would take 500 ms now, which counts as 1000 ms (safety factor 2)",
        ),
        (
            learned(trial=False),
            Budget(0.75, stated_s=1.0),
            DeviceLoad(),
            "within 1000 ms, but it would take 750 ms now, which counts as 1250 ms (safety factor 2)",
        ),
        (
            pair(QUICK._replace(queued=4, max_queue=4))[0],
            Budget(1.0),
            DeviceLoad(),
            "but its queue is full: 4 pictures wait, and the limit is 4",
        ),
        (
            pair()[0],
            Budget(1.0),
            DeviceLoad(slack_s={"": 0.0}),
            "but it would make pictures late that were admitted before",
        ),
    ],
)
def test_a_refusal_says_the_number_that_decides(
    candidate: Candidate, budget: Budget, load: DeviceLoad, text: str
) -> None:
    with pytest.raises(OverloadedError) as refused:
        choose([candidate], budget, load)
    assert text in str(refused.value)


def test_the_reason_and_the_answer_have_the_same_time() -> None:
    routing = choose(pair()[:1], Budget(0.75, stated_s=1.0)).routing
    assert routing is not None
    assert routing.predicted_ms == 375  # a quarter of a second has passed
    assert routing.reason.endswith("375 ms predicted")


def test_a_network_that_is_just_too_slow_is_refused_with_the_safety_factor() -> None:
    with pytest.raises(NoModelFitsError, match=r"with 125 ms, which counts as 138 ms \(safety factor 1.1\)"):
        choose(pair()[:1], Budget(0.13))


def test_a_network_that_is_just_too_slow_is_not_called_overloaded() -> None:
    """An idle service must not tell a caller to come back again and again."""
    candidates = [pair()[0]._replace(safety=1.1)]
    with pytest.raises(NoModelFitsError):
        choose(candidates, Budget(QUICK.alone_s * 1.05))
    assert choose(candidates, Budget(QUICK.alone_s * 1.15)).predicted_s == QUICK.alone_s


@pytest.mark.parametrize(("later", "batch_s"), [(1, 0.25), (2, 0.5), (9, 0.5)])
def test_a_batch_with_a_later_deadline_may_begin_while_the_picture_is_decoded(later: int, batch_s: float) -> None:
    own = Snapshot((0.0, 0.25), decode_s=0.125, footprint_bytes=1)
    # The later pictures fill a batch of two at most.
    other = Snapshot((0.0, 0.25, 0.5), decode_s=0.0, footprint_bytes=1, queued=later)
    decision = choose([Candidate(network("googlenet", 67.5), own)], Budget(2.0), DeviceLoad(waiting=[other]))
    assert decision.predicted_s == batch_s + 0.25
    ahead = other._replace(ahead=1, queued=1 + later, forward_s=(0.0, 0.0625, 0.5))
    decision = choose([Candidate(network("googlenet", 67.5), own)], Budget(2.0), DeviceLoad(waiting=[ahead]))
    assert decision.predicted_s == 0.0625 + (0.0625 if later == 1 else 0.5) + 0.25


def test_a_trial_may_take_what_is_left_of_the_budget() -> None:
    decision = choose([learned()], Budget(0.25, stated_s=0.5))
    assert (decision.within_s, decision.trial) == (0.25, True)
