"""Which checkpoints an ensemble is made of, and how it stands."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.checkpoints.catalogue import Catalogue, Checkpoint, WeightsMissingError
from models.networks.variants import UnknownModelError
from service.domain.decision import Budget
from service.domain.ensemble import Ensemble, members_of
from service.domain.errors import BadParameterError, NoModelFitsError
from service.domain.snapshot import Candidate, DeviceLoad, Snapshot, combined
from service.routing.choose import choose
from service.routing.lookup import find, find_ensemble
from tests.cards import checkpoint, put

UNTRAINED = Catalogue(untrained=True)
PAIR = Ensemble((UNTRAINED.find("googlenet"), UNTRAINED.find("inception_v2")))


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    """ImageNet's weights for AlexNet and GoogLeNet, CIFAR-10's for GoogLeNet and BN-Inception; LeNet-5's in the box."""
    for variant, labels in (
        ("alexnet", "imagenet1k"),
        ("googlenet", "imagenet1k"),
        ("googlenet", "cifar10"),
        ("inception_v2", "cifar10"),
    ):
        put(tmp_path, variant, labels)
    return Catalogue(tmp_path)


@pytest.mark.parametrize(
    ("model", "labels", "name"),
    [
        ("alexnet,googlenet", None, "ensemble:alexnet@imagenet1k,googlenet@imagenet1k"),
        ("googlenet,inception_v2", None, "ensemble:googlenet@cifar10,inception_v2@cifar10"),
        ("bn_inception,inception_v1", None, "ensemble:inception_v2@cifar10,googlenet@cifar10"),
        ("googlenet,alexnet@imagenet1k", None, "ensemble:googlenet@imagenet1k,alexnet@imagenet1k"),
        ("googlenet@cifar10,inception_v2", None, "ensemble:googlenet@cifar10,inception_v2@cifar10"),
        ("googlenet,inception_v2@cifar10", "cifar10", "ensemble:googlenet@cifar10,inception_v2@cifar10"),
    ],
)
def test_the_label_set_is_the_one_that_is_said_or_the_first_that_all_have_weights_for(
    catalogue: Catalogue, model: str, labels: str | None, name: str
) -> None:
    found = find_ensemble(catalogue, f"ensemble:{model}", labels)
    assert found.name == name
    assert found.model == ",".join(part.partition("@")[0] for part in name.split(","))
    assert found.labels == name.rpartition("@")[2]
    assert (found.trained, found.top1, found.state) == (True, None, "loadable")


def test_untrained_networks_average_too() -> None:
    for name in ("ensemble:googlenet,vgg16", "ensemble:googlenet@untrained,vgg16"):
        found = find_ensemble(UNTRAINED, name)
        assert (found.name, found.labels) == ("ensemble:googlenet@untrained,vgg16@untrained", "imagenet1k")
        assert not found.trained
    with pytest.raises(BadParameterError, match="googlenet has imagenet1k; lenet5 has mnist"):
        find_ensemble(UNTRAINED, "ensemble:googlenet,lenet5")


@pytest.mark.parametrize(
    ("model", "labels", "error", "says"),
    [
        ("googlenet", None, BadParameterError, "2 to 8"),
        ("", None, BadParameterError, "2 to 8"),
        ("googlenet,", None, BadParameterError, "2 to 8"),
        (",".join(["googlenet"] * 9), None, BadParameterError, "2 to 8"),
        ("googlenet,alexnet,inception_v1", None, BadParameterError, "googlenet is in it 2 times"),
        ("googlenet@cifar10,googlenet@imagenet1k", None, BadParameterError, "googlenet is in it 2 times"),
        ("googlenet@cifar10,alexnet@imagenet1k", None, BadParameterError, "cifar10 and imagenet1k"),
        ("googlenet,lenet5", None, BadParameterError, "googlenet has imagenet1k and cifar10; lenet5 has mnist"),
        ("googlenet@cifar10,alexnet", None, BadParameterError, "share no label set"),
        ("googlenet,nobody", None, UnknownModelError, "'nobody'"),
        ("googlenet,ensemble:alexnet", None, UnknownModelError, "'ensemble:alexnet'"),
        ("googlenet, alexnet", None, UnknownModelError, "' alexnet'"),
        ("googlenet,alexnet@mnist", None, UnknownModelError, "alexnet@mnist"),
        ("googlenet,alexnet", "mnist", UnknownModelError, "googlenet@mnist"),
        ("googlenet,alexnet@imagenet1k", "cifar10", UnknownModelError, "labels=cifar10"),
        ("googlenet,vgg16", None, WeightsMissingError, "topfive pull vgg16"),
        ("inception_v2,vgg16", "imagenet1k", WeightsMissingError, "inception_v2@imagenet1k"),
        ("vgg16,vgg19,inception_v3", None, WeightsMissingError, "vgg16@imagenet1k"),
    ],
)
def test_what_is_no_ensemble_says_why(
    catalogue: Catalogue, model: str, labels: str | None, error: type[Exception], says: str
) -> None:
    with pytest.raises(error) as raised:
        find(catalogue, f"ensemble:{model}", labels)
    assert says in str(raised.value)


class _Rows(Catalogue):
    """These checkpoints and no others."""

    def __init__(self, cache: Path, *rows: Checkpoint) -> None:
        super().__init__(cache)
        self._given = list(rows)

    def _read(self) -> list[Checkpoint]:
        return self._given


def test_where_no_label_set_is_whole_the_one_that_least_is_missing_from_is_told_of(tmp_path: Path) -> None:
    here = tmp_path / "weights"
    rows = [checkpoint(name, "imagenet1k") for name in ("googlenet", "inception_v2")]
    rows += [checkpoint("googlenet", "cifar10", path=here), checkpoint("inception_v2", "cifar10")]
    with pytest.raises(WeightsMissingError, match="inception_v2@cifar10"):
        find(_Rows(tmp_path, *rows), "ensemble:googlenet,inception_v2")


def test_a_single_one_is_found_as_ever(catalogue: Catalogue) -> None:
    found = find(catalogue, "googlenet")
    assert isinstance(found, Checkpoint)
    assert members_of(found) == (found,)
    with pytest.raises(WeightsMissingError):
        find(catalogue, "vgg16")


# How it stands.

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
def test_of_one_member_it_is_what_that_takes_alone(member: Snapshot, counted: bool, busy_s: float) -> None:
    """The sum's arithmetic is the single one's, in whatever queue."""
    waiting = [member] if counted and member.queued else []
    whole = predicted(combined([member]), waiting, busy_s)
    assert whole == pytest.approx(predicted(member, waiting, busy_s))


@settings(max_examples=40)
@given(st.lists(snapshots(), min_size=2, max_size=4), seconds)
def test_on_one_device_it_takes_what_its_members_take_one_after_the_other(
    members: list[Snapshot], busy_s: float
) -> None:
    free = [member._replace(ahead=0, queued=0) for member in members]
    alone = [predicted(member, []) for member in free]
    whole = combined(free)
    decode_s = max(member.decode_s for member in free)
    assert predicted(whole, []) == pytest.approx(sum(alone) - sum(m.decode_s for m in free) + decode_s)
    assert whole.footprint_bytes == sum(member.footprint_bytes for member in free)
    profiled_decode_s = max(member.profiled_decode_s for member in free)
    assert whole.alone_s == pytest.approx(profiled_decode_s + sum(member.profiled_forward_s for member in free))
    # What waits on the device is waited for once, not once for each.
    waits = members[0]._replace(ahead=3, queued=3)
    at_once = combined([member._replace(decode_s=0.0) for member in free])
    waited_s = predicted(at_once, [waits], busy_s) - predicted(at_once, [])
    assert waited_s == pytest.approx(busy_s + waits.batches_s(3))


@given(snapshots(st.just("one")), snapshots(st.just("two")))
def test_on_two_devices_the_slower_one_counts(first: Snapshot, second: Snapshot) -> None:
    alone = [predicted(member, []) for member in (first, second)]
    assert predicted(combined([first, second]), []) == pytest.approx(max(alone))


def test_what_is_in_the_way_of_one_is_in_the_way_of_all() -> None:
    easy = Snapshot((0.0, 0.01), 0.0, 10**6)
    full = easy._replace(queued=512, ahead=0)
    assert combined([easy, full]).queued == combined([full, easy]).max_queue == 512
    assert not combined([easy, easy._replace(fits=False)]).fits


def test_its_accuracy_is_unknown_whatever_its_members_are() -> None:
    members = tuple(replace(member, top1=90.0) for member in PAIR.members)
    candidate = Candidate(Ensemble(members), combined([Snapshot((0.0, 0.01), 0.0, 10**6)] * 2))
    assert choose([candidate], Budget(1.0), named=True).checkpoint is candidate.checkpoint
    with pytest.raises(NoModelFitsError, match="without min_top1"):
        choose([candidate], Budget(1.0, min_top1=10.0), named=True)


def test_what_others_can_spare_is_held_against_the_sum() -> None:
    member = Snapshot((0.0, 0.3), 0.0, 10**6, "one")
    for devices, spared in (("one", False), ("two", True)):
        whole = combined([member, member._replace(device=devices)])
        load = DeviceLoad(slack_s={"one": 0.5, "two": 0.5})
        if spared:
            assert choose([Candidate(PAIR, whole)], Budget(10.0), load, named=True)
        else:
            with pytest.raises(Exception, match="could answer"):
                choose([Candidate(PAIR, whole)], Budget(10.0), load, named=True)
