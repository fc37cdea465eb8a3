"""``topfive simulate``: options replace what the file says, and the report is printed and written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from service.commands.main import app
from service.twin.ablation import OFF, Ablation, Run
from service.twin.comparison import Comparison, Point
from service.twin.scenario import Scenario
from tests.twins import network, profiles_in


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["simulate", *arguments])


@pytest.fixture
def device(tmp_path: Path) -> str:
    return profiles_in(tmp_path, network("alexnet", 10.0, footprint_mb=30), network("googlenet", 5.0, footprint_mb=30))


def reported(*arguments: str) -> Any:
    done = run(*arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_it_simulates_the_usual_mix(device: str) -> None:
    found = reported("--profile", device, "--rate", "5", "--seconds", "20", "--seed", "3")
    scenario = found["scenario"]
    assert (scenario["rate"], scenario["seconds"], scenario["seed"], scenario["policy"]) == (5, 20, 3, "router")
    assert len(found["classes"]) == 8
    assert found["total"]["offered"] == sum(figures["offered"] for figures in found["classes"].values()) > 70
    assert set(found["total"]["networks"]) == {"alexnet", "googlenet"}


def test_options_replace_what_the_file_says(tmp_path: Path, device: str) -> None:
    file = tmp_path / "scenario.toml"
    file.write_text(f'rate = 3\nseconds = 10\n[[device]]\nprofile = "{device}"\n[[mix]]\nquery = "latency_ms=500"\n')
    assert reported(str(file))["scenario"]["rate"] == 3
    options = ("--rate", "4", "--policy", "constant:alexnet", "--arrivals", "gamma", "--retries", "never")
    found = reported(str(file), *options, "--fronts", "2", "--cores", "3", "--memory-mb", "40")
    scenario = found["scenario"]
    assert [scenario[name] for name in ("rate", "policy", "arrivals", "retries", "fronts", "cores", "seconds")] == [
        4, "constant:alexnet", "gamma", "never", 2, 3, 10
    ]  # fmt: skip
    assert (scenario["device"][0]["memory_mb"], scenario["device"][0]["profile"]) == (40, device)
    assert list(found["total"]["networks"]) == ["alexnet"]


def test_the_report_is_printed_and_written(tmp_path: Path, device: str) -> None:
    out = tmp_path / "a" / "report"
    done = run("--profile", device, "--rate", "2", "--seconds", "10", "--out", str(out))
    assert done.exit_code == 0
    assert sorted(path.name for path in out.iterdir()) == ["classes.svg", "report.json", "report.md"]
    page = (out / "report.md").read_text()
    assert page.startswith("# router at 2 pictures a second")
    assert page in done.stdout
    assert json.loads((out / "report.json").read_text())["scenario"]["rate"] == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--profile", "abacus"), "has no profiles; shipped are"),
        (("--policy", "clever"), "unknown policy 'clever'"),
        (("--rate", "-1"), "rate: "),
        (("nowhere.toml",), "No such file"),
        (("--plan", "rate=many"), "--plan rate=many: "),
    ],
)
def test_what_cannot_be_simulated_is_status_2(arguments: tuple[str, ...], said: str) -> None:
    done = run(*arguments)
    assert done.exit_code == 2
    assert said in done.output


def test_a_report_that_cannot_be_written_is_status_2(tmp_path: Path, device: str) -> None:
    (tmp_path / "file").touch()
    done = run("--profile", device, "--rate", "1", "--seconds", "2", "--out", str(tmp_path / "file" / "out"))
    assert done.exit_code == 2
    assert "cannot write to" in done.output


def test_a_comparison_is_printed_and_written(tmp_path: Path, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def compared(scenario: Scenario, **_options: object) -> Comparison:
        point = Point(
            arrivals="gamma",
            load=1.0,
            rate=12.5,
            policy="router",
            stands_for="router",
            attainment=0.9,
            attainment_accepted=1.0,
            top1=70.0,
            goodput=11.0,
            flips=0,
        )
        return Comparison(scenario=scenario, peak=12.5, points=[point], regrets={})

    monkeypatch.setattr("service.twin.comparison.compare", compared)
    out = tmp_path / "compared"
    done = run("--compare", "--profile", device, "--out", str(out))
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in out.iterdir()) == ["comparison.json", "comparison.md", "loads.svg"]
    assert "The peak is 12.5 pictures a second." in done.stdout
    assert json.loads((out / "comparison.json").read_text())["scenario"]["device"][0]["profile"] == device


def test_the_best_constant_is_found_before_it_runs(device: str) -> None:
    found = reported("--profile", device, "--rate", "1", "--seconds", "5", "--policy", "best-constant")
    assert found["scenario"]["policy"].startswith("classes:")


def test_a_plan_is_printed_and_written(tmp_path: Path, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.twin.plan._PICTURES", 100.0)
    monkeypatch.setattr("service.twin.plan._LEAST_S", 1.0)
    monkeypatch.setattr("service.twin.plan._NEAR", 0.5)
    file = tmp_path / "mix.toml"
    file.write_text('[[mix]]\nquery = "latency_ms=400"\npicture = "thumbnail"\n')
    out = tmp_path / "planned"
    done = run("--plan", f"rate=5000,mix={file}", "--profile", device, "--out", str(out))
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("# 5,000 pictures a second")
    assert sorted(path.name for path in out.iterdir()) == ["plan.json", "plan.md"]


def test_an_ablation_is_printed_and_written(tmp_path: Path, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def ablated(scenario: Scenario, *, ended: Any) -> Ablation:
        runs = [
            Run(
                off=off,
                slower=1.0,
                arrivals="gamma",
                load=1.0,
                seed=1,
                attainment=0.875 if off == "price" else 1.0,
                attainment_accepted=1.0,
                top1=70.0,
                refused=0.0,
            )
            for off in OFF
        ]
        ended(1, 1)
        return Ablation(scenario=scenario, peaks={1.0: 12.5}, runs=runs)

    monkeypatch.setattr("service.twin.ablation.ablate", ablated)
    out = tmp_path / "ablated"
    done = run("--ablate", "--profile", device, "--out", str(out))
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in out.iterdir()) == ["ablation.json", "ablation.md"]
    assert "| price | -12.5, +0.0, +0.0, +0.0 |" in done.stdout
    assert (out / "ablation.md").read_text() in done.stdout
    assert json.loads((out / "ablation.json").read_text())["scenario"]["device"][0]["profile"] == device
    assert json.loads(run("--ablate", "--profile", device, "--json").stdout)["peaks"] == {"1.0": 12.5}
