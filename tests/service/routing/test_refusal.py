"""What the router says: of what it did not choose, of what comes nearest, and of when to come again."""

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
from service.routing.choose import choose, default_label_set

ROWS = Catalogue(Path("/nonexistent")).checkpoints()
#: Decode and forward pass take an eighth of a second together.
QUICK = Snapshot(
    (0.0, 0.0625, 0.125),
    decode_s=0.0625,
    footprint_bytes=40_000_000,
    profiled_decode_s=0.0625,
    profiled_forward_s=0.0625,
)
HEAVY = QUICK._replace(forward_s=(0.0, 0.5, 1.0), footprint_bytes=600_000_000, profiled_forward_s=0.5)
#: What QUICK is after a load: everything took four times as long, and predictions were missed.
LEARNED = QUICK._replace(forward_s=(0.0, 0.25, 0.5), decode_s=0.25)


def network(name: str, top1: float | None, path: Path | None = Path("weights")) -> Checkpoint:
    row = next(row for row in ROWS if row.variant.name == name)
    return replace(row, top1=top1, path=path)


def pair(quick: Snapshot | None = QUICK, heavy: Snapshot | None = HEAVY) -> list[Candidate]:
    return [Candidate(network("googlenet", 67.5), quick), Candidate(network("vgg19", 72.5), heavy)]


def learned(*, trial: bool = True, **changes: Any) -> Candidate:
    """GoogLeNet after the load, with the safety factor that missed predictions gave it."""
    return Candidate(network("googlenet", 67.5), LEARNED._replace(**changes), safety=2.0, trial=trial)


def test_only_what_is_on_the_same_device_is_waited_for_and_decoding_goes_on_meanwhile() -> None:
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


def test_what_is_too_slow_is_said_with_empty_queues() -> None:
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
def test_a_refusal_names_what_comes_nearest(candidates: list[Candidate], budget: Budget, text: str) -> None:
    with pytest.raises(NoModelFitsError, match=text) as refused:
        choose(candidates, budget)
    assert len(refused.value.considered) == len(candidates)


@pytest.mark.parametrize(
    ("snapshot", "latency_s", "drains_s"),
    [
        (QUICK._replace(ahead=8, queued=8), 0.25, 0.3125),  # four full batches and its own pass, less the budget
        (QUICK._replace(ahead=4, queued=4, max_queue=4), 9.0, 0.0625),
        (QUICK._replace(ahead=6, queued=6, max_queue=4), 9.0, 0.1875),
        (QUICK._replace(load_s=2.0), 1.0, 2.0),
    ],
)
def test_the_refused_are_told_how_long_what_is_in_the_way_takes(
    snapshot: Snapshot, latency_s: float, drains_s: float
) -> None:
    with pytest.raises(OverloadedError, match="googlenet@imagenet1k could answer within") as refused:
        choose(pair(snapshot)[:1], Budget(latency_s))
    assert refused.value.retry_after_s == drains_s
    assert [entry.rejected for entry in refused.value.considered] == ["overloaded"]


def test_the_first_to_have_room_again_tells_when_to_come() -> None:
    with pytest.raises(OverloadedError, match="googlenet") as refused:
        choose(pair(QUICK._replace(ahead=18, queued=18), HEAVY._replace(ahead=18, queued=18)), Budget(0.75))
    assert 0 < refused.value.retry_after_s < 1


def test_a_checkpoint_that_nobody_serves_is_overload() -> None:
    with pytest.raises(OverloadedError, match="is not there") as refused:
        choose(pair(None, None), Budget(1.0))
    assert refused.value.retry_after_s > 0


def test_a_named_checkpoint_needs_no_known_accuracy_but_has_to_keep_to_the_budget() -> None:
    unrated = [Candidate(network("zfnet", None), QUICK)]
    decision = choose(unrated, Budget(1.0), named=True)
    assert decision.checkpoint is unrated[0].checkpoint
    assert decision.routing is not None
    assert decision.routing.reason == "named, and within the budget, 125 ms predicted"
    for budget in (Budget(0.0625), Budget(1.0, 1e6), Budget(1.0, None, 50.0)):
        with pytest.raises(NoModelFitsError):
            choose(unrated, budget, named=True)


def test_without_any_weights_the_smallest_is_what_to_fetch() -> None:
    rows = [row for row in ROWS if row.labels == "imagenet1k"]
    with pytest.raises(WeightsMissingError, match="googlenet"):
        choose([Candidate(row, None) for row in rows], Budget(1.0))


@pytest.mark.parametrize(
    ("here", "labels"),
    [
        ([], "imagenet1k"),
        (["mnist"], "imagenet1k"),  # a photograph must not be answered with a digit
        (["mnist", "cifar10"], "cifar10"),
        (["cifar10", "imagenet1k"], "imagenet1k"),
    ],
)
def test_the_label_set_is_the_largest_of_which_something_is_here(here: list[str], labels: str) -> None:
    missing = [replace(row, path=None) for row in ROWS]
    rows = [replace(row, labels=found, path=Path("weights")) for row, found in zip(ROWS, here, strict=False)]
    assert default_label_set([*missing, *rows]) == labels


def test_never_is_said_only_of_what_the_profile_forbids() -> None:
    with pytest.raises(OverloadedError):
        choose([learned(trial=False)], Budget(0.25))
    with pytest.raises(OverloadedError):
        # Half of the time that was stated has passed; all of it would do.
        choose(pair()[:1], Budget(0.1, stated_s=0.25))
    with pytest.raises(NoModelFitsError, match="the nearest is googlenet@imagenet1k with 125 ms"):
        choose([learned(trial=False)], Budget(0.0625))
    unknown = learned(trial=False, profiled_decode_s=0.0, profiled_forward_s=0.0)
    with pytest.raises(OverloadedError):
        choose([unknown], Budget(0.0625))


@pytest.mark.parametrize(
    ("candidate", "load", "latency_s", "let_in"),
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
        ),  # though it would go after the picture
        (learned(queued=1), DeviceLoad(), 0.25, False),  # one is being tried already
        (learned(load_s=0.125), DeviceLoad(), 0.25, False),  # by its profile it would be late too
        (learned(load_s=0.125), DeviceLoad(), 0.375, True),
        (learned(), DeviceLoad(slack_s={"": 0.0}), 0.25, False),  # somebody else would be late for it
    ],
)
def test_on_an_idle_device_a_picture_is_let_in_on_trial_against_what_was_learned(
    candidate: Candidate, load: DeviceLoad, latency_s: float, let_in: bool
) -> None:
    if not let_in:
        with pytest.raises(OverloadedError):
            choose([candidate], Budget(latency_s), load)
        return
    decision = choose([candidate], Budget(latency_s), load)
    assert candidate.snapshot is not None
    assert decision.predicted_s == candidate.snapshot.load_s + 0.125  # the profile's
    assert decision.trial_s == latency_s
    assert decision.routing is not None
    assert "on trial" in decision.routing.reason


def test_who_fits_by_the_predictions_is_not_on_trial() -> None:
    decision = choose([learned()], Budget(1.0))
    assert (decision.predicted_s, decision.trial_s) == (0.5, None)


def test_without_a_profile_the_guess_keeps_nobody_away_from_an_idle_device() -> None:
    guessed = learned(profiled_decode_s=0.0, profiled_forward_s=0.0)
    decision = choose([guessed], Budget(0.125))
    assert (decision.predicted_s, decision.trial_s) == (0.5, 0.125)


@pytest.mark.parametrize(
    ("candidate", "budget", "load", "text"),
    [
        (
            learned(trial=False),
            Budget(0.75),
            DeviceLoad(),
            "within 750 ms, but would take 500 ms now, which counts as 1000 ms (safety factor 2)",
        ),
        (
            learned(trial=False),
            Budget(0.75, stated_s=1.0),
            DeviceLoad(),
            "within 1000 ms, but would take 750 ms now, which counts as 1250 ms (safety factor 2)",
        ),
        (
            pair(QUICK._replace(queued=4, max_queue=4))[0],
            Budget(1.0),
            DeviceLoad(),
            "but 4 pictures wait for it, and no more than 4 may",
        ),
        (pair()[0], Budget(1.0), DeviceLoad(slack_s={"": 0.0}), "but would keep pictures from being answered in time"),
    ],
)
def test_a_refusal_says_the_number_that_decided(
    candidate: Candidate, budget: Budget, load: DeviceLoad, text: str
) -> None:
    with pytest.raises(OverloadedError) as refused:
        choose([candidate], budget, load)
    assert text in str(refused.value)


def test_the_reason_says_what_the_answer_says() -> None:
    routing = choose(pair()[:1], Budget(0.75, stated_s=1.0)).routing
    assert routing is not None
    assert routing.predicted_ms == 375  # a quarter of a second has passed
    assert routing.reason.endswith("375 ms predicted")


def test_what_is_only_just_too_slow_says_the_safety_factor() -> None:
    with pytest.raises(NoModelFitsError, match=r"with 125 ms, which counts as 138 ms \(safety factor 1.1\)"):
        choose(pair()[:1], Budget(0.13))


def test_what_is_only_just_too_slow_is_no_matter_of_now() -> None:
    """An idle service must not send a caller away again and again."""
    candidates = [pair()[0]._replace(safety=1.1)]
    with pytest.raises(NoModelFitsError):
        choose(candidates, Budget(QUICK.alone_s * 1.05))
    assert choose(candidates, Budget(QUICK.alone_s * 1.15)).predicted_s == QUICK.alone_s
