"""``topfive models``: the table, the JSON, and files that are left out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from models.checkpoints import catalogue as checkpoints
from models.networks.variants import VARIANTS
from service.commands.main import app

runner = CliRunner()


def test_models_as_a_table_and_as_json() -> None:
    table = runner.invoke(app, ["models"])
    assert table.exit_code == 0
    lines = {line.split()[0]: line for line in table.output.splitlines()}
    for words in ("2014", "Simonyan", "138,357,544", "15,470.3 M", "614.4", "71.59", "weights missing", "553 MB"):
        assert words in lines["vgg16@imagenet1k"]
    assert "topfive pull NAME, or offline: topfive import NAME FILE" in table.output
    rows = {row["name"]: row for row in json.loads(runner.invoke(app, ["models", "--json"]).stdout)["models"]}
    assert {row["variant"] for row in rows.values()} == set(VARIANTS)
    assert rows["lenet5@mnist"]["state"] == "loadable"
    assert rows["vgg16@imagenet1k"]["multiply_adds"] == 15_470_264_320
    untrained = json.loads(runner.invoke(app, ["models", "--json", "--untrained"]).stdout)["models"]
    assert {row["state"] for row in untrained} == {"loadable"}
    assert all(row["name"].endswith("@untrained") for row in untrained)


def test_files_that_are_left_out_are_listed_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOPFIVE_CACHE_DIR", str(tmp_path))
    target = checkpoints.Catalogue(tmp_path).path_for(checkpoints.Catalogue(tmp_path).find("lenet5").variant, "mnist")
    target.parent.mkdir()
    target.write_bytes(b"text")
    result = runner.invoke(app, ["models"])
    assert result.exit_code == 0
    assert f"left out {target}: it is not a complete safetensors file" in result.stderr
