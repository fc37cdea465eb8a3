"""``topfive classify``: what it prints, and one line for what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from models.checkpoints import catalogue as checkpoints
from service.commands.main import app
from tests.pictures import DIGIT

runner = CliRunner()


@pytest.mark.usefixtures("filled_cache")
def test_classify_prints_labels_and_json() -> None:
    words = runner.invoke(app, ["classify", "lenet5", str(DIGIT), "-k", "1"])
    assert words.exit_code == 0
    assert words.output.split()[-1] == "3"
    answer = json.loads(runner.invoke(app, ["classify", "lenet5", str(DIGIT), "--json"]).stdout)
    assert answer["top5"][0]["label"] == "3"
    assert set(answer) == {"model", "checkpoint", "top5", "timings_ms", "batch_size"}


@pytest.mark.usefixtures("filled_cache")
def test_classify_several_files_of_which_one_is_bad(tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"text")
    result = runner.invoke(app, ["classify", "lenet5", str(DIGIT), str(bad), "--json"])
    assert result.exit_code == 1
    assert [entry["status"] for entry in json.loads(result.stdout)["results"]] == [200, 422]
    assert "no picture" in result.stderr


@pytest.mark.usefixtures("filled_cache")
def test_classify_reads_standard_input() -> None:
    result = runner.invoke(app, ["classify", "lenet5", "-", "--json"], input=DIGIT.read_bytes())
    assert json.loads(result.stdout)["top5"][0]["label"] == "3"


def test_a_bad_environment_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOPFIVE_MAX_PIXELS", "many")
    result = runner.invoke(app, ["classify", "lenet5", str(DIGIT)])
    assert result.exit_code == 2
    assert "TOPFIVE_MAX_PIXELS" in result.output


def test_damaged_weights_are_one_line_on_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOPFIVE_CACHE_DIR", str(tmp_path))
    lenet = checkpoints.Catalogue(tmp_path).find("lenet5")
    assert lenet.path is not None
    target = checkpoints.Catalogue(tmp_path).path_for(lenet.variant, "mnist")
    target.parent.mkdir()
    target.write_bytes(lenet.path.read_bytes().replace(b"output.weight", b"output.weigth"))
    result = runner.invoke(app, ["classify", "lenet5", str(DIGIT)])
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {target} does not fit lenet5: output.weight is missing")
    assert len(result.stderr.splitlines()) == 1


def test_random_weights_are_said_and_trained_ones_are_not(
    untrained_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOPFIVE_CACHE_DIR", str(untrained_cache))
    random = runner.invoke(app, ["classify", "lenet5", str(DIGIT), "--untrained"])
    assert random.output.splitlines()[0].split()[-2:] == ["lenet5@untrained", "untrained"]
    trained = runner.invoke(app, ["classify", "lenet5", str(DIGIT)])
    assert trained.output.splitlines()[0].split()[-1] == "lenet5@mnist"
    assert len(trained.output.splitlines()) == 6
