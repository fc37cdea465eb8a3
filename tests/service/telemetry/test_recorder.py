"""The values of the metrics: call by call, and request by request."""

from __future__ import annotations

import asyncio
import base64
import importlib.metadata
import json
import platform
import random
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from models.checkpoints.catalogue import Catalogue, Checkpoint
from service.config.settings import Settings
from service.domain.decision import Decision
from service.domain.errors import OutOfDeviceMemoryError
from service.domain.outcome import Outcome
from service.domain.prediction import Limits
from service.engines import Engine
from service.runtime.placement import LocalPlacement
from service.runtime.predictor import Predictor
from service.telemetry import metrics as declared
from service.telemetry.recorder import PredictorMetrics, RequestMetrics, set_build_info
from tests.counted import Counted, counted
from tests.fakes import Fakes, until_resident
from tests.pictures import picture
from tests.profiles import profile

JUNK = b"this is no picture"
LENET = Catalogue().find("lenet5@mnist")


def bucket(found: Counted, name: str, value: str, model: str = "lenet5") -> float:
    """The number of observations of a histogram up to ``value``."""
    return found.rise(f"{name}_bucket", model=model, le=value)


def test_a_forward_pass_is_counted_with_its_time_and_the_profiles() -> None:
    metrics = PredictorMetrics(LENET)
    with counted() as found:
        metrics.batch(3, "full", 0.5, 0.2)
        metrics.batch(1, "drained", 0.25, None)
    assert found.risen("topfive_batches_total") == {("full", "lenet5"): 1, ("drained", "lenet5"): 1}
    assert (found.rise("topfive_batch_size_count"), found.rise("topfive_batch_size_sum")) == (2, 4)
    assert found.risen("topfive_device_seconds_total") == {("lenet5",): pytest.approx(0.75)}
    assert found.risen("topfive_profiled_device_seconds_total") == {("lenet5",): pytest.approx(0.2)}


def test_a_load_that_succeeds_has_a_time_and_one_that_fails_has_none() -> None:
    metrics = PredictorMetrics(LENET)
    with counted() as found:
        metrics.loaded(1.5)
        metrics.loaded(0.5, woken=True)
        metrics.not_loaded()
        metrics.not_loaded()
        for reason in ("room", "asked", "replaced", "room"):
            metrics.evicted(reason)
    assert found.risen("topfive_loads_total") == {("lenet5", "ok"): 1, ("lenet5", "woken"): 1, ("lenet5", "failed"): 2}
    assert found.risen("topfive_load_seconds_sum") == {("lenet5",): 2.0}
    assert found.risen("topfive_evictions_total") == {
        ("lenet5", "room"): 2,
        ("lenet5", "asked"): 1,
        ("lenet5", "replaced"): 1,
    }


def test_each_phase_has_its_own_time() -> None:
    metrics = RequestMetrics(["lenet5"])
    with counted() as found:
        metrics.answered("lenet5", 0.001, 0.02, 0.3)
    for phase, seconds in (("decode", 0.001), ("queue", 0.02), ("forward", 0.3)):
        assert found.risen(f"topfive_{phase}_seconds_sum") == {("lenet5",): pytest.approx(seconds)}
        assert found.rise(f"topfive_{phase}_seconds_count") == 1


@pytest.mark.parametrize(
    ("used", "late", "counts_as", "at_most", "more_than"),
    [
        (0.4, False, 0.4, "0.5", "0.25"),
        (1.0, False, 1.0, "1.0", "0.9"),
        (1.7, False, 1.7, "2.0", "1.5"),
        # Dropped early, since it could not be in time any more: it was late all the same.
        (0.4, True, 1.001, "1.1", "1.0"),
        (1.7, True, 1.7, "2.0", "1.5"),
    ],
)
def test_a_picture_dropped_for_its_deadline_counts_as_late(
    used: float, late: bool, counts_as: float, at_most: str, more_than: str
) -> None:
    metrics = RequestMetrics(["lenet5"])
    with counted() as found:
        metrics.kept("lenet5", used, late=late)
    assert found.rise("topfive_budget_used_ratio_sum") == pytest.approx(counts_as)
    name = "topfive_budget_used_ratio"
    assert (bucket(found, name, at_most), bucket(found, name, more_than)) == (1, 0)


def test_a_decision_is_counted_with_what_it_costs() -> None:
    metrics = RequestMetrics(["lenet5"])
    with counted() as found:
        metrics.routed(Decision(LENET, routed_for="memory", accuracy_debt=4.5))
        metrics.routed(Decision(LENET, routed_for="latency", accuracy_debt=0.0))
        metrics.routed(Decision(LENET))
        metrics.predicted("lenet5", 1.2)
    assert found.risen("topfive_routed_total") == {
        ("lenet5", "memory"): 1,
        ("lenet5", "latency"): 1,
        ("lenet5", "named"): 1,
    }
    # Without a choice there was nothing to lose.
    assert (found.rise("topfive_accuracy_debt_count"), found.rise("topfive_accuracy_debt_sum")) == (2, 4.5)
    assert found.risen("topfive_predicted_ratio_sum") == {("lenet5",): pytest.approx(1.2)}


def test_only_requests_that_are_answered_with_200_have_a_time() -> None:
    metrics = RequestMetrics(["lenet5"])
    with counted() as found:
        for outcome in (
            Outcome("lenet5", "ok"),
            Outcome("lenet5", "partial"),
            Outcome("several", "ok"),
            Outcome("none", "partial"),
            Outcome("lenet5", "overloaded"),
            Outcome("none", "gone"),
        ):
            metrics.arrived()
            metrics.left(outcome, [], 0.25)
    assert found.risen("topfive_request_seconds_sum") == {("lenet5",): 0.5, ("several",): 0.25, ("none",): 0.25}
    assert found.rise("topfive_requests_total") == 6
    assert found.rise("topfive_pictures_total") == 0


def test_requests_in_flight_are_those_that_have_come_and_not_left() -> None:
    metrics = RequestMetrics(["lenet5"])
    for _ in range(3):
        metrics.arrived()
    metrics.left(Outcome("lenet5", "ok"), [], 0.1)
    assert list(metrics.readings()) == [("topfive_in_flight", 2, ())]


def test_all_ensembles_are_one_model() -> None:
    """A client that names another ensemble must not create a series."""
    metrics = RequestMetrics(["lenet5", "googlenet"])
    with counted() as found:
        for members in ("lenet5,googlenet", "googlenet,lenet5"):
            metrics.left(Outcome(f"ensemble:{members}", "ok"), [Outcome(f"ensemble:{members}", "ok")], 0.5)
            metrics.answered(f"ensemble:{members}", 0.1, 0.1, 0.1)
    assert found.risen("topfive_requests_total") == {("ensemble", "ok", "200"): 2}
    assert found.risen("topfive_pictures_total") == {("ensemble", "ok", "200"): 2}
    assert found.risen("topfive_request_seconds_sum") == {("ensemble",): 1}
    assert found.risen("topfive_decode_seconds_count") == {("ensemble",): 2}


@pytest.mark.parametrize(("variants", "models"), [(1, 1), (2, 3), (3, 4)])
def test_ensembles_have_series_from_two_variants_on(variants: int, models: int) -> None:
    assert len(RequestMetrics(["lenet5", "googlenet", "vgg16"][:variants])._answered) == models


def test_pictures_are_counted_one_by_one() -> None:
    metrics = RequestMetrics(["lenet5"])
    pictures = [Outcome("lenet5", "ok"), Outcome("lenet5", "undecodable"), Outcome("lenet5", "ok")]
    with counted() as found:
        metrics.left(Outcome("lenet5", "partial"), pictures, 0.1)
        metrics.shed("router")
        metrics.shed("queue")
        metrics.shed("queue")
    assert found.risen("topfive_requests_total") == {("lenet5", "partial", "200"): 1}
    assert found.risen("topfive_pictures_total") == {("lenet5", "ok", "200"): 2, ("lenet5", "undecodable", "422"): 1}
    assert found.risen("topfive_shed_total") == {("router",): 1, ("queue",): 2}


def test_the_build_says_what_the_process_is_made_of() -> None:
    set_build_info()
    (sample,) = (s for family in declared.BUILD_INFO.collect() for s in family.samples)
    versions = {name: importlib.metadata.version(name) for name in ("torch", "onnxruntime", "ray")}
    assert sample.value == 1
    assert sample.labels == {
        "version": importlib.metadata.version("topfive"),
        "python": platform.python_version(),
        **versions,
    }


async def test_a_full_queue_sheds_as_the_queue(tmp_path: Path) -> None:
    fakes = Fakes(tmp_path)
    # The router knows of pictures that wait, and not of their bytes.
    fakes.limits = Limits(max_batch_size=1, max_queue_bytes=1)
    async with fakes.client() as client:
        with counted() as found:
            async with fakes.busy(client, "lenet5@mnist"):
                waits = asyncio.create_task(client.post("/classify?model=lenet5", content=picture()))
                await asyncio.sleep(0.05)
                refused = [await client.post("/classify?model=lenet5", content=picture()) for _ in range(2)]
            await waits
    assert [answer.status_code for answer in refused] == [429, 429]
    assert found.risen("topfive_shed_total") == {("queue",): 2}


async def test_a_budget_that_the_queue_breaks_is_shed_by_the_router(tmp_path: Path) -> None:
    fakes = Fakes(tmp_path)
    fakes.limits = Limits(max_batch_size=1)
    fakes.profiles = [profile("lenet5@mnist", forward_ms=1000)]
    async with fakes.client() as client:
        with counted() as found:
            async with fakes.busy(client, "lenet5@mnist"):
                waits = asyncio.create_task(client.post("/classify?model=lenet5", content=picture()))
                await asyncio.sleep(0.05)
                refused = await client.post("/classify?model=lenet5&latency_ms=1500", content=picture())
            await waits
    assert refused.status_code == 429
    assert found.risen("topfive_shed_total") == {("router",): 1}


async def test_a_picture_that_is_dropped_for_its_deadline_is_shed_and_late(tmp_path: Path) -> None:
    fakes = Fakes(tmp_path)
    async with fakes.client() as client:
        with counted() as found:
            async with fakes.busy(client, "lenet5@mnist"):
                late = await client.post("/classify?model=lenet5&latency_ms=100", content=picture())
    assert late.status_code == 504
    assert found.risen("topfive_shed_total") == {("deadline",): 1}
    name = "topfive_budget_used_ratio"
    assert found.rise(f"{name}_count") - bucket(found, name, "1.0") == 1


async def test_every_kind_of_answer_is_counted_under_its_name(tmp_path: Path) -> None:
    fakes = Fakes(tmp_path)
    fakes.loadable = {"lenet5@mnist", "googlenet@imagenet1k"}
    asked = [
        ("?model=lenet5", picture(), "lenet5", "200", "ok"),
        ("?model=lenet5@mnist", picture(), "lenet5", "200", "ok"),
        ("?model=inception_v1", picture(), "googlenet", "200", "ok"),
        ("", picture(), "googlenet", "200", "ok"),
        ("?model=lenet5", JUNK, "lenet5", "422", "undecodable"),
        ("?model=lenet5", b"%PDF-1.7", "lenet5", "415", "unsupported-format"),
        ("?model=lenet5", b"", "none", "400", "no-picture"),
        ("?model=nobody-knows-this", picture(), "none", "404", "unknown-model"),
        ("?model=vgg16", picture(), "none", "503", "weights-missing"),
        ("?colour=red", picture(), "none", "400", "bad-parameter"),
        ("?memory_mb=0.001", picture(), "none", "422", "no-model-fits"),
    ]
    with counted() as found:
        async with fakes.client() as client:
            for query, body, *_ in asked:
                await client.post(f"/classify{query}", content=body)
    expected = Counter((model, reason, status) for *_, model, status, reason in asked)
    assert found.risen("topfive_requests_total") == expected
    # Where a request has no picture, there is none to count.
    unread = {"no-picture", "unknown-model", "weights-missing", "bad-parameter"}
    pictures = {labels: times for labels, times in expected.items() if labels[1] not in unread}
    assert found.risen("topfive_pictures_total") == pictures


async def test_a_bulk_request_is_one_request_of_many_pictures(tmp_path: Path) -> None:
    fakes = Fakes(tmp_path)
    fakes.loadable = {"lenet5@mnist", "googlenet@imagenet1k"}
    good, bad = base64.b64encode(picture()).decode(), base64.b64encode(JUNK).decode()
    headers = {"content-type": "application/json"}
    with counted() as found:
        async with fakes.client() as client:
            for images in ([good, good], [good, bad, "no base64 ~"], [bad]):
                body = json.dumps({"images": images})
                await client.post("/classify?model=lenet5", content=body, headers=headers)
    assert found.risen("topfive_requests_total") == {("lenet5", "ok", "200"): 1, ("lenet5", "partial", "200"): 2}
    assert found.risen("topfive_pictures_total") == {
        ("lenet5", "ok", "200"): 3,
        ("lenet5", "undecodable", "422"): 2,
        ("lenet5", "bad-body", "400"): 1,
    }
    assert found.rise("topfive_request_seconds_count") == 3
    assert found.rise("topfive_decode_seconds_count") == found.rise("topfive_forward_seconds_count") == 3


async def test_a_random_mixture_adds_up(tmp_path: Path) -> None:
    chance = random.Random(7)
    fakes = Fakes(tmp_path)
    fakes.loadable = {"lenet5@mnist", "googlenet@imagenet1k", "vgg16@imagenet1k"}
    fakes.limits = Limits(max_batch_size=4, max_queue=6)
    fakes.seconds = 0.002
    answers: Counter[tuple[str, str]] = Counter()
    with counted() as found:
        async with fakes.client() as client:

            async def send() -> None:
                query = chance.choice(["?model=lenet5", "?model=vgg16", "", "?latency_ms=0.5", "?model=lenet5&k=99"])
                answer = await client.post(f"/classify{query}", content=chance.choice([picture(), picture(), JUNK]))
                kind = "ok" if answer.status_code == 200 else answer.json()["type"].rpartition("/")[2]
                answers[str(answer.status_code), kind] += 1

            for _ in range(12):
                await asyncio.gather(*(send() for _ in range(25)))
    ok = answers["200", "ok"]
    assert ok
    assert answers["429", "overloaded"]
    by_kind: Counter[tuple[str, str]] = Counter()
    for (_, reason, status), times in found.risen("topfive_requests_total").items():
        by_kind[status, reason] += int(times)
    assert by_kind == answers
    assert found.rise("topfive_request_seconds_count") == ok
    assert found.rise("topfive_forward_seconds_count") == ok
    # Nobody's went twice; some that came too late had gone already.
    assert ok <= found.rise("topfive_batch_size_sum") <= ok + answers["504", "deadline-missed"]
    assert found.rise("topfive_batches_total") == found.rise("topfive_batch_size_count")
    # Every picture that is shed has such an answer; the tests above force each reason by itself.
    shed = {reason: found.rise("topfive_shed_total", reason=reason) for reason in ("router", "queue", "deadline")}
    assert shed["router"] + shed["queue"] == answers["429", "overloaded"]
    assert shed["deadline"] == answers["504", "deadline-missed"]
    assert found.rise("topfive_in_flight") == 0


async def test_no_label_comes_from_a_client(tmp_path: Path) -> None:
    fakes = Fakes(tmp_path)
    with counted():
        async with fakes.client() as client:
            for query in ("?model=evil%0Aname", "?labels=evil", "?evil=1", "?model=lenet5@evil", "?k=evil"):
                await client.post(f"/classify{query}", content=picture(), headers={"x-request-id": "evil"})
            text = (await client.get("/metrics?evil=1")).text
    assert "evil" not in text


async def test_every_series_that_can_occur_begins_at_zero(tmp_path: Path) -> None:
    """Prometheus sees no rise in a series that begins with 1."""
    fakes = Fakes(tmp_path)
    fakes.loadable = {"lenet5@mnist", "zfnet@imagenet1k"}
    async with fakes.client() as client:
        text = (await client.get("/metrics")).text
        for series in (
            'topfive_requests_total{model="zfnet",reason="deadline-missed",status="504"} 0.0',
            'topfive_requests_total{model="none",reason="unknown-model",status="404"}',
            'topfive_pictures_total{model="zfnet",reason="undecodable",status="422"} 0.0',
            'topfive_routed_total{model="zfnet",reason="overloaded"} 0.0',
            'topfive_evictions_total{model="zfnet",reason="room"} 0.0',
            'topfive_batches_total{cut="bisected",model="zfnet"} 0.0',
            'topfive_predicted_ratio_count{model="zfnet"} 0.0',
            'topfive_load_seconds_bucket{le="0.5",model="zfnet"}',
        ):
            assert series in text
        before = {line.partition(" ")[0] for line in text.splitlines() if line.startswith("topfive_")}
        await client.post("/classify?model=zfnet", content=picture())
        await client.post("/classify?model=zfnet", content=JUNK)
        await client.post("/classify?model=nobody", content=JUNK)
        after = {line.partition(" ")[0] for line in (await client.get("/metrics")).text.splitlines()}
    assert {series for series in after - before if series.startswith("topfive_")} == set()


async def test_a_decision_is_counted_by_what_ruled_out_a_better_checkpoint(tmp_path: Path) -> None:
    fakes = Fakes(tmp_path)
    fakes.loadable = {"alexnet@imagenet1k", "googlenet@imagenet1k", "vgg16@imagenet1k"}
    fakes.profiles = [
        profile("alexnet@imagenet1k", forward_ms=10, footprint_mb=300),
        profile("googlenet@imagenet1k", forward_ms=30, footprint_mb=50),
        profile("vgg16@imagenet1k", forward_ms=200, footprint_mb=900),
    ]
    with counted() as found:
        async with fakes.client() as client:
            for query in ("", "?latency_ms=2000&memory_mb=100", "?latency_ms=100", "?model=alexnet"):
                assert (await client.post(f"/classify{query}", content=picture())).status_code == 200
    assert found.risen("topfive_routed_total") == {
        ("vgg16", "most accurate"): 1,
        ("googlenet", "memory"): 1,
        ("googlenet", "latency"): 1,
        ("alexnet", "named"): 1,
    }
    assert found.rise("topfive_accuracy_debt_count") == 3
    assert found.rise("topfive_accuracy_debt_sum") == 0
    # Nothing was predicted for the model that was named without a budget.
    assert found.risen("topfive_predicted_ratio_count") == {("vgg16",): 1, ("googlenet",): 2}
    assert found.rise("topfive_budget_used_ratio_count") == 4


async def test_accuracy_lost_to_queues_is_counted(tmp_path: Path) -> None:
    fakes = Fakes(tmp_path)
    fakes.loadable = {"alexnet@imagenet1k", "vgg16@imagenet1k"}
    fakes.profiles = [
        profile("alexnet@imagenet1k", forward_ms=1, footprint_mb=300),
        profile("vgg16@imagenet1k", forward_ms=300, footprint_mb=900),
    ]
    async with fakes.client() as client:
        with counted() as found:
            async with fakes.busy(client, "vgg16@imagenet1k"):
                # It would have fitted with nothing before it.
                answering = asyncio.create_task(client.post("/classify?latency_ms=450", content=picture()))
                await asyncio.sleep(0.05)
            await answering
    assert found.risen("topfive_routed_total")["alexnet", "overloaded"] == 1
    assert found.rise("topfive_accuracy_debt_sum") == pytest.approx(71.592 - 54.8)


async def test_loads_and_evictions_are_counted(tmp_path: Path) -> None:
    fakes = Fakes(tmp_path)
    fakes.loadable = {"alexnet@imagenet1k", "vgg16@imagenet1k"}
    fakes.memory_limit_bytes = 1_000_000_000
    fakes.profiles = [
        profile("alexnet@imagenet1k", forward_ms=1, footprint_mb=600),
        profile("vgg16@imagenet1k", forward_ms=1, footprint_mb=900),
    ]
    with counted() as found:
        async with fakes.client() as client:
            await client.post("/classify?model=alexnet", content=picture())
            await client.post("/classify?model=vgg16", content=picture())
            await until_resident(client, "vgg16")
            text = (await client.get("/metrics")).text
            assert 'topfive_resident_bytes{model="vgg16"} 9e+08' in text
            assert 'topfive_resident_bytes{model="alexnet"} 0.0' in text
            assert 'topfive_footprint_bytes{model="alexnet"} 6e+08' in text
            assert "topfive_memory_limit_bytes 1e+09" in text
            assert (await client.post("/models/vgg16/unload?wait=true")).status_code == 200
    assert found.risen("topfive_loads_total") == {("alexnet", "ok"): 1, ("vgg16", "ok"): 1}
    assert found.risen("topfive_evictions_total") == {("alexnet", "room"): 1, ("vgg16", "asked"): 1}
    assert found.rise("topfive_load_seconds_count") == 2


async def test_a_failed_load_is_counted(tmp_path: Path) -> None:
    fakes = Fakes(tmp_path)

    def load(_checkpoint: object) -> None:
        raise OutOfDeviceMemoryError("no room")

    fakes.load = load  # type: ignore[method-assign, assignment]
    with counted() as found:
        async with fakes.client(warm=False) as client:
            assert (await client.post("/classify?model=lenet5", content=picture())).status_code == 503
    assert found.risen("topfive_loads_total") == {("lenet5", "failed"): 1}
    assert found.risen("topfive_requests_total") == {("lenet5", "out-of-memory", "503"): 1}


async def test_batches_are_counted_by_what_ended_them(tmp_path: Path) -> None:
    fakes = Fakes(tmp_path)
    fakes.limits = Limits(max_batch_size=4)
    async with fakes.client() as client:
        with counted() as found:
            async with fakes.busy(client, "lenet5@mnist"):
                waiting = [
                    asyncio.create_task(client.post("/classify?model=lenet5", content=picture())) for _ in range(6)
                ]
                for _ in range(3_000):
                    await asyncio.sleep(0.001)
                    text = (await client.get("/metrics")).text
                    oldest = float(text.partition('topfive_queue_oldest_seconds{model="lenet5"} ')[2].split()[0])
                    if 'topfive_queue_length{model="lenet5"} 6.0' in text and oldest:
                        break
                assert 0 < oldest < 60
                assert "topfive_in_flight 7.0" in text
            await asyncio.gather(*waiting)
    assert found.risen("topfive_batches_total") == {("drained", "lenet5"): 2, ("full", "lenet5"): 1}
    assert found.rise("topfive_batch_size_sum") == 7
    assert found.rise("topfive_device_seconds_total") > 0


async def test_a_client_that_disconnects_is_counted_as_gone(tmp_path: Path) -> None:
    fakes = Fakes(tmp_path)
    async with fakes.client() as client:
        with counted() as found:
            async with fakes.busy(client, "lenet5@mnist"):
                pass
            received = [{"type": "http.request", "body": b"", "more_body": True}, {"type": "http.disconnect"}]

            async def receive() -> dict[str, object]:
                return received.pop(0)

            async def send(_message: object) -> None: ...

            scope = {"type": "http", "method": "POST", "path": "/classify", "headers": [], "query_string": b""}
            await client._transport.app(scope, receive, send)  # type: ignore[attr-defined]
    assert found.risen("topfive_requests_total") == {("lenet5", "ok", "200"): 1, ("none", "gone", "499"): 1}
    assert found.rise("topfive_in_flight") == 0


@pytest.mark.parametrize("pictures", [1, 3])
async def test_a_request_cancelled_by_the_server_is_counted_as_gone(tmp_path: Path, pictures: int) -> None:
    """Serve itself cancels a request whose client disconnects."""
    fakes = Fakes(tmp_path)
    fakes.settings = Settings(cache_dir=tmp_path, access_log=True)
    files = [("f", (f"{index}.png", picture())) for index in range(pictures)]
    async with fakes.client() as client:
        with counted() as found:
            async with fakes.busy(client, "lenet5@mnist"):
                asking = asyncio.create_task(client.post("/classify?model=lenet5", files=files))
                await asyncio.sleep(0.005)
                asking.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await asking
    assert found.risen("topfive_requests_total") == {("lenet5", "ok", "200"): 1, ("lenet5", "gone", "499"): 1}
    assert found.risen("topfive_pictures_total") == {("lenet5", "ok", "200"): 1, ("lenet5", "gone", "499"): pictures}
    assert found.rise("topfive_in_flight") == 0


async def test_a_defect_in_one_picture_leaves_its_neighbours_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fakes = Fakes(tmp_path)
    broken = picture(200)
    predict = Predictor.predict

    async def failing(self: Predictor, image: bytes, deadline: float, whole: bool, caller: str) -> object:
        if image == broken:
            raise AttributeError("a defect")
        return await predict(self, image, deadline, whole, caller)

    monkeypatch.setattr(Predictor, "predict", failing)
    files = [("a", ("a.png", picture())), ("b", ("b.png", broken))]
    async with fakes.client() as client:
        with counted() as found:
            answer = await client.post("/classify?model=lenet5", files=files)
    assert [entry["status"] for entry in answer.json()["results"]] == [200, 500]
    assert found.risen("topfive_pictures_total") == {("lenet5", "ok", "200"): 1, ("lenet5", "internal", "500"): 1}


async def test_a_picture_that_waits_for_a_load_is_old(tmp_path: Path) -> None:
    fakes = Fakes(tmp_path)
    load, release = fakes.load, threading.Event()

    def slow(checkpoint: Checkpoint) -> Engine:
        assert release.wait(30)
        return load(checkpoint)

    fakes.load = slow  # type: ignore[method-assign]
    async with fakes.client(warm=False) as client:
        asking = asyncio.create_task(client.post("/classify?model=lenet5", content=picture()))
        await asyncio.sleep(0.05)
        text = (await client.get("/metrics")).text
        release.set()
        assert (await asking).status_code == 200
    assert 'topfive_queue_length{model="lenet5"} 1.0' in text
    assert float(text.partition('topfive_queue_oldest_seconds{model="lenet5"} ')[2].split()[0]) > 0


async def test_accuracy_lost_to_a_missing_load_is_not_counted(tmp_path: Path) -> None:
    """It is the memory that is short, not the time."""
    fakes = Fakes(tmp_path)
    fakes.loadable = {"alexnet@imagenet1k", "vgg16@imagenet1k"}
    fakes.profiles = [
        profile("alexnet@imagenet1k", forward_ms=1, footprint_mb=300),
        profile("vgg16@imagenet1k", forward_ms=1, footprint_mb=900, load_ms=5000),
    ]
    async with fakes.client() as client:
        await client.post("/models/vgg16/unload?wait=true")
        with counted() as found:
            assert (await client.post("/classify?latency_ms=1000", content=picture())).status_code == 200
    assert found.risen("topfive_routed_total") == {("alexnet", "not loaded"): 1}
    assert found.rise("topfive_accuracy_debt_sum") == 0


async def test_the_info_of_a_replaced_checkpoint_stays_until_it_is_gone(tmp_path: Path) -> None:
    fakes = Fakes(tmp_path)
    checkpoint = Catalogue(tmp_path).find("lenet5")
    placement = LocalPlacement(fakes.load, Limits())
    await placement.load(checkpoint)
    with counted() as found:
        # As after another import of the same origin.
        other = replace(checkpoint, path=tmp_path / "again.safetensors")
        assert await placement.load(other) is None
        await asyncio.sleep(0.05)
        told = [reading.labels for reading in placement.readings() if reading.name == "topfive_checkpoint_info"]
    await placement.close()
    assert told == [("lenet5", "lenet5@mnist", "mnist", checkpoint.origin, "true")]
    assert found.risen("topfive_evictions_total") == {("lenet5", "replaced"): 1}
