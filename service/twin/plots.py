"""Plots of simulations, in the style of the load tests' report."""

from __future__ import annotations

import matplotlib as mpl
from matplotlib.figure import Figure

from loadreport.plots import BAD, MAIN, OTHER, SOFT, STYLE
from service.twin.comparison import POLICIES, Comparison
from service.twin.report import Figures, Report

#: One colour for each policy of a comparison.
COLOURS = (MAIN, OTHER, BAD, "#6a8f2a", "#7d5ba6", "#b08d2e", SOFT, "#3f4a52")


@mpl.rc_context(STYLE)
def classes(report: Report) -> Figure:
    """What became of each class of budget, and which networks answered it."""
    rows: list[tuple[str, Figures]] = [*report.classes.items(), ("all", report.total)]
    figure = Figure(figsize=(10, 1.4 + 0.4 * len(rows)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    places = range(len(rows))
    begun = [0.0] * len(rows)
    parts = (
        ("in time", MAIN, [f.attained for _, f in rows]),
        ("late", BAD, [f.accepted - f.attained for _, f in rows]),
        ("refused", OTHER, [f.offered - f.accepted for _, f in rows]),
    )
    for label, colour, counts in parts:
        shares = [count / max(1, f.offered) for count, (_, f) in zip(counts, rows, strict=True)]
        left.barh(places, shares, left=begun, color=colour, label=label, height=0.7)
        begun = [at + share for at, share in zip(begun, shares, strict=True)]
    left.set_title("of all that was offered")
    left.legend(fontsize=8, ncols=3, loc="lower left", bbox_to_anchor=(0, -0.22), frameon=False)
    names = sorted(
        {name for _, f in rows for name in f.networks}, key=lambda name: (-report.total.networks[name], name)
    )
    begun = [0.0] * len(rows)
    for name, colour in zip(names, COLOURS * (1 + len(names) // len(COLOURS)), strict=False):
        shares = [f.networks.get(name, 0.0) for _, f in rows]
        right.barh(places, shares, left=begun, color=colour, label=name, height=0.7)
        begun = [at + share for at, share in zip(begun, shares, strict=True)]
    right.set_title("of the answers")
    right.legend(fontsize=8, ncols=3, loc="lower left", bbox_to_anchor=(0, -0.3), frameon=False)
    left.set_yticks(places, [name for name, _ in rows])
    left.invert_yaxis()
    for axes in (left, right):
        axes.set_xlim(0, 1)
    return figure


@mpl.rc_context(STYLE)
def loads(comparison: Comparison) -> Figure:
    """Attainment and mean top-1 over the load, a column for each kind of arrivals."""
    kinds = list(dict.fromkeys(point.arrivals for point in comparison.points))
    figure = Figure(figsize=(3.6 * len(kinds) + 0.8, 6.2), layout="constrained")
    grid = figure.subplots(2, len(kinds), sharex=True, sharey="row", squeeze=False)
    for column, kind in enumerate(kinds):
        above, below = grid[0][column], grid[1][column]
        for policy, colour in zip(POLICIES, COLOURS, strict=False):
            points = [p for p in comparison.points if p.arrivals == kind and p.policy == policy]
            at = [point.load for point in points]
            width = 2.4 if policy == "router" else 1.3
            above.plot(
                at, [100 * p.attainment for p in points], color=colour, linewidth=width, marker="o", ms=4, label=policy
            )
            below.plot(at, [p.top1 for p in points], color=colour, linewidth=width, marker="o", ms=4)
        above.set_title(f"{kind} arrivals")
        for axes in (above, below):
            axes.grid(visible=True)
        below.set_xlabel("load, as a multiple of the peak")
    grid[0][0].set_ylabel("attainment, %")
    grid[1][0].set_ylabel("mean top-1 of answers in time, %")
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=8, frameon=False)
    return figure
