"""``bench/decisions.py`` runs: nothing else calls it, and it uses the router's own parts."""

from __future__ import annotations

import pytest

from bench.decisions import QUEUES, main, scene


async def test_it_times_decisions_over_all_checkpoints() -> None:
    figures = await main(0.2)
    assert figures.pop("checkpoints") == 16
    assert sorted(figures) == ["choose_us", "named_budget_us", "named_us", "router_header_us", "router_us"]
    assert all(microseconds > 0 for microseconds in figures.values())
    # A choice among sixteen is a part of a decision among them.
    assert figures["choose_us"] < figures["router_us"]


@pytest.mark.parametrize("queues", [{}, QUEUES])
async def test_pictures_wait_where_they_should(queues: dict[str, int]) -> None:
    async with scene(queues) as shown:
        snapshots, load = shown.placement.survey(shown.checkpoints, 1000)
        waiting = {c.model: s.queued for c, s in snapshots if s is not None and s.queued}
        assert (waiting, len(load.waiting)) == (queues, len(queues))
        assert (load.busy[""] > 0) == bool(queues)
