"""Every kind of picture that viewers show is answered as a plain PNG of what they show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from models import get_model
from models.checkpoints.catalogue import Catalogue, Checkpoint
from models.images import pictures, shrink
from models.images.pictures import decode
from models.images.preprocess import Preprocess, picture_to_crop
from tests.picture_files import png
from tests.shown.scene import Case
from tests.shown.table import cases

CASES = {case.name: case for case in cases()}
#: How far a probability may be off: by rounding alone, and by the loss of JPEG and WebP.
MOST_OFF, MOST_OFF_LOSSY = 0.02, 0.08
MOST_PIXELS = 10**6


def test_the_table_is_large_and_its_names_differ() -> None:
    assert len(CASES) == len(list(cases())) > 700


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_pixels_are_what_viewers_show(case: Case) -> None:
    found = np.asarray(decode(case.data, "RGB", max_pixels=MOST_PIXELS)).astype(int)
    assert found.shape == case.shown.shape
    off = np.abs(found - case.shown)
    if case.lossy:
        assert off.mean() < 4
    else:
        assert off.max() <= 2
    grey = np.asarray(decode(case.data, "L", max_pixels=MOST_PIXELS)).astype(int)
    off = np.abs(grey - case.shown @ np.array([0.299, 0.587, 0.114]))
    assert off.mean() < 3 if case.lossy else off.max() <= 2.5


@pytest.mark.parametrize("model", ["lenet5@mnist", "googlenet@cifar10"])
def test_probabilities_are_those_of_a_plain_png(model: str, tmp_path: Path) -> None:
    checkpoint = Catalogue(tmp_path).find(model)
    found = probabilities(checkpoint, [case.data for case in CASES.values()])
    expected = probabilities(checkpoint, [plain(case) for case in CASES.values()])
    off = {case.name: float(gap) for case, gap in zip(CASES.values(), np.abs(found - expected).max(1), strict=True)}
    wrong = {name: gap for name, gap in off.items() if gap > (MOST_OFF_LOSSY if CASES[name].lossy else MOST_OFF)}
    assert not wrong
    # The table would prove nothing if all pictures were answered alike.
    assert np.abs(expected - expected[0]).max() > 0.2


def plain(case: Case) -> bytes:
    return png(case.shown)


def probabilities(checkpoint: Checkpoint, files: list[bytes]) -> npt.NDArray[np.float32]:
    """Of each file, in one batch; files alike are computed once."""
    import torch

    crops = {file: picture_to_crop(file, checkpoint.preprocess, max_pixels=MOST_PIXELS) for file in files}
    unique = {crop.tobytes(): crop for crop in crops.values()}
    preprocess = checkpoint.preprocess
    inputs = np.stack(list(unique.values())).astype(np.float32) * preprocess.scale
    inputs = (inputs - np.array(preprocess.mean, np.float32)) / np.array(preprocess.std, np.float32)
    assert checkpoint.path is not None
    network = get_model(checkpoint.model, weights=checkpoint.path)
    with torch.inference_mode():
        outputs = network(torch.from_numpy(inputs.astype(np.float32)).permute(0, 3, 1, 2)).softmax(1).numpy()
    known = dict(zip(unique, outputs, strict=True))
    return np.stack([known[crops[file].tobytes()] for file in files])


@pytest.mark.parametrize(
    "preprocess",
    [
        Preprocess("short side", 12, 10),
        Preprocess("warp", 20, 20),
        Preprocess("contain", 14, 14, colour="grey", ink_on_light=True),
    ],
    ids=lambda preprocess: preprocess.fit,
)
def test_large_pictures_are_read_alike(preprocess: Preprocess, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the pictures of the table were large: they are taken in strips, and made small on the way."""
    wrong = []
    monkeypatch.setattr(shrink, "_STRIP_PIXELS", 300)
    for case in CASES.values():
        monkeypatch.setattr(pictures, "WHOLE_PIXELS", 0)
        found = picture_to_crop(case.data, preprocess, max_pixels=MOST_PIXELS).astype(int)
        monkeypatch.setattr(pictures, "WHOLE_PIXELS", 10**9)
        off = np.abs(found - picture_to_crop(plain(case), preprocess, max_pixels=MOST_PIXELS))
        if off.mean() > 4 if case.lossy else off.max() > 4:
            wrong.append(case.name)
    assert wrong == []
