"""``topfive pull``."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from models import get_model
from models.checkpoints import catalogue as checkpoints
from models.checkpoints import manifest
from models.checkpoints.manifest import ManifestRow
from models.install import pull as pulling
from service.commands.main import app
from tests.pictures import DIGIT

runner = CliRunner()


def test_pull_from_a_mirror_on_disk_then_classify(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(4)
    file = tmp_path / "lenet5-of-somebody.pth"
    torch.save(get_model("lenet5").state_dict(), file)
    row = ManifestRow(
        variant="lenet5",
        labels="mnist",
        origin="somebody",
        preprocess="mnist",
        url=f"http://127.0.0.1:9/{file.name}",
        sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
        bytes=file.stat().st_size,
    )
    for module in (manifest, checkpoints, pulling):
        monkeypatch.setattr(module, "manifest", lambda: (row,))
    pulled = runner.invoke(app, ["pull", "--all", "--mirror", tmp_path.as_uri()])
    assert pulled.exit_code == 0, pulled.output
    assert "stored lenet5@mnist" in pulled.output
    answer = json.loads(runner.invoke(app, ["classify", "lenet5", str(DIGIT), "--json"]).stdout)
    assert answer["checkpoint"]["origin"] == "somebody"
    assert [path.name for path in own_cache.glob("checkpoints/*")] == ["lenet5@mnist.safetensors"]
    assert "nothing to pull" in runner.invoke(app, ["pull", "--all"]).output
