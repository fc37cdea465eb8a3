"""The Pareto front: the networks that no other beats in accuracy, latency and memory at once."""

from __future__ import annotations

from collections.abc import Sequence

from loadreport.report import Network


def mark_front(networks: Sequence[Network]) -> None:
    """Sets ``on_front`` of each network by its top-1, the p50 of a lone request and its footprint.

    Only networks of one label set are compared, since accuracies on different label sets are not comparable. A network
    that is the only one of its label set stays unmarked, as does one with a missing figure.
    """
    points = {n.name: point for n in networks if (point := _point(n)) is not None}
    for network in networks:
        mine = points.get(network.name)
        peers = [
            points[n.name] for n in networks if n.labels == network.labels and n is not network and n.name in points
        ]
        network.on_front = None if mine is None or not peers else not any(_beats(peer, mine) for peer in peers)


def _point(network: Network) -> tuple[float, float, float] | None:
    """A network's three figures, of which lower ones are better; None if one is missing."""
    if network.top1 is None or network.alone_p50_ms is None or not network.footprint_mb:
        return None
    return (-network.top1, network.alone_p50_ms, network.footprint_mb)


def _beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))
