"""The list of processes that serve metrics. With Ray itself: ``tests/service/observability/test_observed.py``."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from service.cluster import metrics_targets
from service.cluster.metrics_targets import RayTargets, TargetBook
from service.config.listening import authority
from service.domain.errors import NotReadyError
from service.telemetry.exposition import Target


def test_a_process_that_falls_silent_is_forgotten_after_ten_seconds() -> None:
    now = [100.0]
    book = TargetBook(lambda: now[0], lambda: False)
    one, other = Target("127.0.0.1:1", {"replica": "a"}), Target("127.0.0.1:2", {"replica": "b"})
    book.beat(one)
    book.beat(other)
    now[0] += 9
    book.beat(one)
    assert book.living() == [one, other]
    now[0] += 2
    assert book.living() == [one]
    now[0] += 9
    assert book.living() == []
    book.beat(other)
    assert book.living() == [other]


def test_a_process_that_takes_over_a_port_replaces_the_old_one() -> None:
    book = TargetBook(restarted=lambda: False)
    book.beat(Target("127.0.0.1:1", {"replica": "old"}))
    book.beat(Target("127.0.0.1:1", {"replica": "new"}))
    assert [target.labels["replica"] for target in book.living()] == ["new"]


def test_a_new_actor_in_the_place_of_a_dead_one_waits_until_everybody_has_reported() -> None:
    """An incomplete list would make Prometheus forget the others. Everybody reports every 2 s, so 4 s are enough."""
    now = [100.0]
    book = TargetBook(lambda: now[0], lambda: True)
    target = Target("127.0.0.1:1", {"replica": "a"})
    book.beat(target)
    with pytest.raises(NotReadyError):
        book.living()
    now[0] += 3.9
    with pytest.raises(NotReadyError):
        book.living()
    now[0] += 0.2
    assert book.living() == [target]


def test_exactly_ten_seconds_are_not_too_long() -> None:
    now = [100.0]
    book = TargetBook(lambda: now[0], lambda: False)
    book.beat(Target("127.0.0.1:1", {"replica": "a"}))
    now[0] += 10
    assert len(book.living()) == 1
    now[0] += 0.1
    assert book.living() == []


def test_processes_are_listed_by_deployment_then_replica() -> None:
    book = TargetBook(restarted=lambda: False)
    labels = [("vgg16", "a"), ("ingress", "b"), ("ingress", "a")]
    for port, (deployment, replica) in enumerate(labels):
        book.beat(Target(f"127.0.0.1:{port}", {"replica": replica, "deployment": deployment}))
    assert [(t.labels["deployment"], t.labels["replica"]) for t in book.living()] == sorted(labels)


NODES = [
    {"Alive": True, "NodeManagerAddress": "10.0.0.1", "MetricsExportPort": 8081, "NodeName": "one"},
    {"Alive": False, "NodeManagerAddress": "10.0.0.2", "MetricsExportPort": 8082, "NodeName": "two"},
    {"Alive": True, "NodeManagerAddress": "fd00::3", "MetricsExportPort": 0, "NodeName": "three"},
]


def test_rays_nodes_and_haproxies_are_those_of_living_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "nodes", lambda: NODES)
    book = TargetBook(restarted=lambda: False)
    assert book.nodes() == [Target("10.0.0.1:8081", {"node": "one"})], "a port of 0 is none"
    monkeypatch.delenv("RAY_SERVE_HAPROXY_METRICS_PORT", raising=False)
    assert book.proxies() == []
    monkeypatch.setenv("RAY_SERVE_HAPROXY_METRICS_PORT", "9101")
    assert book.proxies() == [Target("10.0.0.1:9101", {"node": "one"}), Target("[fd00::3]:9101", {"node": "three"})]


class Handle:
    """A handle of the actor whose methods answer with their own name, or as ``outcome`` says."""

    def __init__(self, outcome: BaseException | None = None, after_s: float = 0.0) -> None:
        self._outcome, self._after_s = outcome, after_s

    def __getattr__(self, name: str) -> Any:
        async def remote() -> Any:
            await asyncio.sleep(self._after_s)
            if self._outcome is not None:
                raise self._outcome
            return [Target("127.0.0.1:1", {"asked": name})]

        return type("Method", (), {"remote": staticmethod(remote)})


@pytest.mark.parametrize(("job", "asked"), [("topfive", "living"), ("ray", "nodes"), ("haproxy", "proxies")])
async def test_each_job_is_a_question_to_the_actor(job: str, asked: str) -> None:
    (target,) = await RayTargets(Handle()).find(job)
    assert target.labels == {"asked": asked}


async def test_without_an_answer_the_list_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotReadyError):
        await RayTargets(Handle(ray.exceptions.RayActorError())).find("topfive")
    monkeypatch.setattr(metrics_targets, "_ASK_WITHIN_S", 0.05)
    with pytest.raises(NotReadyError):
        await RayTargets(Handle(after_s=30)).find("topfive")


@pytest.mark.parametrize(
    ("host", "published"), [("127.0.0.1", "127.0.0.1:9999"), ("0.0.0.0", "10.0.0.7:9999"), ("::", "10.0.0.7:9999")]
)
def test_a_replica_publishes_an_address_that_others_can_reach(
    host: str, published: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    beats: list[tuple[Any, Target]] = []
    context = SimpleNamespace(deployment="vgg16", replica_tag="abc")
    options: dict[str, Any] = {}

    def actor(**given: Any) -> Any:
        options.update(given)
        return SimpleNamespace(remote=lambda: "the handle")

    monkeypatch.setattr(ray, "serve", SimpleNamespace(get_replica_context=lambda: context), raising=False)
    monkeypatch.setattr(ray, "remote", lambda _kind: SimpleNamespace(options=actor))
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "10.0.0.7")
    monkeypatch.setattr(metrics_targets, "serve_metrics", lambda given, _: authority(given, 9999))
    monkeypatch.setattr(metrics_targets, "_beat", lambda book, target: beats.append((book, target)))
    found = metrics_targets.expose(host)
    for _ in range(500):
        if beats:
            break
        time.sleep(0.01)
    assert beats == [("the handle", Target(published, {"deployment": "vgg16", "replica": "abc"}))]
    assert found._book == "the handle"
    assert options["get_if_exists"], "all replicas share one actor"
    assert options["max_restarts"] == -1, "Ray restarts it for ever"
