"""``topfive profile``: which checkpoints it measures, where profiles go, and what a failure leaves."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from models.checkpoints.catalogue import Checkpoint
from service.commands import profile as profile_command
from service.commands.main import app
from service.profiling.precision import Choice, Tried
from service.profiling.profiler import ProfilingError
from service.profiling.profiles import Latency, Profile
from tests.profiles import latency, profile


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["profile", "--device", "cpu", *arguments])


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """The checkpoints that are measured, with the options; NiN cannot be."""
    asked: list[tuple[str, dict[str, Any]]] = []

    def measure(checkpoint: Checkpoint, loader: Any, **options: Any) -> Profile:
        loaded = {name: getattr(loader, name) for name in ("threads", "device", "max_batch_size", "precision")}
        asked.append((checkpoint.name, options | loaded))
        if checkpoint.variant.name == "nin":
            raise ProfilingError("nin cannot be [measured]")
        found = profile(checkpoint.name, load_ms=7.4, footprint_mb=123.4)
        forward = {
            1: Latency(mean_ms=2.9, p50_ms=2.5, p95_ms=3.5, p99_ms=9.0, runs=9),
            16: Latency(mean_ms=32.0, p50_ms=30.0, p95_ms=41.0, p99_ms=50.0, runs=9),
        }
        return found.model_copy(
            update={"forward": forward, "decode": {"medium": latency(4.25)}, "load_cold_ms": 2000.4}
        )

    monkeypatch.setattr(profile_command, "measure_apart", measure)
    return asked


def test_profiles_are_a_table_and_a_file(
    measured: list[tuple[str, dict[str, Any]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOPFIVE_MAX_BATCH_SIZE", "5")
    out = tmp_path / "mine.json"
    result = run("lenet5", "googlenet@cifar10", "--output", str(out), "--threads", "3", "--seconds", "0.5")
    assert result.exit_code == 0, result.output
    expected = {"seconds": 0.5, "quick": False, "threads": 3, "device": "cpu"}
    expected |= {"max_batch_size": 5, "precision": "float32"}
    assert measured == [("lenet5@mnist", expected), ("googlenet@cifar10", expected)]
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[1] == ["lenet5@mnist", "2.5", "3.5", "41", "3.4", "7", "2,000", "123"]
    assert lines[-1] == ["written", str(out)]
    assert set(json.loads(out.read_text())["profiles"]) == {"lenet5@mnist", "googlenet@cifar10"}


def test_a_gpu_has_columns_for_waking_and_the_chosen_precision() -> None:
    tried = {"float16": Tried(agreement=1, time_ratio=0.5)}
    choice = Choice.model_validate({"precision": "float16", "count": 512, "classes": 64, "tried": tried})
    decode = {"medium": latency(4.25)}
    plain = profile("vgg16@imagenet1k").model_copy(update={"decode": decode})
    gpu = profile(precision="float16").model_copy(update={"wake_ms": 43.4, "choice": choice, "decode": decode})
    rows = [[str(cell) for cell in column.cells] for column in profile_command._table([gpu, plain]).columns[-2:]]
    assert rows == [["43", ""], ["float16", "float32"]]
    assert len(profile_command._table([plain]).columns) == 8


def test_without_names_everything_that_has_weights_is_measured_on_all_cores(
    measured: list[tuple[str, dict[str, Any]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(7)))
    result = run("--output", str(tmp_path / "mine.json"), "--json")
    assert result.exit_code == 0
    names = {entry["checkpoint"] for entry in json.loads(result.stdout)["profiles"]}
    assert names == {name for name, _ in measured} == {"lenet5@mnist", "googlenet@cifar10", "inception_v2@cifar10"}
    assert {options["threads"] for _, options in measured} == {7}


def test_a_failure_costs_no_other_profile_and_is_the_exit_status(
    measured: list[tuple[str, dict[str, Any]]], tmp_path: Path
) -> None:
    out = tmp_path / "mine.json"
    result = run("nin", "lenet5", "--untrained", "--output", str(out))
    assert result.exit_code == 1
    assert "error: nin cannot be [measured]" in result.stderr
    assert set(json.loads(out.read_text())["profiles"]) == {"lenet5@untrained"}


def test_what_cannot_be_measured_at_all_is_one_line(measured: list[tuple[str, dict[str, Any]]]) -> None:
    for arguments, says in (
        (["vgg16"], "topfive pull vgg16"),
        (["resnet50"], "unknown model 'resnet50'"),
        (["lenet5", "--device", "cuda:99"], "cuda:99 is not here"),
    ):
        result = run(*arguments)
        assert result.exit_code == 1
        assert says in result.stderr
        assert len(result.stderr.splitlines()) == 1
    assert measured == []


@pytest.mark.parametrize("writable", [True, False])
def test_profiles_go_to_the_shipped_ones_or_where_it_is_allowed(
    writable: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = tmp_path / "shipped"
    shipped.mkdir()
    monkeypatch.setattr(profile_command, "shipped_folder", lambda: shipped)
    monkeypatch.setattr(os, "access", lambda path, mode: writable and (path, mode) == (shipped, os.W_OK))
    expected = shipped / "cpu-2.json" if writable else tmp_path / "cache" / "profiles" / "cpu-2.json"
    assert profile_command._default_path(tmp_path / "cache", "cpu-2") == expected
