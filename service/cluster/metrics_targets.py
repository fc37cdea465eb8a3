"""A replica's part in being observed: it serves its metrics beside its requests, and keeps telling one named Ray actor
where (``target_book.py``)."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Sequence
from typing import Any

import ray
from ray import serve

from service.cluster.target_book import BEAT_EVERY_S, TargetBook
from service.config.listening import authority, is_wildcard
from service.domain.errors import NotReadyError
from service.telemetry.exposition import Target, serve_metrics
from service.telemetry.recorder import set_build_info

log = logging.getLogger(__name__)

_NAME, _NAMESPACE = "topfive-metrics-targets", "topfive"
_ASK_WITHIN_S = 2.0


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
    set_build_info()
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
