"""Where the service's processes serve their metrics: each says so again and again, and one that has died falls silent
and is forgotten. Lives in a Ray actor of its own."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from service.exposition import Target

#: Who has been silent for so long is gone.
_FORGET_AFTER_S = 10.0


class TargetBook:
    """The list, in an actor of its own.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._heard: dict[str, tuple[Target, float]] = {}

    def beat(self, target: Target) -> None:
        """A process lives, and is there."""
        self._heard[target.address] = target, self._clock()

    def living(self) -> list[Target]:
        """Who was heard of lately, by deployment and replica."""
        since = self._clock() - _FORGET_AFTER_S
        self._heard = {address: heard for address, heard in self._heard.items() if heard[1] >= since}
        return sorted((target for target, _ in self._heard.values()), key=lambda t: (sorted(t.labels.items()), t))

    def nodes(self) -> list[Target]:
        """Where Ray serves the metrics of each of its nodes."""
        return [
            Target(f"{node['NodeManagerAddress']}:{node['MetricsExportPort']}", {"node": node["NodeName"]})
            for node in _nodes()
            if node.get("MetricsExportPort")
        ]

    def proxies(self) -> list[Target]:
        """Where the HAProxy of each node serves its metrics. They all have the port that the driver chose."""
        port = os.environ.get("RAY_SERVE_HAPROXY_METRICS_PORT")
        return [Target(f"{node['NodeManagerAddress']}:{port}", {"node": node["NodeName"]}) for node in _nodes() if port]


def _nodes() -> list[dict[str, Any]]:
    # Here and not above: only the actor's process asks.
    import ray

    return [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
