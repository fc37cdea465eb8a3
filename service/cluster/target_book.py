"""Where the service's processes serve their metrics: each says so again and again, and one that has died falls silent
and is forgotten. Lives in a Ray actor of its own."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from service.config.listening import authority
from service.domain.errors import NotReadyError
from service.telemetry.exposition import Target

BEAT_EVERY_S = 2.0
#: Who has been silent for so long is gone.
_FORGET_AFTER_S = 10.0
#: Everybody has spoken twice by then.
COMPLETE_AFTER_S = 2 * BEAT_EVERY_S


def _reconstructed() -> bool:
    # Here and not above: only the actor's process asks.
    import ray

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
    # Here and not above: only the actor's process asks.
    import ray

    return [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
