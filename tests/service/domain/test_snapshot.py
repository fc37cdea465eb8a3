"""Snapshots: an ensemble's are made from its members', and predictions for it agree with theirs."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.checkpoints.catalogue import Catalogue
from service.domain.decision import Budget
from service.domain.ensemble import Ensemble
from service.domain.errors import NoModelFitsError
from service.domain.snapshot import Candidate, DeviceLoad, Snapshot, combined
from service.routing.choose import choose

UNTRAINED = Catalogue(untrained=True)
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


def predicted(snapshot: Snapshot, waiting: list[Snapshot], busy_s: float = 0.0) -> float:
    candidate = Candidate(PAIR, snapshot)
    decision = choose([candidate], Budget(1e9), DeviceLoad({"one": busy_s, "two": busy_s}, waiting), named=True)
    assert decision.predicted_s is not None
    return decision.predicted_s


@given(snapshots(), st.booleans(), seconds)
def test_an_ensemble_of_one_takes_what_its_member_takes_alone(member: Snapshot, counted: bool, busy_s: float) -> None:
    """Two functions predict, one for checkpoints and one for ensembles; they agree in every queue."""
    waiting = [member] if counted and member.queued else []
    whole = predicted(combined([member]), waiting, busy_s)
    assert whole == pytest.approx(predicted(member, waiting, busy_s))


@settings(max_examples=40)
@given(st.lists(snapshots(), min_size=2, max_size=4), seconds)
def test_on_one_device_an_ensemble_takes_the_sum_of_its_members(members: list[Snapshot], busy_s: float) -> None:
    free = [member._replace(ahead=0, queued=0) for member in members]
    alone = [predicted(member, []) for member in free]
    whole = combined(free)
    decode_s = max(member.decode_s for member in free)
    assert predicted(whole, []) == pytest.approx(sum(alone) - sum(m.decode_s for m in free) + decode_s)
    assert whole.footprint_bytes == sum(member.footprint_bytes for member in free)
    profiled_decode_s = max(member.profiled_decode_s for member in free)
    assert whole.alone_s == pytest.approx(profiled_decode_s + sum(member.profiled_forward_s for member in free))
    # The queue of the device is waited for once, not once for each member.
    waits = members[0]._replace(ahead=3, queued=3)
    at_once = combined([member._replace(decode_s=0.0) for member in free])
    waited_s = predicted(at_once, [waits], busy_s) - predicted(at_once, [])
    assert waited_s == pytest.approx(busy_s + waits.batches_s(3))


@given(snapshots(st.just("one")), snapshots(st.just("two")))
def test_on_two_devices_an_ensemble_takes_what_the_slower_one_takes(first: Snapshot, second: Snapshot) -> None:
    alone = [predicted(member, []) for member in (first, second)]
    assert predicted(combined([first, second]), []) == pytest.approx(max(alone))


def test_what_rejects_one_member_rejects_the_ensemble() -> None:
    easy = Snapshot((0.0, 0.01), 0.0, 10**6)
    full = easy._replace(queued=512, ahead=0)
    assert combined([easy, full]).queued == combined([full, easy]).max_queue == 512
    assert not combined([easy, easy._replace(fits=False)]).fits


def test_the_accuracy_of_an_ensemble_is_unknown_whatever_its_members_are() -> None:
    members = tuple(replace(member, top1=90.0) for member in PAIR.members)
    candidate = Candidate(Ensemble(members), combined([Snapshot((0.0, 0.01), 0.0, 10**6)] * 2))
    assert choose([candidate], Budget(1.0), named=True).checkpoint is candidate.checkpoint
    with pytest.raises(NoModelFitsError, match="without min_top1"):
        choose([candidate], Budget(1.0, min_top1=10.0), named=True)


def test_the_slack_of_others_is_compared_with_the_sum_of_the_members() -> None:
    member = Snapshot((0.0, 0.3), 0.0, 10**6, "one")
    for devices, slack_s, admitted in (("one", 0.5, False), ("two", 0.5, True), ("two", 0.2, False)):
        whole = combined([member, member._replace(device=devices)])
        load = DeviceLoad(slack_s={"one": 0.5, "two": slack_s})
        if admitted:
            assert choose([Candidate(PAIR, whole)], Budget(10.0), load, named=True)
        else:
            with pytest.raises(Exception, match="could answer"):
                choose([Candidate(PAIR, whole)], Budget(10.0), load, named=True)


#: A forward pass takes 0.3, 0.4 and 0.8 s at the 95th percentile, and half of that on average.
OWN = Snapshot((0.0, 0.3, 0.4, 0.8), 0.1, 10**6, spread=2.0, profiled_decode_s=0.0625, profiled_forward_s=0.25)


def test_queues_take_mean_times_in_the_largest_batches() -> None:
    assert OWN.mean_s(3) == 0.4
    assert OWN.per_picture_s == pytest.approx(0.4 / 3)
    assert [OWN.batches_s(n) for n in (0, 1, 3, 4, 8)] == pytest.approx([0, 0.15, 0.4, 0.55, 1.0])


@pytest.mark.parametrize(("ahead", "takes_s"), [(0, 0.15), (1, 0.05), (2, 0.2), (3, 0.15), (5, 0.2)])
def test_a_picture_delays_those_behind_it_by_what_it_adds_to_its_batch(ahead: int, takes_s: float) -> None:
    assert OWN._replace(ahead=ahead).takes_s == pytest.approx(takes_s)


def test_the_time_alone_is_the_profiles() -> None:
    assert OWN.alone_s == 0.3125
    assert OWN._replace(forward_s=(0.0, 9.0), decode_s=9.0, ahead=9, load_s=9.0).alone_s == 0.3125


def test_what_an_ensemble_takes_of_members_that_differ_in_everything() -> None:
    other = Snapshot(
        (0.0, 0.2, 0.5),
        0.2,
        2 * 10**6,
        ahead=2,
        queued=5,
        max_queue=9,
        load_s=2.0,
        spread=1.25,
        profiled_decode_s=0.125,
        profiled_forward_s=0.5,
    )
    whole = combined([OWN._replace(load_s=1.0, ahead=1, queued=1, max_queue=512), other])
    assert whole.forward_s == pytest.approx((0.0, 0.5, 0.9))  # as many batch sizes as all members have
    assert (whole.decode_s, whole.load_s, whole.footprint_bytes) == (0.2, 3.0, 3 * 10**6)
    assert (whole.ahead, whole.queued, whole.max_queue) == (2, 5, 9)  # the longest wait, and the fullest queue
    # The smaller spread gives the longer mean times.
    assert whole.spread == 1.25
    assert whole.alone_s == 0.125 + 0.75
    apart = combined([OWN._replace(load_s=1.0), other._replace(device="two")])
    assert apart.forward_s == pytest.approx((0.0, 0.3, 0.5))
    assert (apart.load_s, apart.alone_s, apart.footprint_bytes) == (2.0, 0.125 + 0.5, 3 * 10**6)
    assert set(apart.by_device) == {"", "two"}
