"""``topfive import``: a checkpoint of one's own takes the place of the one in the box."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from typer.testing import CliRunner

from models import get_model
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
