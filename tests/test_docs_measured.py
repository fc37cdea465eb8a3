"""The pages on training, GPUs and speed say what the files beside them say."""

from __future__ import annotations

import csv
import json
import re
import statistics
from collections import defaultdict
from typing import Any

from models.checkpoints.manifest import manifest
from models.networks.variants import VARIANTS
from models.training.recipes import recipe_for
from tests.pages import ROOT, page, table

TRAINING, GPU = page("training"), page("gpu")
REPORTS = ROOT / "docs" / "loadtest" / "h100"


def test_the_checkpoints_accuracies_and_commands_are_the_manifests() -> None:
    rows = re.findall(
        r"^\| `(\w+)@(\w+)` \| `topfive train (\w+) --data .*? --labels (\w+)` \| ([\d.]+) / ([\d.]+) % \|",
        TRAINING,
        re.MULTILINE,
    )
    shipped = [row for row in manifest() if row.file is not None]
    assert [(name, labels, float(top1), float(top5)) for name, labels, *_, top1, top5 in rows] == [
        (row.variant, row.labels, row.top1, row.top5) for row in shipped
    ]
    for name, labels, trained, classes, *_ in rows:
        assert (trained, classes) == (name, labels)
    # Without options, the commands are those that made the files.
    for row in shipped:
        assert row.recipe.startswith(f"{recipe_for(VARIANTS[row.variant], row.labels)}; data sha256 ")


def test_the_charts_have_an_epoch_a_point() -> None:
    for row in manifest():
        if row.file is not None:
            curves = ROOT / "docs" / "training" / f"{row.variant}-{row.labels}.csv"
            epochs = list(csv.DictReader(curves.read_text().splitlines()))
            assert len(epochs) == recipe_for(VARIANTS[row.variant], row.labels).epochs
            assert curves.with_suffix(".png").is_file()


def test_what_a_gpu_takes_is_its_profiles() -> None:
    profiles = json.loads((ROOT / "weights/profiles/nvidia-h100-80gb-hbm3.json").read_text())["profiles"]
    rows = re.findall(r"^\| `(\w+)` \| ([\d.]+) \| ([\d.]+) \| ([\d,]+) \| ([\d,]+) \|$", GPU, re.MULTILINE)
    assert {name: tuple(cells) for name, *cells in rows} == {
        name: _measured(profiles[f"{name}@untrained"]) for name in VARIANTS
    }


def _measured(profile: dict[str, Any]) -> tuple[str, ...]:
    forward = profile["forward"]
    return (
        f"{forward['1']['p50_ms']:.2f}",
        f"{forward['16']['p50_ms']:.2f}",
        f"{profile['load_cached_ms']:,.0f}",
        f"{profile['footprint_bytes'] / 1e6:,.0f}",
    )


def test_what_the_service_gives_on_a_gpu_is_the_reports() -> None:
    def held(name: str) -> dict[str, str]:
        networks = json.loads((REPORTS / name).read_text())["networks"]
        return {n["name"].partition("@")[0]: f"{n['knee']['pictures_per_second']:,.0f}" for n in networks if n["knee"]}

    rows = re.findall(r"^\| `(\w+)` \| ([\d,]+) a second \| (?:([\d,]+) a second)? ?\|$", GPU, re.MULTILINE)
    assert {name: two for name, two, _ in rows} == held("two-decoders.json")
    assert {name: eight for name, _, eight in rows if eight} == held("eight-decoders.json")


#: A row of the page -> the server's key in the results; a peer has two, with our graph and as its tutorial writes it.
SERVERS = {
    "decode and engine in a loop, no HTTP": ["limit"],
    "TopFive, local": ["topfive"],
    "TopFive, solo, one front": ["solo-1"],
    "TopFive, solo, best fronts": ["solo"],
    "TopFive's app, bare uvicorn": ["app"],
    "MOSEC": ["mosec-s", "mosec-t"],
    "LitServe": ["litserve-s", "litserve-t"],
    "BentoML": ["bentoml-s", "bentoml-t"],
    "Ray Serve, @serve.batch": ["ray-s", "ray-t"],
}


def test_how_fast_servers_are_is_the_results_of_the_benchmark() -> None:
    results = json.loads((ROOT / "bench/results/cpu-2-cores.json").read_text())
    measured: dict[tuple[str, str], list[dict[str, float]]] = defaultdict(list)
    for cell in results["cells"]:
        measured[cell["server"], f"{cell['network']}, {cell['connections']} conn."].append(cell)
    text = page("load")
    (heads,) = re.findall(r"^\|  \| (lenet5, 1 conn\..*) \|$", text, re.MULTILINE)
    workloads = heads.split(" | ")
    rows = {name: cells for name, *cells in table(text, "")}
    present = {server for server, _ in measured}
    assert set(rows) == {name for name, keys in SERVERS.items() if keys[0] in present}
    for name, cells in rows.items():
        assert cells == [" / ".join(_speed(measured[key, load]) for key in SERVERS[name]) for load in workloads], name


def _speed(cells: list[dict[str, float]]) -> str:
    rate, p50 = (statistics.median(cell[name] for cell in cells) for name in ("per_second", "p50_ms"))
    return f"{rate:.0f} ({p50:.1f})" if rate >= 100 else f"{rate:.1f} ({p50:.0f})"
