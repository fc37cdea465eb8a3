"""The gate: decoders that are right pass, and each thing that can be wrong with one is noticed."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from models.checkpoints.catalogue import Catalogue
from models.images.baseline import Baseline
from models.images.pictures import decode
from models.images.preprocess import PRESETS, Preprocess, crop
from service.engines.fake import FakeEngine
from service.inference.decoding import Crop
from service.runtime import decode_gate, decode_gate_pictures
from service.runtime.decode_gate import Verdict, compare
from tests.picture_files import encode

PRESET = PRESETS["half-224"]
CHECKPOINT = Catalogue(untrained=True).find("googlenet")
Change = Callable[[Crop], npt.NDArray[Any]]


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight pictures, each of one brightness, which is the class that a fake engine answers with."""
    files = tuple(encode(Image.new("RGB", (256, 256), (20 * n,) * 3), "JPEG") for n in range(1, 9))
    monkeypatch.setattr(decode_gate, "files", lambda: files)
    for name in ("_ordinary", "_by_pillow"):
        # Not the results for the real files, nor are these left behind.
        monkeypatch.setattr(decode_gate, name, functools.cache(getattr(decode_gate, name).__wrapped__))


class Changed:
    """Pillow in the place of a GPU, with a change to the crops of some pictures."""

    def __init__(self, change: Change = lambda crop: crop, *, of: range = range(8)) -> None:
        self.change = change
        self.of = of

    def decode_batch(self, files: Sequence[Baseline], preprocess: Preprocess) -> list[Crop | Exception]:
        found: list[Crop | Exception] = []
        for number, file in enumerate(files):
            made = crop(decode(file.data, "RGB", max_pixels=1 << 24), preprocess)
            try:
                found.append(self.change(made).astype(np.uint8) if number in self.of else made)
            except RuntimeError as error:
                found.append(error)
        return found


def judged(decoder: Changed, engine: FakeEngine | None = None) -> Verdict:
    return compare(engine or FakeEngine(CHECKPOINT), decoder, PRESET)


def test_pillows_own_crops_pass() -> None:
    verdict = judged(Changed())
    assert verdict == Verdict(8, 0, 0.0, 1.0)
    assert verdict.passed
    assert str(verdict) == (
        "100.0 % of 8 pictures get the same class (at least 92 %) and a crop differs by up to 0.00 levels (at most 1.5)"
    )


def test_answers_that_change_are_counted() -> None:
    # One level more is another class, and so little that the crops alone would pass.
    one = judged(Changed(lambda made: made + 1, of=range(1)))
    assert (one.agreement, one.difference) == (7 / 8, 1.0)
    assert not one.passed


def test_the_worst_crop_counts_not_the_mean_over_pictures() -> None:
    def darker(made: Crop) -> npt.NDArray[Any]:
        changed = made.astype(int) - 4
        changed[:1, :1] += 4
        return changed

    # The brightest pixel, and so the class, is as it was.
    verdict = judged(Changed(darker, of=range(1)))
    assert verdict.agreement == 1.0
    assert verdict.difference == pytest.approx(4, abs=0.01)
    assert not verdict.passed


def test_a_picture_that_is_not_decoded_fails_the_gate() -> None:
    def fails(made: Crop) -> npt.NDArray[Any]:
        raise RuntimeError("no")

    verdict = judged(Changed(fails, of=range(3)))
    assert (verdict.pictures, verdict.failed, verdict.passed) == (8, 3, False)
    assert str(verdict) == "it failed on 3 of 8 pictures"


@pytest.mark.parametrize(
    ("verdict", "passed"),
    [
        (Verdict(64, 0, 1.5, 0.92), True),
        (Verdict(64, 0, 1.51, 0.92), False),
        (Verdict(64, 0, 1.5, 0.919), False),
        (Verdict(64, 1, 0.0, 1.0), False),
    ],
)
def test_limits(verdict: Verdict, passed: bool) -> None:
    assert verdict.passed is passed


def test_an_engine_is_asked_in_batches_that_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_gate, "files", lambda: decode_gate_pictures.files()[:20])
    engine = FakeEngine(CHECKPOINT)
    judged(Changed(), engine)
    assert sorted(engine.batches) == [4, 4, 16, 16]


WRONG: dict[str, Change] = {
    "colours swapped": lambda made: made[..., ::-1],
    "without colours": lambda made: np.repeat(made.mean(-1, keepdims=True), 3, -1),
    "another range": lambda made: 16 + made.astype(float) * 219 / 255,
    "shifted by a pixel": lambda made: np.roll(made, 1, axis=0),
    "mirrored": lambda made: made[:, ::-1],
    "empty": lambda made: np.zeros_like(made),
}


@pytest.mark.parametrize("name", WRONG)
def test_the_real_pictures_show_what_is_wrong_with_a_decoder(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_gate, "files", lambda: decode_gate_pictures.files()[:8])
    verdict = judged(Changed(WRONG[name]))
    assert verdict.difference > decode_gate.DIFFERS
    assert not verdict.passed


def test_the_reference_is_made_of_all_pixels() -> None:
    """For 32 pixels the service has Pillow decode at an eighth of the size, which is further off than a GPU."""
    sharp = encode(Image.open(io.BytesIO(decode_gate_pictures.files()[0])).resize((1024, 768)), "JPEG")
    expected = crop(Image.open(io.BytesIO(sharp)).convert("RGB"), PRESETS["cifar10"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decode_gate, "files", lambda: (sharp,))
        assert (decode_gate._by_pillow(PRESETS["cifar10"])[0] == expected).all()
