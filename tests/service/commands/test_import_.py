"""``topfive import``: a checkpoint of one's own takes the place of the one in the box."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from models import get_model
from models.checkpoints.catalogue import Catalogue
from models.networks.variants import Variant
from service.commands.main import app
from tests.pictures import DIGIT

runner = CliRunner()


def test_import_then_classify(tmp_path: Path, own_cache: Path) -> None:
    """A LeNet-5 of one's own takes the place of the one in the box."""
    torch.manual_seed(3)
    file = tmp_path / "mine.pth"
    torch.save(get_model("lenet5").state_dict(), file)
    stored = runner.invoke(app, ["import", "lenet5", str(file)])
    assert stored.exit_code == 0
    assert "lenet5@mnist" in stored.output
    answer = json.loads(runner.invoke(app, ["classify", "lenet5", str(DIGIT), "--json"]).stdout)
    assert answer["checkpoint"]["origin"] == "imported from mine.pth"
    assert list(own_cache.rglob("*.part")) == []


def test_options_reach_the_import(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    def import_file(variant: Variant, file: Path, catalogue: Catalogue, **options: Any) -> Any:
        asked.append((variant.name, file, options))
        return catalogue.find("lenet5")

    monkeypatch.setattr("models.install.import_.import_file", import_file)
    assert runner.invoke(app, ["import", "vgg", "a.onnx"]).exit_code == 0
    options = ["--labels", "cifar10", "--preprocess", "mnist", "--as-graph"]
    assert runner.invoke(app, ["import", "lenet5", "b.onnx", *options]).exit_code == 0
    assert asked == [
        ("vgg16", Path("a.onnx"), {"label_set": None, "preset": None, "as_graph": False}),
        ("lenet5", Path("b.onnx"), {"label_set": "cifar10", "preset": "mnist", "as_graph": True}),
    ]
