"""Knows where all processes of the service serve their metrics.

Every replica serves its metrics on a port of its own and reports the address to a named Ray actor, the ``TargetBook``,
every few seconds. The actor forgets a replica that stops reporting. The ingress asks it for ``GET /metrics/targets``.
"""

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
from service.telemetry.exposition import MayRead, Target, serve_metrics

log = logging.getLogger(__name__)

_NAME, _NAMESPACE = "topfive-metrics-targets", "topfive"
_ASK_WITHIN_S = 2.0
BEAT_EVERY_S = 2.0
#: A process that has not reported for this time is forgotten.
_FORGET_AFTER_S = 10.0
#: After this time every process has reported at least once, most of them twice.
COMPLETE_AFTER_S = 2 * BEAT_EVERY_S


class RayTargets:
    """Asks the actor for the list, on behalf of an ingress.

    Args:
        book: the handle of the actor.
    """

    def __init__(self, book: Any) -> None:
        self._book = book

    async def find(self, job: str) -> Sequence[Target]:
        """See ``Targets.find``."""
        ask = {"topfive": "living", "ray": "nodes", "haproxy": "proxies"}[job]
        try:
            async with asyncio.timeout(_ASK_WITHIN_S):
                found: Sequence[Target] = await getattr(self._book, ask).remote()
                return found
        except (TimeoutError, ray.exceptions.RayError) as error:
            # The actor is being replaced.
            log.warning("cannot find out where metrics are served: %s", type(error).__name__)
            raise NotReadyError("the list of processes is being made anew") from error


def expose(host: str, may_read: MayRead | None = None) -> RayTargets:
    """Serves this replica's metrics on a port of its own and keeps reporting the address to the actor.

    Args:
        host: where the service listens. Its metrics listen there too, so they are as public as the service.
        may_read: says which requests may read them; by default all.
    """
    # Imported here, because the actor's process imports this file and needs neither.
    from ray import serve

    from service.telemetry.recorder import set_build_info

    set_build_info()
    context = serve.get_replica_context()
    address = serve_metrics(host, may_read)
    if is_wildcard(host):
        # A wildcard is no address to connect to: it is replaced by the node's address.
        node: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        address = authority(node, address.rpartition(":")[2])
    target = Target(address, {"deployment": context.deployment, "replica": context.replica_tag})
    # If the actor dies, Ray starts it again, and existing handles keep working.
    actor: Any = ray.remote(TargetBook)
    book = actor.options(
        name=_NAME, namespace=_NAMESPACE, get_if_exists=True, lifetime="detached", num_cpus=0, max_restarts=-1
    ).remote()
    threading.Thread(target=_beat, args=(book, target), name="metrics-heartbeat", daemon=True).start()
    return RayTargets(book)


def _beat(book: Any, target: Target) -> None:
    """Reports the target until the process ends. Runs in a thread: a busy event loop must not make a replica look
    dead."""
    while True:
        try:
            ray.get(book.beat.remote(target), timeout=_ASK_WITHIN_S)
        except Exception as error:
            # The actor is being replaced, or Ray stops. The next report makes up for this one.
            log.debug("the report was not delivered: %s", error)
        time.sleep(BEAT_EVERY_S)


def _reconstructed() -> bool:
    """Whether this is an actor that Ray started again after it died."""
    context = ray.get_runtime_context()
    return bool(context.get_actor_id() and context.was_current_actor_reconstructed)


class TargetBook:
    """The list of processes that report where they serve metrics. Runs as a Ray actor.

    Args:
        clock: monotonic seconds.
        restarted: whether this actor replaces one that died; its list is lost.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, restarted: Callable[[], bool] = _reconstructed
    ) -> None:
        self._clock = clock
        self._heard: dict[str, tuple[Target, float]] = {}
        self._complete_at = clock() + (COMPLETE_AFTER_S if restarted() else 0.0)

    def beat(self, target: Target) -> None:
        """Notes that a process is alive and where it serves its metrics."""
        self._heard[target.address] = target, self._clock()

    def living(self) -> list[Target]:
        """The processes that have reported recently, ordered by deployment and replica.

        Raises:
            NotReadyError: this actor is new, and some processes may not have reported yet.
        """
        if self._clock() < self._complete_at:
            raise NotReadyError("the list of processes is being made anew")
        since = self._clock() - _FORGET_AFTER_S
        self._heard = {address: heard for address, heard in self._heard.items() if heard[1] >= since}
        return sorted((target for target, _ in self._heard.values()), key=lambda t: (sorted(t.labels.items()), t))

    def nodes(self) -> list[Target]:
        """Where Ray serves the metrics of each node."""
        return [
            Target(authority(node["NodeManagerAddress"], node["MetricsExportPort"]), {"node": node["NodeName"]})
            for node in _nodes()
            if node.get("MetricsExportPort")
        ]

    def proxies(self) -> list[Target]:
        """Where the HAProxy of each node serves its metrics: on the port that the driver chose."""
        port = os.environ.get("RAY_SERVE_HAPROXY_METRICS_PORT")
        if port is None:
            return []
        return [Target(authority(node["NodeManagerAddress"], port), {"node": node["NodeName"]}) for node in _nodes()]


def _nodes() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
