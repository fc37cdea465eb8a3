"""How much the metrics of this process rise during a block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from service.telemetry.metrics import REGISTRY

Series = tuple[str, frozenset[tuple[str, str]]]


class Counted:
    """By how much each series has risen."""

    def __init__(self) -> None:
        self._before = _read()
        self._after: dict[Series, float] = {}

    def end(self) -> None:
        self._after = _read()

    def rise(self, name: str, **labels: str) -> float:
        """The rise of all series of that name that have these labels, added up."""
        return sum(
            value - self._before.get((found, having), 0.0)
            for (found, having), value in self._after.items()
            if found == name and labels.items() <= dict(having).items()
        )

    def risen(self, name: str) -> dict[tuple[str, ...], float]:
        """The rises of the series of that name that rose, by the labels' values in the order of the labels' names."""
        rises = {}
        for (found, having), value in self._after.items():
            rise = value - self._before.get((found, having), 0.0)
            if found == name and rise:
                rises[tuple(value for _, value in sorted(having))] = rise
        return rises


@contextmanager
def counted() -> Iterator[Counted]:
    """Counts during a block; the rises are known at its end."""
    found = Counted()
    yield found
    found.end()


def _read() -> dict[Series, float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in REGISTRY.collect()
        for sample in family.samples
    }
