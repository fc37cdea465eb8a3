"""``topfive export``: the graph that is served."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
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
