"""``bench/peers/decision.py`` runs: nothing else calls it, and it uses the router's own parts."""

from __future__ import annotations

from bench.peers.decision import main


async def test_it_times_all_checkpoints_idle_and_with_queues() -> None:
    figures = await main(0.01)
    assert figures.pop("checkpoints") == 16
    assert sorted(figures) == ["choose_all_queued_us", "choose_us", "survey_and_choose_us"]
    assert all(microseconds > 0 for microseconds in figures.values())
