"""What ``compare.py`` keeps and shows: the results' file, a table, the table of docs/load.md, a chart."""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from servers import OURS, PEERS_PYTHON

REFERENCE = "topfive"
_OUR_SERVERS = {server.key for server in OURS}
_FIGURES = (
    "per_second",
    "p50_ms",
    "p99_ms",
    "cpu_s_per_picture",
    "rss_mb",
    "rss_largest_mb",
    "processes",
    "others_cores",
)
_OURS = ("topfive", "torch", "onnxruntime", "ray", "pillow", "uvicorn")
_THEIRS = ("mosec", "litserve", "bentoml")
Cell = dict[str, Any]


def machine(cores: int) -> dict[str, Any]:
    """What was measured on, without its name."""
    cpu = platform.processor()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    memory = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    return {
        "cpu": cpu,
        "cores": cores,
        "memory_gb": round(int(memory.split()[1]) / 1e6),
        "python": sys.version.split()[0],
    }


def versions() -> dict[str, str]:
    """Of what is compared."""
    found = {}
    for name in _OURS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    if PEERS_PYTHON.exists():
        code = f"from importlib.metadata import version as v; print({{n: v(n) for n in {_THEIRS}}})"
        answer = subprocess.check_output([PEERS_PYTHON, "-c", code], text=True, timeout=60)  # noqa: S603 - our own
        found |= json.loads(answer.replace("'", '"'))
    return found


def read(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    results: dict[str, Any] = json.loads(path.read_text())
    return results


def save(results: dict[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(results, indent=1) + "\n")
    part.replace(path)


def classes_in(answer: Any) -> list[int]:
    """The classes of the first picture in anybody's answer, most probable first."""
    while isinstance(answer, dict):
        answer = answer.get("top5")
    while answer and isinstance(answer[0], list):
        answer = answer[0]
    return [int(entry["index"]) for entry in answer or []]


def line(cell: Cell) -> str:
    """One cell as it is measured."""
    head = f"round {cell['round']}: {cell['server']:11} {cell['network']:>9} x{cell['connections']:<3}"
    if cell["errors"]:
        return f"{head} {cell['errors']} errors {cell.get('statuses', '')} {cell.get('failure', '')}"
    return (
        f"{head} {cell['per_second']:8.1f}/s  p50 {cell['p50_ms']:7.1f}  p99 {cell['p99_ms']:7.1f} ms  "
        f"{cell['cpu_s_per_picture'] * 1000:7.2f} CPU ms  {cell['rss_mb']:6.0f} MB in {cell['processes']}  "
        f"others {cell['others_cores']:.1f} cores"
    )


def summary(results: dict[str, Any]) -> dict[tuple[str, int], dict[str, Cell]]:
    """Medians over the rounds: workload -> server -> figures, and the ratio to TopFive's rate. Errors void a cell."""
    found: dict[tuple[str, int], dict[str, list[Cell]]] = {}
    for cell in results["cells"]:
        found.setdefault((cell["network"], cell["connections"]), {}).setdefault(cell["server"], []).append(cell)
    medians: dict[tuple[str, int], dict[str, Cell]] = {}
    for workload, by_server in found.items():
        rows = medians[workload] = {}
        for server, cells in by_server.items():
            errors = sum(cell["errors"] for cell in cells)
            rows[server] = {"errors": errors, "rounds": len(cells)}
            if not errors:
                rows[server] |= {name: statistics.median(cell[name] for cell in cells) for name in _FIGURES}
                rates = [cell["per_second"] for cell in cells]
                rows[server]["spread"] = (max(rates) - min(rates)) / statistics.median(rates)
        reference = rows.get(REFERENCE, {}).get("per_second")
        for row in rows.values():
            if reference and not row["errors"]:
                row["ratio"] = row["per_second"] / reference
    return medians


def table(results: dict[str, Any], titles: dict[str, str]) -> None:
    """One table a workload, on the terminal."""
    console = Console(width=None if sys.stdout.isatty() else 140)
    here = results["machine"]
    console.print(f"{here['cpu']}, {here['cores']} cores; {results['started']}; medians over the rounds")
    for (network, connections), rows in summary(results).items():
        shown = Table(title=f"{network}, {connections} connections", title_justify="left")
        shown.add_column("server")
        for heading in (
            "pictures/s",
            "to TopFive",
            "spread",
            "p50 ms",
            "p99 ms",
            "CPU ms",
            "RSS MB",
            "largest",
            "proc.",
            "others",
        ):
            shown.add_column(heading, justify="right")
        for key in (key for key in titles if key in rows):
            row = rows[key]
            if row["errors"]:
                shown.add_row(name(key, titles), f"{row['errors']} errors", *[""] * 9)
                continue
            shown.add_row(
                name(key, titles),
                f"{row['per_second']:.1f}",
                f"{row['ratio']:.2f}" if "ratio" in row else "",
                f"{row['spread']:.0%}",
                f"{row['p50_ms']:.1f}",
                f"{row['p99_ms']:.1f}",
                f"{row['cpu_s_per_picture'] * 1000:.2f}",
                f"{row['rss_mb']:.0f}",
                f"{row['rss_largest_mb']:.0f}",
                f"{row['processes']:.0f}",
                f"{row['others_cores']:.1f}",
            )
        console.print(shown)
    for note in differing(results):
        console.print(note)


def name(key: str, titles: dict[str, str]) -> str:
    """A server's title and style."""
    return f"{titles[key]} ({key[-1]})" if key[-2:] in ("-t", "-s") else titles[key]


def differing(results: dict[str, Any]) -> list[str]:
    """Servers with TopFive's graph and decode whose classes are not TopFive's: they would compute another thing."""
    classes = {(c["server"], c["network"]): c["classes"] for c in results["cells"] if c.get("classes")}
    return [
        f"{server} answers {network} with classes {found}, TopFive with {ours}"
        for (server, network), found in classes.items()
        if (server in _OUR_SERVERS or server.endswith("-s"))
        and (ours := classes.get((REFERENCE, network), found)) != found
    ]


def markdown(results: dict[str, Any], titles: dict[str, str]) -> str:
    """The table of docs/load.md: a row a server, pictures a second a workload; peers with both styles, (s) and (t)."""
    medians = summary(results)
    head = ["", *(f"{network}, {connections} conn." for network, connections in medians)]
    rows = [head, ["---"] * len(head)]
    families = list(dict.fromkeys(key.removesuffix("-s").removesuffix("-t") for key in titles))
    for family in families:
        keys = [key for key in (family, f"{family}-s", f"{family}-t") if key in titles]
        if not any(key in by_server for key in keys for by_server in medians.values()):
            continue
        cells = [" / ".join(_rate(by_server.get(key)) for key in keys) for by_server in medians.values()]
        rows.append([titles[keys[0]], *cells])
    here = results["machine"]
    said = (
        f"Pictures a second on {here['cores']} cores ({here['cpu']}), {results['started'][:10]}, medians over "
        f"{results['settings']['rounds']} interleaved rounds, p50 in ms in brackets. Of the others the first figure is "
        "with TopFive's graph, threads and decode, the second with torch as their tutorials write it."
    )
    return "\n".join([said, "", *("| " + " | ".join(row) + " |" for row in rows)])


def _rate(row: Cell | None) -> str:
    if row is None:
        return "–"
    if row["errors"]:
        return "errors"
    rate = row["per_second"]
    return f"{rate:.0f} ({row['p50_ms']:.1f})" if rate >= 100 else f"{rate:.1f} ({row['p50_ms']:.0f})"


def colour(key: str) -> str:
    """Of a server's bar: the reference, TopFive's other ways, the limit, and the others by their style."""
    if key in _OUR_SERVERS:
        return "#c0392b" if key == REFERENCE else "#e6a49c"
    if key == "limit":
        return "#999999"
    return "#a6cee3" if key.endswith("-t") else "#2c7fb8"


def plot(results: dict[str, Any], titles: dict[str, str], path: Path) -> None:
    """Bars of the rate relative to TopFive's, a panel a workload."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    medians = summary(results)
    if not medians:
        return
    columns = min(2, len(medians))
    lines = -(-len(medians) // columns)
    height = 0.9 + 0.27 * max(len(rows) for rows in medians.values())
    figure, axes = plt.subplots(lines, columns, figsize=(6.4 * columns, height * lines), squeeze=False)
    for axis in axes.flat[len(medians) :]:
        axis.set_visible(False)
    for axis, ((network, connections), rows) in zip(axes.flat, medians.items(), strict=False):
        keys = [key for key in titles if key in rows]
        rates = [rows[key].get("per_second", 0) for key in keys]
        colours = [colour(key) for key in keys]
        bars = axis.barh([name(key, titles) for key in keys], rates, color=colours)
        axis.bar_label(
            bars, [f"{rate:.0f}" if rate >= 100 else f"{rate:.1f}" if rate else "errors" for rate in rates], padding=3
        )
        axis.invert_yaxis()
        axis.margins(x=0.14)
        axis.set_title(f"{network}, {connections} connection{'s' * (connections > 1)}", loc="left")
        axis.spines[["top", "right"]].set_visible(False)
    here = results["machine"]
    figure.supxlabel(
        f"pictures a second; {here['cores']} cores ({here['cpu']}), {results['started'][:10]}\n"
        "(s): TopFive's graph, threads and decode; (t): as the server's own tutorial writes it, in torch",
        fontsize=9,
    )
    figure.tight_layout()
    part = path.with_suffix(".part.png")
    figure.savefig(part, dpi=110)
    part.replace(path)
    plt.close(figure)
