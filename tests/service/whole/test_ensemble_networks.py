"""An ensemble of two real networks of a thousand classes, over HTTP and on the command line, compared with torch."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from models.checkpoints.build import build_checkpoint
from models.checkpoints.catalogue import Catalogue
from models.checkpoints.tensors import normalised
from models.images.preprocess import picture_to_crop
from service.commands.main import app
from tests.pictures import photo
from tests.running import uvicorn_service

NAMES = ("googlenet_bn", "googlenet")
MODEL = f"ensemble:{','.join(NAMES)}"


def torchs(name: str, image: bytes) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """The softmax of a network, computed by torch in double precision."""
    checkpoint = Catalogue(untrained=True).find(name)
    crop = picture_to_crop(image, checkpoint.preprocess, max_pixels=10**8)
    network = build_checkpoint(checkpoint)
    with torch.inference_mode():
        logits = network(normalised(torch.from_numpy(np.array(crop[None])), checkpoint.preprocess))
    found: np.ndarray[tuple[int], np.dtype[np.float64]] = torch.softmax(logits.double(), 1)[0].numpy()
    return found


@pytest.mark.slow
def test_the_answer_is_the_mean_of_torchs_softmaxes_served_or_not(
    untrained_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of the two networks is confident and the other is not, so most labels of the average are not in the top ten
    of both: an average of the top tens would be wrong."""
    image = photo()
    mean = (torchs(NAMES[0], image) + torchs(NAMES[1], image)) / 2
    expected = np.argsort(-mean, kind="stable")[:10].tolist()
    with uvicorn_service(untrained_cache, *NAMES, untrained=True) as url, httpx.Client(timeout=60) as client:
        answer = client.post(f"{url}/classify?model={MODEL}&k=10", content=image).json()
        alone = [client.post(f"{url}/classify?model={name}&k=10", content=image).json() for name in NAMES]
    tops = [{label["index"] for label in body["top5"]} for body in alone]
    assert set(expected) - (tops[0] & tops[1])
    assert answer["model"] == MODEL
    assert [label["index"] for label in answer["top5"]] == expected
    found = [label["probability"] for label in answer["top5"]]
    np.testing.assert_allclose(found, mean[expected], rtol=1e-2, atol=1e-6)

    file = tmp_path / "photo.jpg"
    file.write_bytes(image)
    monkeypatch.setenv("TOPFIVE_CACHE_DIR", str(untrained_cache))
    run = CliRunner().invoke(app, ["classify", MODEL, str(file), "--untrained", "--json", "-k", "10"])
    assert run.exit_code == 0
    said = json.loads(run.stdout)
    assert [label["index"] for label in said["top5"]] == expected
    assert [member["model"] for member in said["members"]] == list(NAMES)


@pytest.mark.parametrize(
    ("model", "says"), [("ensemble:googlenet", "2 to 8"), ("ensemble:googlenet,lenet5", "share no label set")]
)
def test_the_command_line_says_why_an_ensemble_is_refused(model: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "photo.jpg"
    file.write_bytes(photo())
    run = CliRunner().invoke(app, ["classify", model, str(file), "--untrained"])
    assert run.exit_code != 0
    assert says in run.output
    assert "Traceback" not in run.output
