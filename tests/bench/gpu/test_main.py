"""``make bench-gpu`` as a whole, with a pretended device, and its budget."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench.gpu import __main__ as module
from bench.gpu.__main__ import PAGE, Bench, cells, main
from bench.gpu.budget import Budget
from bench.gpu.serving import Cell, StartError

ROOT = Path(__file__).parents[3]


def test_few_fronts_and_all_but_two_cores_and_who_decodes() -> None:
    by_gpu, alone = [Cell("gpu", 14)], [Cell("gpu", 0), Cell("cpu", 0)]
    assert cells(16) == [Cell("cpu", 14), *by_gpu, Cell("cpu", 4), Cell("cpu", 1), *alone]
    assert cells(2) == [Cell("cpu", 1), Cell("gpu", 1), *alone]
    assert cells(4)[:3] == [Cell("cpu", 2), Cell("gpu", 2), Cell("cpu", 1)]


def test_pretended_it_measures_everything_and_writes_no_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before, results = PAGE.read_bytes(), tmp_path / "figures.json"
    monkeypatch.setattr(module, "NETWORKS", ("googlenet", "alexnet"))
    monkeypatch.setattr(module, "_SERVED", 1)
    monkeypatch.setattr(module, "cells", lambda cores: [Cell("cpu", 2)])
    options = ["--pretend", "--minutes", "2", "--seconds", "0.4", "--connections", "4", "--results", str(results)]
    main(options)
    figures = json.loads(results.read_text())
    assert figures["left_out"] == []
    assert figures["pretended"]
    assert {row["network"] for row in figures["engines"]} == {"googlenet", "alexnet"}
    assert [row["fronts"] for row in figures["served"]] == [2]
    assert figures["served"][0]["errors"] == 0
    assert figures["decoding"]
    assert figures["device"] in capsys.readouterr().out
    assert PAGE.read_bytes() == before


def bench(minutes: float, **changes: object) -> Bench:
    options = {"minutes": minutes, "seconds": 0.2, "connections": 4, "pretend": True, **changes}
    return Bench(argparse.Namespace(**options), Budget(60 * minutes))


def test_without_time_everything_is_left_out_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "cells", lambda cores: [Cell("cpu", 4), Cell("gpu", 0)])
    monkeypatch.setattr(module.decoding, "counts", lambda cores: [1, 16])
    figures = bench(0.01).run()
    assert [step.partition(" (")[0] for step in figures["left_out"]] == [
        "engine loops of googlenet",
        "engine loops of vgg16",
        "1 processes that decode",
        "16 processes that decode",
        "served with 4 fronts, cpu decoding",
        "served with 0 fronts, gpu decoding",
        "engine loops of inception_v3",
        "engine loops of alexnet",
    ]
    assert (figures["engines"], figures["decoding"], figures["served"]) == ([], [], [])


def test_an_engine_that_takes_longer_than_the_budget_is_cut_off_and_keeps_what_it_has() -> None:
    found = bench(5 / 60, seconds=400)
    found._engines("googlenet")
    assert found.figures["device"] == "pretended device"
    assert found.figures["left_out"] == ["engine loops of googlenet (cut off)"]


def test_a_service_that_does_not_start_is_left_out_and_the_others_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def cell(self: Bench, cell: Cell, networks: object, folder: object) -> None:
        if cell.decode == "gpu":
            raise StartError("the GPU does not decode: no torchcodec\nand its log")
        self.figures["served"].append(cell.name)

    monkeypatch.setattr(Bench, "_cell", cell)
    monkeypatch.setattr(module, "cells", lambda cores: [Cell("gpu", 0), Cell("cpu", 1)])
    found = bench(1)
    found._served(["googlenet"])
    assert found.figures["served"] == ["served with 1 fronts, cpu decoding"]
    assert found.figures["left_out"] == ["served with 0 fronts, gpu decoding (the GPU does not decode: no torchcodec)"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a CUDA device")
def test_without_a_gpu_it_ends_and_says_what_to_do() -> None:
    command = [sys.executable, "-m", "bench.gpu", "--minutes", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1
    assert "no engine runs on a GPU here; --pretend measures without one" in done.stderr
