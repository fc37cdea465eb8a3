"""The figures of a run as Markdown, and the section of docs/gpu.md that has them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- make bench-gpu writes from here -->", "<!-- to here -->"
#: From this share of a core on, a process of the load generator may be what limits a rate.
_BUSY = 0.9


def markdown(figures: dict[str, Any]) -> str:
    """The tables of a run."""
    parts = [
        f"On one {figures['device']} with {figures['cores']} CPU cores, PyTorch {figures['torch']}, {figures['date']},"
        f" in {figures['took_s']:,.0f} s of at most {figures['minutes']:g} minutes. Networks have random weights; the"
        " load generator runs on the same machine."
    ]
    if figures["engines"]:
        parts += ["**Engine loops**, pictures a second (ms of one batch alone):", _engines(figures["engines"])]
    if figures["decoding"]:
        parts += [
            "**Decoding by the cores**, a photograph of 500x375 in Pillow:",
            _table(
                ["processes", "pictures/s"], [[row["processes"], _n(row["per_second"])] for row in figures["decoding"]]
            ),
        ]
    if figures["served"]:
        parts += [
            f"**The service**, {figures['connections']} connections, that photograph. The limit is the lower one of the"
            " network's best engine loop and, where the CPU decodes, all cores decoding:",
            _served(figures),
        ]
    if figures["left_out"]:
        parts.append("Left out, by the budget of time or because it failed: " + "; ".join(figures["left_out"]) + ".")
    return "\n\n".join(parts)


def write_section(page: Path, text: str) -> None:
    """Replaces what stands between the markers of a page.

    Raises:
        ValueError: the page has no such markers.
    """
    whole = page.read_text(encoding="utf-8")
    before, begin, rest = whole.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has no section for the tables, between {BEGIN} and {END}")
    written = page.with_suffix(".new")
    written.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")
    written.replace(page)


def limit(figures: dict[str, Any], network: str, decode: str) -> float | None:
    """The rate that the machine's parts would allow a network; None if one of them was not measured."""
    engines = [row["per_second"] for row in figures["engines"] if row["network"] == network]
    cores = [row["per_second"] for row in figures["decoding"]]
    if not engines or (decode == "cpu" and not cores):
        return None
    return float(min(max(engines), max(cores))) if decode == "cpu" else float(max(engines))


def _engines(rows: Sequence[dict[str, Any]]) -> str:
    batches = sorted({row["batch"] for row in rows})
    by_key: dict[tuple[str, str], dict[int, str]] = {}
    for row in rows:
        cell = f"{_n(row['per_second'])} ({row['ms']:.2f})"
        by_key.setdefault((row["network"], row["precision"]), {})[row["batch"]] = cell
    return _table(
        ["network", "precision", *(f"batch {batch}" for batch in batches)],
        [
            [f"`{network}`", precision, *(cells.get(batch, "–") for batch in batches)]
            for (network, precision), cells in by_key.items()
        ],
    )


def _served(figures: dict[str, Any]) -> str:
    rows = []
    for row in figures["served"]:
        at_70, most = row.get("at_70") or {}, limit(figures, row["network"], row["decode"])
        errors = row["errors"] + at_70.get("errors", 0)
        notes = [f"{errors} errors"] * bool(errors)
        notes += ["the load generator is at its limit"] * (row["generator_busy"] > _BUSY)
        rows.append(
            [
                f"`{row['network']}`",
                row["decode"],
                row["fronts"],
                _n(row["per_second"]),
                "–" if most is None else f"{row['per_second'] / most:.2f}",
                _n(row["mean_batch"], 1),
                _n(at_70.get("p50_ms"), 1),
                _n(at_70.get("p99_ms"), 1),
                ", ".join(notes),
            ]
        )
    heads = ["network", "decoding", "fronts", "pictures/s", "of the limit", "mean batch"]
    return _table([*heads, "p50 at 70 %, ms", "p99 at 70 %, ms", ""], rows)


def _n(number: float | None, places: int = 0) -> str:
    return "–" if number is None else f"{number:,.{places}f}"


def _table(heads: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    lines = [list(map(str, heads))]
    lines += [["---"] * len(lines[0]), *(list(map(str, row)) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
