"""Ensembles as candidates: priced from their members' snapshots, and the pure choice treats them as one checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.checkpoints.accuracies import Accuracy, add_accuracies, weights_of
from models.checkpoints.catalogue import Catalogue, Checkpoint
from service.domain.decision import Budget, Decision
from service.domain.ensemble import Ensemble
from service.domain.errors import NoModelFitsError, OverloadedError
from service.domain.snapshot import Candidate, DeviceLoad, Snapshot
from service.routing.choose import choose
from service.routing.ensembles import device_times, joined, measured, with_ensembles
from service.routing.safety import Safety
from tests.cards import put

UNTRAINED = Catalogue(untrained=True)
ROWS = [row for row in UNTRAINED.checkpoints() if row.labels == "imagenet1k"]
PAIR = Ensemble((UNTRAINED.find("googlenet"), UNTRAINED.find("inception_v2")))

seconds = st.floats(0.0, 10.0)


@st.composite
def snapshots(draw: st.DrawFn, device: st.SearchStrategy[str] = st.just("one")) -> Snapshot:  # noqa: B008
    forward = sorted(draw(st.lists(st.floats(0.001, 10.0), min_size=1, max_size=4)))
    ahead = draw(st.integers(0, 9))
    return Snapshot(
        (0.0, *forward),
        draw(seconds),
        draw(st.integers(1, 10**9)),
        draw(device),
        ahead=ahead,
        queued=ahead + draw(st.integers(0, 3)),
        load_s=draw(st.sampled_from([0.0, 3.0])),
        spread=draw(st.floats(1.0, 2.0)),
        profiled_decode_s=draw(seconds),
        profiled_forward_s=draw(seconds),
    )


def whole(members: Sequence[Snapshot], load: DeviceLoad | None = None) -> tuple[Candidate, DeviceLoad]:
    named = list(zip(ROWS, members, strict=False))
    return joined(Ensemble(tuple(row for row, _ in named)), named, load or DeviceLoad(), [Safety()])


def asked(members: Sequence[Snapshot], load: DeviceLoad | None = None, budget: Budget = Budget(1e9)) -> Decision:  # noqa: B008
    candidate, with_it = whole(members, load)
    return choose([candidate], budget, with_it, named=True)


def predicted(members: Sequence[Snapshot], load: DeviceLoad | None = None) -> float:
    decision = asked(members, load)
    assert decision.predicted_s is not None
    return decision.predicted_s


def alone(member: Snapshot, load: DeviceLoad | None = None) -> float:
    decision = choose([Candidate(ROWS[0], member)], Budget(1e9), load, named=True)
    assert decision.predicted_s is not None
    return decision.predicted_s


@given(snapshots(), snapshots(), st.booleans(), seconds)
def test_an_ensemble_of_one_takes_what_its_member_takes_alone(
    member: Snapshot, other: Snapshot, counted: bool, busy_s: float
) -> None:
    """Two functions predict, one for checkpoints and one for ensembles; they agree in every queue."""
    waiting = [snapshot for snapshot in (member, other) if counted and snapshot.queued]
    load = DeviceLoad({"one": busy_s}, waiting)
    assert predicted([member], load) == pytest.approx(alone(member, load))


@settings(max_examples=40)
@given(st.lists(snapshots(), min_size=2, max_size=4), seconds)
def test_on_one_device_an_ensemble_takes_the_sum_of_its_members(members: list[Snapshot], busy_s: float) -> None:
    free = [member._replace(ahead=0, queued=0) for member in members]
    decode_s = max(member.decode_s for member in free)
    own_s = sum(member.load_s + member.forward_s[1] for member in free)
    assert predicted(free) == pytest.approx(own_s + decode_s)
    candidate, _ = whole(free)
    assert candidate.snapshot is not None
    assert candidate.snapshot.footprint_bytes == sum(member.footprint_bytes for member in free)
    profiled_decode_s = max(member.profiled_decode_s for member in free)
    profiled_s = profiled_decode_s + sum(member.profiled_forward_s for member in free)
    assert candidate.snapshot.alone_s == pytest.approx(profiled_s)
    # The queue of the device is waited for once, not once for each member.
    waits = members[0]._replace(ahead=3, queued=3)
    at_once = [member._replace(decode_s=0.0) for member in free]
    waited_s = predicted(at_once, DeviceLoad({"one": busy_s}, [waits])) - predicted(at_once)
    assert waited_s == pytest.approx(busy_s + waits.batches_s(3))


@given(snapshots(st.just("one")), snapshots(st.just("two")), seconds)
def test_on_two_devices_an_ensemble_takes_what_the_slower_one_takes(
    first: Snapshot, second: Snapshot, busy_s: float
) -> None:
    load = DeviceLoad({"one": busy_s, "two": 1.0}, [member for member in (first, second) if member.queued])
    assert predicted([first, second], load) == pytest.approx(max(alone(first, load), alone(second, load)))


EASY = Snapshot((0.0, 0.01), 0.0, 10**6, "one")


def test_what_rejects_one_member_rejects_the_ensemble() -> None:
    full = EASY._replace(queued=512)
    for members in ([EASY, full], [full, EASY]):
        with pytest.raises(OverloadedError, match="its queue is full: 512"):
            asked(members)
    with pytest.raises(NoModelFitsError, match="memory limit"):
        asked([EASY, EASY._replace(fits=False)])


def test_the_accuracy_of_an_ensemble_is_unknown_until_somebody_measures_it() -> None:
    members = tuple(replace(member, top1=90.0) for member in PAIR.members)
    unknown, load = joined(Ensemble(members), [(m, EASY) for m in members], DeviceLoad(), [Safety()])
    assert choose([unknown], Budget(1.0), load, named=True).checkpoint is unknown.checkpoint
    with pytest.raises(NoModelFitsError, match="without min_top1"):
        choose([unknown], Budget(1.0, min_top1=10.0), load, named=True)


@pytest.mark.parametrize(
    ("device", "slack_s", "admitted"), [("one", 0.5, False), ("two", 0.5, True), ("two", 0.2, False)]
)
def test_the_slack_of_others_is_compared_with_the_sum_of_the_members(
    device: str, slack_s: float, admitted: bool
) -> None:
    member = Snapshot((0.0, 0.3), 0.0, 10**6, "one")
    load = DeviceLoad(slack_s={"one": 0.5, "two": slack_s})
    with nullcontext() if admitted else pytest.raises(OverloadedError, match="admitted before"):
        asked([member, member._replace(device=device)], load, Budget(10.0))


#: A forward pass takes 0.3, 0.4 and 0.8 s at the 95th percentile, and half of that on average.
OWN = Snapshot((0.0, 0.3, 0.4, 0.8), 0.1, 10**6, spread=2.0, profiled_decode_s=0.0625, profiled_forward_s=0.25)
OTHER = Snapshot(
    (0.0, 0.2, 0.5),
    0.2,
    2 * 10**6,
    queued=5,
    max_queue=9,
    load_s=2.0,
    spread=1.25,
    profiled_decode_s=0.125,
    profiled_forward_s=0.5,
)


def test_what_an_ensemble_takes_of_members_that_differ_in_everything() -> None:
    candidate, load = whole([OWN._replace(load_s=1.0, ahead=1, queued=1), OTHER._replace(ahead=2)])
    found = candidate.snapshot
    assert found is not None
    # OWN's picture is the second of its batch, OTHER's the first of its second.
    assert found.forward_s == pytest.approx((0.0, 0.4 + 0.2))
    assert found.mean_s(1) == pytest.approx(0.2 + 0.16)
    # Of the pictures ahead, OWN's one is in the batch, and OTHER's two take 0.5 / 1.25 s.
    assert load.busy[found.device] == pytest.approx(0.4)
    assert (found.decode_s, found.load_s, found.footprint_bytes) == (0.2, 3.0, 3 * 10**6)
    assert (found.queued, found.max_queue, found.alone_s) == (5, 9, 0.125 + 0.75)
    apart, _ = whole([OWN._replace(load_s=1.0), OTHER._replace(device="two")])
    assert apart.snapshot is not None
    # The second device is the slower one.
    assert (apart.snapshot.forward_s, apart.snapshot.load_s) == ((0.0, 0.2), 2.0)
    assert (apart.snapshot.alone_s, apart.snapshot.footprint_bytes) == (0.125 + 0.5, 3 * 10**6)


def test_each_device_is_booked_with_its_own_members() -> None:
    candidate, _ = whole([OWN, OTHER, OWN._replace(device="two")])
    # The mean of a picture in the largest batch: 0.8 / 2 / 3 and 0.5 / 1.25 / 2.
    assert dict(device_times(candidate)) == pytest.approx({"": 0.4 / 3 + 0.2, "two": 0.4 / 3})
    assert dict(device_times(Candidate(ROWS[0], OWN))) == pytest.approx({"": 0.4 / 3})
    assert list(device_times(Candidate(ROWS[0], None))) == []


def test_an_ensemble_is_on_trial_only_on_idle_devices() -> None:
    busy = [(OWN._replace(queued=1), True), (OWN, False)]
    for member, waits in busy:
        load = DeviceLoad(waiting=[member] if waits else [])
        assert [joined(PAIR, [(PAIR.members[0], member), (PAIR.members[1], EASY)], load, [Safety()])[0].trial] == [
            not waits
        ]


def test_the_load_of_others_stays_as_it_was() -> None:
    load = DeviceLoad({"one": 2.0}, [EASY._replace(queued=1)], {"one": 3.0}, {"one": 4.0})
    _, with_it = whole([EASY, EASY], load)
    assert (with_it.busy["one"], with_it.slack_s, with_it.used_s) == (2.0, {"one": 3.0}, {"one": 4.0})
    assert with_it.waiting == load.waiting


def test_a_member_of_which_nothing_is_known_leaves_the_ensemble_unknown() -> None:
    later = replace(PAIR.members[1], origin="imported again")
    pairs: list[tuple[Checkpoint, Snapshot | None]] = [(PAIR.members[0], EASY), (later, None)]
    candidate, load = joined(PAIR, pairs, DeviceLoad(), [Safety()])
    assert (candidate.snapshot, load) == (None, DeviceLoad())
    assert candidate.checkpoint == Ensemble((PAIR.members[0], later))


def test_ensembles_are_candidates_where_all_their_members_are(tmp_path: Path) -> None:
    names = ("googlenet@cifar10", "inception_v2@cifar10")
    weights = tuple(weights_of(name, put(tmp_path, *name.split("@"))) for name in names)
    catalogue = Catalogue(tmp_path)
    assert measured(catalogue, catalogue.checkpoints()) == ()
    told = Accuracy(members=weights, top1=89.0, top5=99.0, pictures=100, measured_at="2026-11-28T12:00:00+00:00")
    add_accuracies(catalogue.accuracies_path, [told])
    members = tuple(catalogue.find(name) for name in names)
    assert measured(catalogue, members) == [Ensemble(members, 89.0)]
    assert measured(catalogue, members[:1]) == []
    assert measured(catalogue, [row for row in catalogue.checkpoints() if row.labels == "imagenet1k"]) == []


def test_members_that_were_not_measured_together_have_no_accuracy() -> None:
    known = Ensemble(PAIR.members, 89.0)
    pairs: list[tuple[Checkpoint, Snapshot | None]] = [(member, EASY) for member in PAIR.members]
    assert joined(known, pairs, DeviceLoad(), [Safety()])[0].checkpoint.top1 == 89.0
    pairs[1] = replace(PAIR.members[1], origin="imported again"), EASY
    assert joined(known, pairs, DeviceLoad(), [Safety()])[0].checkpoint.top1 is None


def test_an_ensemble_pays_for_the_time_of_each_of_its_devices() -> None:
    members = [
        Snapshot((0.0, 0.5, 0.6), 0.0, 1, device="one"),
        Snapshot((0.0, 0.2), 0.0, 1, device="one"),
        Snapshot((0.0, 0.1), 0.0, 1, device="two"),
    ]
    candidate, _ = whole(members)
    own = candidate.snapshot
    assert own is not None
    priced = with_ensembles({"one": 10.0, "two": 3.0}, [candidate])
    assert priced[own.device] * own.per_picture_s == pytest.approx(10 * (0.3 + 0.2) + 3 * 0.1)
    assert {name: priced[name] for name in ("one", "two")} == {"one": 10.0, "two": 3.0}
    assert with_ensembles({}, [candidate]) == {}


def test_while_device_time_is_dear_a_measured_ensemble_gives_way_to_its_member() -> None:
    first, second = (Snapshot((0.0, 0.1), 0.0, 1, profiled_forward_s=0.1) for _ in range(2))
    ensemble, load = whole([first, second])
    ensemble = ensemble._replace(checkpoint=replace(ensemble.checkpoint, top1=80.0))
    single = Candidate(replace(ROWS[0], top1=70.0), first)
    for price, best in ((0.0, 80.0), (9.0, 80.0), (11.0, 70.0)):
        prices = with_ensembles({"": price} if price else {}, [single, ensemble])
        assert choose([single, ensemble], Budget(1e9), load._replace(price=prices)).checkpoint.top1 == best
