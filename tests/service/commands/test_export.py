"""``topfive export``: the graph that is served."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import pytest
from typer.testing import CliRunner

from service.commands.main import app

runner = CliRunner()


def test_export_writes_the_graph_that_is_served(tmp_path: Path) -> None:
    file = tmp_path / "lenet5.onnx"
    assert runner.invoke(app, ["export", "lenet5", str(file)]).exit_code == 0
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    assert [(value.name, value.shape) for value in session.get_inputs()] == [("crops", ["n", 32, 32, 1])]
    assert [value.name for value in session.get_outputs()] == ["probabilities", "indices", "distribution"]
    missing = runner.invoke(app, ["export", "vgg16", str(file)])
    assert missing.exit_code == 1
    assert "topfive pull vgg16" in missing.stderr
    nowhere = runner.invoke(app, ["export", "lenet5", str(file / "below.onnx")])
    assert nowhere.exit_code == 1


@pytest.mark.parametrize(("options", "name"), [([], "lenet5@mnist"), (["--untrained"], "lenet5@untrained")])
def test_the_weights_are_the_checkpoints_or_random(
    options: list[str], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[tuple[str, Path]] = []
    monkeypatch.setattr("models.onnx.export.export", lambda checkpoint, file: written.append((checkpoint.name, file)))
    assert runner.invoke(app, ["export", "lenet5", str(tmp_path / "a.onnx"), *options]).exit_code == 0
    assert written == [(name, tmp_path / "a.onnx")]
