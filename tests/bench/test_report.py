"""What is shown of the comparison's results."""

from __future__ import annotations

from typing import Any

import report
from servers import servers

TITLES = {"limit": "limit"} | {key: server.title for key, server in servers().items()}


def cell(server: str, per_second: float, classes: list[int]) -> dict[str, Any]:
    names = ("p99_ms", "cpu_s_per_picture", "rss_mb", "rss_largest_mb", "processes", "others_cores")
    where = {"server": server, "round": 1, "network": "lenet5", "connections": 64, "errors": 0, "classes": classes}
    return {**where, **dict.fromkeys(names, 1.0), "per_second": per_second, "p50_ms": 2.0}


def results(*cells: dict[str, Any]) -> dict[str, Any]:
    machine = {"cpu": "a CPU", "cores": 2}
    return {"machine": machine, "started": "2026-11-28", "settings": {"rounds": 1}, "cells": list(cells)}


def test_each_way_to_serve_topfive_has_a_row_of_its_own_and_peers_have_both_styles_in_one() -> None:
    rates = {"topfive": 200, "solo": 400, "solo-1": 300, "mosec-s": 250}
    found = results(*(cell(key, rate, [1]) for key, rate in rates.items()))
    table = report.markdown(found, TITLES).splitlines()
    assert table[-4:] == [
        "| TopFive, local | 200 (2.0) |",
        "| TopFive, solo, one front | 300 (2.0) |",
        "| TopFive, solo, best fronts | 400 (2.0) |",
        "| MOSEC | 250 (2.0) / – |",
    ]
    assert report.summary(found)["lenet5", 64]["solo"]["ratio"] == 2


def test_ours_and_peers_with_our_graph_must_give_topfives_classes() -> None:
    others = [cell(key, 1, [2]) for key in ("solo", "solo-1", "app", "mosec-s", "mosec-t")]
    notes = report.differing(results(cell("topfive", 1, [1]), *others))
    assert [note.split()[0] for note in notes] == ["solo", "solo-1", "app", "mosec-s"]


def test_ours_have_colours_that_no_other_server_has() -> None:
    colours = {key: report.colour(key) for key in TITLES}
    ours = {colours[key] for key in ("topfive", "solo-1", "solo", "app")}
    assert len(ours) == 2
    assert colours["topfive"] != colours["solo"] == colours["app"]
    assert colours["mosec-s"] != colours["mosec-t"]
    assert not ours & {colours[key] for key in TITLES if key not in ("topfive", "solo-1", "solo", "app")}
