"""Predictors in other processes, over fake Serve handles that answer, fail, hang and come back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from models.checkpoints.catalogue import Catalogue
from service.cluster import remote
from service.cluster.remote import RemotePlacement, RemotePredictor, Report
from service.cluster.replica import Replica
from service.config.fleet import Deployment
from service.config.settings import Settings
from service.domain.errors import Failure, LoadFailedError, NotReadyError, failure_of
from service.domain.placement import Memory
from service.domain.prediction import Limits, Prediction
from service.domain.snapshot import DeviceLoad, Snapshot
from service.engines.fake import FakeEngine
from service.profiling.profiles import SIZE_CLASSES
from service.runtime.placement import LocalPlacement

LENET = Catalogue().find("lenet5")
GOOGLENET = Catalogue().find("googlenet@imagenet1k")
ANSWER = Prediction((1.0,), (3,), 1, 0.0, 0.0, 0.0)


#: In the report of a deployment that hosts both networks.
SNAPSHOT = Snapshot((0.0, 0.25, 0.5), decode_s=0.0, footprint_bytes=1_000_000, queued=7, load_s=2.0)
PROFILED_S = {kind: 0.0625 * n for n, kind in enumerate(SIZE_CLASSES)}
MEMORY = Memory("both: a CPU", 2_000_000, 1_000_000)


def report(*loaded: str, ready: bool = True, memory: Memory = MEMORY, lacks: Sequence[str] = (), **more: Any) -> Report:
    """The report of a deployment that hosts both networks, without snapshots for those that it ``lacks``."""
    names = [name for name in (LENET.name, GOOGLENET.name) if name not in lacks]
    decode_s = {kind: 0.125 * n for n, kind in enumerate(SIZE_CLASSES)}
    return Report(
        ready,
        frozenset(loaded),
        dict.fromkeys(names, SNAPSHOT),
        dict.fromkeys(names, decode_s),
        dict.fromkeys(names, PROFILED_S),
        memory,
        **more,
    )


class Handle:
    """The part of a Serve handle that is used. It returns, raises or awaits what it is given."""

    def __init__(self, outcome: Any = ANSWER, reported: Any = None) -> None:
        self.outcome, self.reported, self.calls = outcome, reported or report(LENET.name), []
        self.predict = self.load = self.unload = SimpleNamespace(remote=self._called)
        self.report = SimpleNamespace(remote=self._report)

    async def _called(self, *arguments: Any) -> Any:
        self.calls.append(arguments)
        return await self._give(self.outcome)

    async def _report(self) -> Any:
        return await self._give(self.reported)

    @staticmethod
    async def _give(what: Any) -> Any:
        if isinstance(what, Exception):
            raise what
        if isinstance(what, asyncio.Event):
            await what.wait()
            return ANSWER
        if what == "hang":
            await asyncio.sleep(60)
        return what


def soon() -> float:
    return time.monotonic() + 30


def sending(handle: Handle) -> RemotePredictor:
    return RemotePredictor(LENET, handle)


async def test_the_bytes_the_name_and_the_time_left_are_sent() -> None:
    handle = Handle()
    assert await sending(handle).predict(b"picture", soon()) == ANSWER
    ((image, name, remaining_s),) = handle.calls
    assert (image, name) == (b"picture", "lenet5@mnist")
    assert 0 < remaining_s <= 30


@pytest.mark.parametrize("traced", [False, True])
async def test_span_and_whole_are_sent_only_where_they_are_needed(
    traced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    span = "00-1-2-01" if traced else None
    monkeypatch.setattr(remote, "traceparent", lambda: span)
    handle = Handle()
    await sending(handle).predict(b"picture", soon())
    await sending(handle).predict(b"picture", soon(), True)
    (_, _, _, *plain), (_, _, _, *whole) = handle.calls
    assert (plain, whole) == ([span] if traced else [], [span, True])


async def test_a_failure_comes_back_unchanged() -> None:
    failure = Failure("undecodable", "text")
    assert await sending(Handle(failure)).predict(b"", soon()) == failure


async def test_a_broken_connection_is_503_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    outcome = await sending(Handle(RuntimeError("secret address"))).predict(b"", soon())
    assert isinstance(outcome, Failure)
    assert outcome.status == 503
    assert outcome.extras["retry_after_ms"] > 0
    assert "secret" not in outcome.detail + caplog.text


async def test_a_replica_that_hangs_is_504_at_the_deadline() -> None:
    outcome = await asyncio.wait_for(sending(Handle("hang")).predict(b"", time.monotonic() + 0.05), 10)
    assert isinstance(outcome, Failure)
    assert outcome.status == 504


async def watched(placement: RemotePlacement) -> None:
    """Lets the placement ask every deployment for a report once."""
    task = asyncio.create_task(placement.watch())
    await asyncio.sleep(0.02)
    task.cancel()


def is_ready(placement: RemotePlacement) -> bool:
    try:
        placement.check_ready()
    except NotReadyError:
        return False
    return True


async def test_ready_once_every_deployment_was_ready_and_then_while_one_is() -> None:
    warming = report(ready=False)
    lenet, googlenet = Handle(reported=warming), Handle(reported=report(GOOGLENET.name))
    placement = RemotePlacement({"lenet5": lenet, "googlenet": googlenet}, stopping=lambda: False)
    await watched(placement)
    assert not is_ready(placement)
    assert (placement.resident(LENET), placement.resident(GOOGLENET)) == (False, True)
    lenet.reported = report(LENET.name)
    await watched(placement)
    assert is_ready(placement)
    lenet.reported = warming
    await watched(placement)
    assert is_ready(placement)
    googlenet.reported = warming
    await watched(placement)
    assert not is_ready(placement)


@pytest.mark.parametrize("trouble", ["hang", RuntimeError("died")])
async def test_a_deployment_is_down_after_three_missing_reports_in_a_row(
    trouble: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_ASK_WITHIN_S", 0.001)
    lenet = Handle()
    placement = RemotePlacement({"lenet5": lenet}, stopping=lambda: False)
    await watched(placement)
    lenet.reported = trouble
    for up in (True, True, False):
        await placement._ask("lenet5", lenet)
        assert (placement.resident(LENET), is_ready(placement)) == (up, up)
    lenet.reported = report(LENET.name)
    await placement._ask("lenet5", lenet)
    assert placement.resident(LENET)
    # The count starts again.
    lenet.reported = trouble
    await placement._ask("lenet5", lenet)
    assert placement.resident(LENET)


async def test_a_service_that_stops_is_not_ready() -> None:
    stopping = False
    placement = RemotePlacement({"lenet5": Handle()}, stopping=lambda: stopping)
    await watched(placement)
    assert is_ready(placement)
    stopping = True
    assert not is_ready(placement)


async def test_a_checkpoint_that_no_deployment_hosts_needs_a_restart() -> None:
    placement = RemotePlacement({"lenet5": Handle()}, stopping=lambda: False)
    with pytest.raises(NotReadyError, match="restart"):
        placement.predictor(GOOGLENET)


async def surveyed(lenet: Handle, googlenet: Handle, **replicas: int) -> RemotePlacement:
    """A placement that has a report of each."""
    handles = {"lenet5": lenet, "googlenet": googlenet}
    placement = RemotePlacement(handles, stopping=lambda: False, replicas=replicas)
    await watched(placement)
    return placement


async def test_without_a_report_there_is_no_snapshot() -> None:
    placement = RemotePlacement({"lenet5": Handle()}, stopping=lambda: False)
    assert placement.survey([LENET, GOOGLENET], 0) == ([(LENET, None), (GOOGLENET, None)], DeviceLoad({}, []))
    assert placement.memory() == []
    await watched(placement)
    snapshots = [snapshot for _, snapshot in placement.survey([LENET, GOOGLENET], 0).snapshots]
    assert snapshots == [SNAPSHOT._replace(device=MEMORY.device, queued=0), None]
    assert (placement.serves(LENET), placement.serves(GOOGLENET)) == (True, False)


async def test_the_decoding_time_is_that_of_the_pictures_size() -> None:
    placement = await surveyed(Handle(), Handle())
    for kind, most in SIZE_CLASSES.items():
        ((_, snapshot),) = placement.survey([LENET], most).snapshots
        assert snapshot is not None
        assert snapshot.decode_s == report().decode_s[LENET.name][kind]
        assert snapshot.profiled_decode_s == PROFILED_S[kind]


@pytest.mark.parametrize(("replicas", "queued"), [(1, 3), (2, 2), (3, 1), (8, 1)])
async def test_sent_pictures_are_queued_and_shared_among_the_replicas(replicas: int, queued: int) -> None:
    release = asyncio.Event()
    placement = await surveyed(Handle(release), Handle(), lenet5=replicas)
    sent = [asyncio.create_task(placement.predictor(LENET).predict(b"", soon())) for _ in range(3)]
    await asyncio.sleep(0)
    ((_, own), (_, other)), load = placement.survey([LENET, GOOGLENET], 0)
    assert own is not None
    assert other is not None
    assert (own.queued, other.queued) == (queued, 0)
    assert [waiting is own for waiting in load.waiting] == [True]
    # It delays the other on the same device too, when only that is asked for.
    assert placement.survey([GOOGLENET], 0).load.waiting == [own]
    release.set()
    assert await asyncio.gather(*sent) == [ANSWER] * 3
    assert not placement.survey([LENET], 0).load.waiting


@pytest.mark.parametrize("outcome", ["hang", RuntimeError("died"), Failure("undecodable", "text")])
async def test_a_picture_that_failed_is_no_longer_queued(outcome: Any) -> None:
    placement = await surveyed(Handle(outcome), Handle())
    assert isinstance(await placement.predictor(LENET).predict(b"", time.monotonic() + 0.01), Failure)
    assert not placement.survey([LENET, GOOGLENET], 0).load.waiting


async def test_each_device_has_one_ledger() -> None:
    assert (await surveyed(Handle(), Handle())).memory() == [MEMORY]
    other = MEMORY._replace(device="googlenet: a GPU")
    assert (await surveyed(Handle(), Handle(reported=report(memory=other)))).memory() == [MEMORY, other]


async def test_loads_and_unloads_are_sent_and_seen_at_once() -> None:
    lenet = Handle(outcome=None, reported=report())
    placement = await surveyed(lenet, Handle())
    lenet.reported = report(LENET.name)
    assert await placement.load(LENET) is None
    assert placement.resident(LENET)
    lenet.reported = report()
    assert await placement.unload(LENET, wait=True) is None
    assert not placement.resident(LENET)
    assert lenet.calls == [("lenet5@mnist",), ("lenet5@mnist", True)]
    in_use = lenet.outcome = Failure("in-use", "one request in flight")
    assert await placement.unload(LENET, wait=False) == in_use


@pytest.mark.parametrize("what", ["load", "unload"])
async def test_a_load_over_a_broken_connection_is_503(what: str, caplog: pytest.LogCaptureFixture) -> None:
    placement = RemotePlacement({"lenet5": Handle(RuntimeError("secret address"))}, stopping=lambda: False)
    options = {"wait": True} if what == "unload" else {}
    for checkpoint, says in ((LENET, "lost its replica"), (GOOGLENET, "no deployment")):
        failure = await getattr(placement, what)(checkpoint, **options)
        assert isinstance(failure, Failure)
        assert (failure.status, says in failure.detail) == (503, True)
        assert "secret" not in failure.detail + caplog.text


async def test_an_unload_in_the_replica_waits_no_longer_than_a_request_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    placement = LocalPlacement(FakeEngine, Limits())
    monkeypatch.setattr("service.assembly.local.local_placement", lambda *_: placement)
    monkeypatch.setattr("service.cluster.replica.configure_logging", lambda _format: None)
    replica = Replica(Settings(cache_dir=tmp_path, default_latency_ms=100), Deployment(variants=["lenet5"]))
    await replica._warming
    lenet = placement.predictor(LENET)
    await lenet.load()
    async with lenet._residency.using(lenet._resident):
        failure = await asyncio.wait_for(replica.unload("lenet5@mnist", True), 10)
        assert failure is not None
        assert (failure.slug, "still in use" in failure.detail) == ("deadline-missed", True)
    assert placement.resident(LENET)
    assert await replica.unload("lenet5@mnist", True) is None
    assert not placement.resident(LENET)
    await placement.close()


FULL = Failure("load-failed", "no disk has room", {"retry_after_ms": 4000.0})
DAMAGED = Failure("weights-damaged", "lenet5@mnist.safetensors is damaged")
IMPORTED = replace(LENET, labels="cifar10")


async def test_a_checkpoint_that_a_deployment_cannot_load_is_not_served_until_it_reports_otherwise() -> None:
    lenet = Handle(reported=report(lacks=[LENET.name], failures={LENET.name: FULL}))
    placement = await surveyed(lenet, Handle())
    failure = placement.failure(LENET)
    assert isinstance(failure, LoadFailedError)
    assert failure_of(failure) == FULL
    assert (placement.serves(LENET), placement.serves(GOOGLENET)) == (False, True)
    assert placement.survey([LENET], 0).snapshots == [(LENET, None)]
    # The next attempt is due: it may be chosen, and the reason of the failure is still known.
    lenet.reported = report(failures={LENET.name: FULL})
    await placement._ask("lenet5", lenet)
    assert (placement.serves(LENET), placement.failure(LENET) is None) == (True, False)
    lenet.reported = report()
    await placement._ask("lenet5", lenet)
    assert placement.failure(LENET) is None


@pytest.mark.parametrize("told", [FULL, DAMAGED, Failure("out-of-memory", "none", {"retry_after_ms": 1000.0})])
async def test_a_failed_load_counts_before_the_next_report(told: Failure) -> None:
    lenet = Handle(told)
    placement = await surveyed(lenet, Handle())
    assert await placement.predictor(LENET).predict(b"", soon()) == told
    assert not placement.serves(LENET)
    await placement._ask("lenet5", lenet)
    assert placement.serves(LENET)


@pytest.mark.parametrize("told", [Failure("undecodable", "text"), Failure("out-of-memory", "in a forward pass")])
async def test_other_failures_do_not_count_as_failed_loads(told: Failure) -> None:
    placement = await surveyed(Handle(told), Handle())
    await placement.predictor(LENET).predict(b"", soon())
    assert placement.serves(LENET)


async def test_weights_installed_after_the_start_are_served_once_a_report_has_them() -> None:
    lenet = Handle()
    placement = RemotePlacement({"lenet5": lenet}, stopping=lambda: False)
    # Before the first report the fleet decides.
    assert placement.serves(IMPORTED)
    await watched(placement)
    assert not placement.serves(IMPORTED)
    assert not placement.serves(GOOGLENET)
    lenet.reported = with_snapshot_of(report(), IMPORTED.name)
    await placement._ask("lenet5", lenet)
    assert placement.serves(IMPORTED)
    # The checkpoints of the last report count while the deployment is down.
    lenet.reported = RuntimeError("died")
    for _ in range(4):
        await placement._ask("lenet5", lenet)
    assert placement.memory() == []
    assert placement.serves(IMPORTED)
    assert not placement.serves(replace(IMPORTED, labels="imagenet1k"))


def with_snapshot_of(before: Report, name: str) -> Report:
    return replace(before, snapshots={**before.snapshots, name: SNAPSHOT})


async def test_a_deployment_that_can_load_nothing_is_not_waited_for() -> None:
    nothing = report(ready=False, nothing=FULL)
    lenet, googlenet = Handle(reported=nothing), Handle(reported=report(ready=False))
    placement = RemotePlacement({"lenet5": lenet, "googlenet": googlenet}, stopping=lambda: False)
    await watched(placement)
    with pytest.raises(NotReadyError, match=r"waiting for googlenet$"):
        placement.check_ready()
    googlenet.reported = nothing
    await placement._ask("googlenet", googlenet)
    with pytest.raises(LoadFailedError, match="no disk has room"):
        placement.check_ready()
    assert not up(placement)
    googlenet.reported = report(GOOGLENET.name)
    await placement._ask("googlenet", googlenet)
    assert is_ready(placement)
    assert up(placement)


def up(placement: RemotePlacement) -> bool:
    (reading,) = placement.readings()
    return bool(reading.value)


async def test_pictures_of_other_ingress_replicas_are_in_the_queue_too() -> None:
    """A report counts all pictures that wait in the replica. Those that this ingress sent are known already."""
    release = asyncio.Event()
    lenet = Handle(release)
    placement = await surveyed(lenet, Handle())
    sent = [asyncio.create_task(placement.predictor(LENET).predict(b"", soon())) for _ in range(3)]
    await asyncio.sleep(0)
    for reported, queued in ((7, 7), (2, 3)):
        lenet.reported = replace(report(), snapshots={LENET.name: SNAPSHOT._replace(queued=reported)})
        await placement._ask("lenet5", lenet)
        ((_, snapshot),) = placement.survey([LENET], 0).snapshots
        assert snapshot is not None
        assert (snapshot.queued, snapshot.ahead) == (queued, queued)
    release.set()
    await asyncio.gather(*sent)


async def test_only_sent_pictures_with_earlier_deadlines_are_ahead() -> None:
    release, now = asyncio.Event(), 500.0
    handles = {"lenet5": Handle(release)}
    placement = RemotePlacement(handles, stopping=lambda: False, clock=lambda: now)
    await watched(placement)
    deadlines = (now + 20, now + 10, now + 30)
    sent = [asyncio.create_task(placement.predictor(LENET).predict(b"", deadline)) for deadline in deadlines]
    await asyncio.sleep(0)
    for deadline, ahead in ((now + 9, 0), (now + 10, 1), (now + 25, 2), (now + 30, 3)):
        ((_, snapshot),) = placement.survey([LENET], 0, deadline).snapshots
        assert snapshot is not None
        assert (snapshot.queued, snapshot.ahead) == (3, ahead)
    # The time that is left is sent, since the clocks of two processes may differ.
    assert [remaining_s for _, _, remaining_s in handles["lenet5"].calls] == [20, 10, 30]
    release.set()
    await asyncio.gather(*sent)


async def test_a_failed_load_says_when_to_come_back_in_seconds() -> None:
    placement = await surveyed(Handle(reported=report(failures={LENET.name: FULL})), Handle())
    failure = placement.failure(LENET)
    assert failure is not None
    assert failure.retry_after_s == 4.0


async def test_a_service_that_stops_is_not_ready_for_prometheus() -> None:
    stopping = False
    placement = RemotePlacement({"lenet5": Handle()}, stopping=lambda: stopping)
    assert not up(placement)
    await watched(placement)
    assert up(placement)
    stopping = True
    assert not up(placement)


async def test_a_snapshot_is_always_taken_of_a_replica() -> None:
    placement = await surveyed(Handle(report("lenet5@mnist")), Handle(report("googlenet@imagenet1k")))
    assert placement.resident(LENET)
    assert placement.at_once(LENET, 1e6) is None
