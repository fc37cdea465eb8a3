"""A replica's part in being observed: it serves its metrics beside its requests, and keeps telling one named Ray actor
where (``target_book.py``)."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import ray

from service.config.listening import authority, is_wildcard
from service.domain.errors import NotReadyError
from service.telemetry.exposition import Target, serve_metrics

log = logging.getLogger(__name__)

_NAME, _NAMESPACE = "topfive-metrics-targets", "topfive"
_ASK_WITHIN_S = 2.0
BEAT_EVERY_S = 2.0
#: Who has been silent for so long is gone.
_FORGET_AFTER_S = 10.0
#: Everybody has spoken twice by then.
COMPLETE_AFTER_S = 2 * BEAT_EVERY_S


class RayTargets:
    """The list, as an ingress asks for it.

    Args:
        book: a handle of the actor.
    """

    def __init__(self, book: Any) -> None:
        self._book = book

    async def find(self, job: str) -> Sequence[Target]:
        """As ``Targets.find``."""
        ask = {"topfive": "living", "ray": "nodes", "haproxy": "proxies"}[job]
        try:
            async with asyncio.timeout(_ASK_WITHIN_S):
                found: Sequence[Target] = await getattr(self._book, ask).remote()
                return found
        except (TimeoutError, ray.exceptions.RayError) as error:
            # The actor is being replaced, or its successor has not heard everybody yet.
            log.warning("nobody knows where metrics are served: %s", type(error).__name__)
            raise NotReadyError("the list of processes is being made anew") from error


def expose(host: str) -> RayTargets:
    """Serves this replica's metrics beside its requests, and keeps saying where.

    Args:
        host: what the service listens on. Our metrics are as public as the service is, and no more.
    """
    # Here and not above: the actor's process imports this file, and needs neither.
    from ray import serve

    from service.telemetry.recorder import say_what_this_is

    say_what_this_is()
    context = serve.get_replica_context()
    address = serve_metrics(host)
    if is_wildcard(host):
        # What others can reach; the wildcard itself is no address.
        node: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        address = authority(node, address.rpartition(":")[2])
    target = Target(address, {"deployment": context.deployment, "replica": context.replica_tag})
    # Ray starts the actor again if it dies, and whoever has a handle goes on with it.
    actor: Any = ray.remote(TargetBook)
    book = actor.options(
        name=_NAME, namespace=_NAMESPACE, get_if_exists=True, lifetime="detached", num_cpus=0, max_restarts=-1
    ).remote()
    threading.Thread(target=_beat, args=(book, target), name="metrics-heartbeat", daemon=True).start()
    return RayTargets(book)


def _beat(book: Any, target: Target) -> None:
    """Until the process ends. A thread, so that a busy event loop does not make it look dead."""
    while True:
        try:
            ray.get(book.beat.remote(target), timeout=_ASK_WITHIN_S)
        except Exception as error:
            # The actor is being replaced, or Ray is going down; there is nobody to tell, and the next beat tells all.
            log.debug("no heartbeat: %s", error)
        time.sleep(BEAT_EVERY_S)


def _reconstructed() -> bool:
    context = ray.get_runtime_context()
    return bool(context.get_actor_id() and context.was_current_actor_reconstructed)


class TargetBook:
    """The list, in an actor of its own.

    Args:
        clock: seconds, monotonic.
        began_anew: whether it takes the place of one that has died, and with it what that had heard.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, began_anew: Callable[[], bool] = _reconstructed
    ) -> None:
        self._clock = clock
        self._heard: dict[str, tuple[Target, float]] = {}
        self._complete_at = clock() + (COMPLETE_AFTER_S if began_anew() else 0.0)

    def beat(self, target: Target) -> None:
        """A process lives, and is there."""
        self._heard[target.address] = target, self._clock()

    def living(self) -> list[Target]:
        """Who was heard of lately, by deployment and replica.

        Raises:
            NotReadyError: not everybody can have been heard yet.
        """
        if self._clock() < self._complete_at:
            raise NotReadyError("the list of processes is being made anew")
        since = self._clock() - _FORGET_AFTER_S
        self._heard = {address: heard for address, heard in self._heard.items() if heard[1] >= since}
        return sorted((target for target, _ in self._heard.values()), key=lambda t: (sorted(t.labels.items()), t))

    def nodes(self) -> list[Target]:
        """Where Ray serves the metrics of each of its nodes."""
        return [
            Target(authority(node["NodeManagerAddress"], node["MetricsExportPort"]), {"node": node["NodeName"]})
            for node in _nodes()
            if node.get("MetricsExportPort")
        ]

    def proxies(self) -> list[Target]:
        """Where the HAProxy of each node serves its metrics. They all have the port that the driver chose."""
        port = os.environ.get("RAY_SERVE_HAPROXY_METRICS_PORT")
        if port is None:
            return []
        return [Target(authority(node["NodeManagerAddress"], port), {"node": node["NodeName"]}) for node in _nodes()]


def _nodes() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
