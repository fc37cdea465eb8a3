"""A simulation's report in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from service.twin.report import Figures, Report

_COLUMNS = (
    "budget",
    "offered",
    "let in",
    "in time",
    "of let in",
    "goodput /s",
    "mean top-1",
    "p50 ms",
    "p95 ms",
    "refused",
    "back in time",
    "told s",
    "wave s",
    "changes",
    "flips",
)


def markdown(report: Report) -> str:
    """The report as a page."""
    scenario, decision = report.scenario, report.decision_us
    devices = ", ".join(f"{device.count} x {device.profile}" for device in scenario.device)
    rows = [*report.classes.items(), ("**all**", report.total)]
    lines = [
        f"# {scenario.policy} at {scenario.rate:g} pictures a second",
        "",
        f"{scenario.arrivals} arrivals for {scenario.seconds:g} s, seed {scenario.seed}; {devices}; "
        f"{scenario.fronts} fronts of {scenario.cores} cores; refused callers come back: {scenario.retries}.",
        "",
        table(_COLUMNS, [_row(name, figures) for name, figures in rows]),
        "",
        "| network | " + " | ".join(name for name, _ in rows) + " |",
        "|---|" + "---:|" * len(rows),
        *_networks(rows),
        "",
        f"Devices computed {report.busy:.1%} of the time; {report.loads} loads, {report.evictions} evictions. "
        f"A decision took {decision['p50']:.0f} us (p50), {decision['p95']:.0f} us (p95) of this machine.",
        "",
    ]
    return "\n".join(lines)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown; all columns but the first are numbers."""
    lines = ["| " + " | ".join(columns) + " |", "|---|" + "---:|" * (len(columns) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def _row(name: str, figures: Figures) -> list[str]:
    refused = ", ".join(f"{count} {kind}" for kind, count in figures.refused.items())
    return [
        name if name.startswith("**") else f"`{name}`",
        f"{figures.offered:,}",
        f"{figures.accepted:,}",
        f"{figures.attainment:.1%}",
        f"{figures.attainment_accepted:.1%}",
        f"{figures.goodput:.2f}",
        f"{figures.top1:.2f}",
        f"{figures.p50_ms:.0f}",
        f"{figures.p95_ms:.0f}",
        refused or "none",
        f"{figures.kept:.0%} of {figures.came_back}",
        f"{figures.told_s:.1f}",
        f"{figures.wave_s:.1f}",
        f"{figures.changes}",
        f"{figures.flips}",
    ]


def _networks(rows: Sequence[tuple[str, Figures]]) -> list[str]:
    names = sorted({name for _, figures in rows for name in figures.networks})
    return [
        f"| {name} | " + " | ".join(f"{figures.networks.get(name, 0.0):.1%}" for _, figures in rows) + " |"
        for name in names
    ]
