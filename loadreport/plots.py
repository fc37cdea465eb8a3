"""The report's plots, as SVG and PNG."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from loadreport.formatting import number
from loadreport.report import REFERENCE, Network, Report

#: Greys that can be read on white and on black: the figures themselves have no background.
INK, SOFT = "#808a91", "#9aa5ab"
MAIN, OTHER, BAD = "#2a8fb3", "#d1702c", "#c0392b"
STYLE: dict[str, Any] = {
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "font.family": "sans-serif",
    "grid.alpha": 0.25,
    # Ids and text of an SVG that depend on nothing but the figure.
    "svg.fonttype": "none",
    "svg.hashsalt": "topfive",
    "text.color": INK,
    # A name with dollar signs in it is no formula.
    "text.parse_math": False,
    "xtick.color": INK,
    "xtick.labelsize": 9,
    "ytick.color": INK,
    "ytick.labelsize": 9,
}


@mpl.rc_context(STYLE)
def plots(report: Report) -> dict[str, Figure]:
    """The plots by their names, without those that the report has no figures for."""
    drawn: dict[str, Callable[[Report], Figure | None]] = {
        "per_gib": _per_gib,
        "front": _front,
        "budgets": _budgets,
        "steps": _steps,
    }
    return {name: figure for name, draw in drawn.items() if (figure := draw(report)) is not None}


def svg(figure: Figure) -> str:
    """An SVG document without a background; the same figure gives the same text."""
    return _render(figure, "svg", transparent=True, metadata={"Date": None}).decode()


def png(figure: Figure) -> bytes:
    """A PNG on white, for pages that show no SVG."""
    return _render(figure, "png", dpi=130, facecolor="white")


@mpl.rc_context(STYLE)
def _render(figure: Figure, form: str, **options: Any) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format=form, **options)
    return out.getvalue()


def _per_gib(report: Report) -> Figure | None:
    """Pictures a second per GiB beside its two parts: pictures a second and footprint."""
    shown = [network for network in _of_one_task(report, report.ranked()) if network.per_gib is not None]
    if not shown:
        return None
    figure = Figure(figsize=(10, 1.3 + 0.42 * len(shown)), layout="constrained")
    left, middle, right = figure.subplots(1, 3, sharey=True, width_ratios=(2, 1, 1))
    colours = [OTHER if network.variant == REFERENCE else MAIN for network in shown]
    panels: tuple[tuple[Axes, list[float], str], ...] = (
        (left, [network.per_gib or 0.0 for network in shown], "pictures/s per GiB"),
        (middle, [network.knee.pictures_per_second if network.knee else 0.0 for network in shown], "pictures/s"),
        (right, [network.footprint_mb or 0.0 for network in shown], "footprint, MB"),
    )
    for axes, values, title in panels:
        bars = axes.barh(range(len(shown)), values, color=colours, height=0.7)
        texts = [_with_ratio(report, n) if axes is left else number(v) for n, v in zip(shown, values, strict=True)]
        axes.bar_label(bars, texts, padding=3, fontsize=9)
        axes.set_title(title)
        axes.set_xlim(0, max(values) * (1.6 if axes is left else 1.35))
        axes.set_xticks([])
        axes.spines["bottom"].set_visible(False)
    left.set_yticks(range(len(shown)), [network.variant for network in shown])
    left.invert_yaxis()
    figure.supxlabel(_caption(report, shown), fontsize=8, x=0.01, ha="left")
    return figure


def _of_one_task(report: Report, networks: list[Network]) -> list[Network]:
    """The networks of VGG-16's label set, or else of the most frequent one; others would set the scale."""
    reference = report.reference()
    counts = Counter(network.labels for network in networks)
    task = reference.labels if reference is not None else max(counts, key=lambda labels: counts[labels], default="")
    return [network for network in networks if network.labels == task]


def _with_ratio(report: Report, network: Network) -> str:
    ratio = report.ratio(network)
    text = number(network.per_gib)
    return text if ratio is None or network.variant == REFERENCE else f"{text}  ({number(ratio)} x VGG-16)"


def _caption(report: Report, shown: list[Network]) -> str:
    partial = "PARTIAL; " if report.partial else ""
    device = f"{report.device}; " if report.device else ""
    limit = f"p99 within {report.p99_limit_ms:,.0f} ms"
    return f"{partial}at the highest rate with {limit}; {shown[0].labels}; {device}{report.created[:10]}"


def _front(report: Report) -> Figure | None:
    """Accuracy over memory and over latency, with full points for networks on the front."""
    shown = [network for network in _of_one_task(report, report.networks) if network.on_front is not None]
    if not shown:
        return None
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, title, values in (
        (left, "footprint, MB", [n.footprint_mb or 0.0 for n in shown]),
        (right, "p50 of a lone request, ms", [n.alone_p50_ms or 0.0 for n in shown]),
    ):
        for network, x in zip(shown, values, strict=True):
            face = MAIN if network.on_front else "none"
            axes.scatter([x], [network.top1], s=70, facecolor=face, edgecolor=MAIN, linewidths=1.5, zorder=3)
        _label(axes, [(network.variant, x, network.top1 or 0.0) for network, x in zip(shown, values, strict=True)])
        axes.set_xscale("log")
        axes.margins(x=0.22, y=0.16)
        axes.set_xlabel(f"{title} (log)")
        axes.set_xlim(min(values) / 1.6, max(values) * 1.6)
        axes.set_xticks(*_few_ticks(*axes.get_xlim()))
        axes.minorticks_off()
        axes.grid(visible=True)
    left.set_ylabel(f"top-1, % ({shown[0].labels})")
    left.set_title("Full: on the front of accuracy, latency and memory")
    return figure


def _few_ticks(low: float, high: float) -> tuple[list[float], list[str]]:
    """The ticks 1, 2, 5, 10, ... within a range, as positions and as texts."""
    ticks = [m * 10.0**e for e in range(-2, 7) for m in (1, 2, 5) if low <= m * 10.0**e <= high]
    return ticks, [f"{tick:,g}" if tick < 1e6 else f"{tick:,.0f}" for tick in ticks]


def _label(axes: Axes, points: list[tuple[str, float, float]]) -> None:
    """Writes names above their points, or below where another name is in the way."""
    placed: list[tuple[float, float]] = []
    for name, x, y in sorted(points, key=lambda point: -point[2]):
        near = any(1 / 1.7 < x / other_x < 1.7 and abs(y - other_y) < 1.8 for other_x, other_y in placed)
        placed.append((x, y))
        axes.annotate(
            name,
            (x, y),
            (0, -8 if near else 8),
            textcoords="offset points",
            ha="center",
            va="top" if near else "bottom",
            fontsize=9,
        )


def _budgets(report: Report) -> Figure | None:
    """p50 and p99 of each class with a latency budget, relative to the budget."""
    run = report.budget_run
    shown = [b for b in run.budgets if b.budget_ms and b.p99_ms is not None and b.p50_ms is not None] if run else []
    if not shown:
        return None
    figure = Figure(figsize=(10, 1.2 + 0.4 * len(shown)), layout="constrained")
    axes = figure.subplots()
    for i, budget in enumerate(shown):
        assert budget.budget_ms is not None
        assert budget.p50_ms is not None
        assert budget.p99_ms is not None
        low, high = budget.p50_ms / budget.budget_ms, budget.p99_ms / budget.budget_ms
        colour = BAD if high > 1 else MAIN
        axes.plot([low, high], [i, i], color=colour, linewidth=3, solid_capstyle="round")
        axes.scatter([low], [i], color=colour, s=36, zorder=3)
        end: dict[str, Any] = {"xytext": (7, 0), "textcoords": "offset points", "va": "center"}
        axes.annotate(f"p99 {budget.p99_ms:,.0f} ms", (high, i), fontsize=8, **end)
    axes.axvline(1, color=OTHER, linewidth=1.2, linestyle="--")
    axes.set_yticks(range(len(shown)), [budget.name for budget in shown])
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.margins(x=0.15)
    axes.set_title("p50 (point) to p99 (end), over the budget (dashed)")
    return figure


def _steps(report: Report) -> Figure | None:
    """p99 over the rate of each step, one panel for each network: it shows the knee."""
    shown = [n for n in report.ranked() if any(step.p99_ms is not None for step in n.steps)]
    if not shown:
        return None
    columns = min(3, len(shown))
    lines = -(-len(shown) // columns)
    figure = Figure(figsize=(10, 2.5 * lines + 0.3), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False)
    for axes in grid.flat[len(shown) :]:
        axes.set_visible(False)
    for axes, network in zip(grid.flat, shown, strict=False):
        for step in network.steps:
            if step.p99_ms is not None:
                colour = MAIN if step.held else BAD
                marker = "D" if step.confirmation else "o"
                axes.scatter([step.rate], [step.p99_ms], color=colour, marker=marker, s=34, zorder=3)
        axes.axhline(report.p99_limit_ms, color=OTHER, linewidth=1.2, linestyle="--")
        axes.set_yscale("log")
        axes.margins(x=0.15, y=0.2)
        axes.set_yticks(*_few_ticks(*axes.get_ylim()))
        axes.minorticks_off()
        axes.set_title(network.variant)
        axes.grid(visible=True)
    legend = "circles: looks, diamonds: confirmations; red: did not hold; dashed: the limit of p99"
    figure.supxlabel(f"requests a second ({legend})", fontsize=9)
    figure.supylabel("p99, ms (log)", fontsize=9)
    return figure
