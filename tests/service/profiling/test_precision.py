"""The choice of a precision: by a table of what a device would answer, and on networks that run on a CPU."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from models.checkpoints.catalogue import Catalogue, Checkpoint
from service.engines import TopK
from service.engines.fake import FakeEngine
from service.engines.loader import Loader
from service.profiling import precision as choosing
from service.profiling.precision import Answers, Choice, Tried, answers, choose
from service.profiling.precision_pictures import VERSION, pictures

LENET = Catalogue().find("lenet5@mnist")


class Card:
    """A device that takes 10 ms for a picture in float32, and in the others what a test says.

    Args:
        others: by precision, how many of 1,000 pictures have another class than in float32, and the milliseconds; a
            negative number of pictures stands for numbers that are not finite, None for a precision that it lacks.
    """

    def __init__(self, others: Mapping[str, tuple[int, float] | None]) -> None:
        self.others = {"float32": (0, 10.0), **others}
        self.asked: list[str] = []

    def __call__(self, precision: str) -> Answers:
        self.asked.append(precision)
        found = self.others[precision]
        if found is None:
            raise RuntimeError(f"no kernel image for {precision}")
        differing, ms = found
        classes = np.arange(1000) % 7
        classes[: max(0, differing)] += 1
        return Answers(classes, differing >= 0, ms)


@pytest.mark.parametrize(
    ("bfloat16", "float16", "chosen"),
    [
        ((0, 5.0), (0, 5.0), "bfloat16"),
        ((5, 5.0), (0, 5.0), "bfloat16"),
        ((6, 5.0), (0, 5.0), "float16"),
        ((6, 5.0), (5, 6.0), "float16"),
        ((6, 5.0), (6, 5.0), "float32"),
        ((0, 5.0), (0, 4.8), "bfloat16"),
        ((0, 5.0), (0, 4.0), "float16"),
        ((0, 4.0), (0, 5.0), "bfloat16"),
        ((0, 9.4), (0, 9.4), "bfloat16"),
        ((0, 9.6), (0, 9.6), "float32"),
        ((0, 9.6), (0, 9.0), "float16"),
        ((0, 12.0), (0, 5.0), "float16"),
        ((9, 5.0), (-1, 2.0), "float32"),
        ((0, 5.0), (-1, 2.0), "bfloat16"),
        (None, (0, 5.0), "float16"),
        ((0, 5.0), None, "bfloat16"),
        (None, None, "float32"),
    ],
    ids=[
        "level", "just agrees", "just disagrees", "slower half", "neither agrees", "level within 5 %", "float16 faster",
        "bfloat16 faster", "just pays", "does not pay", "one pays", "one is slow", "overflow, other disagrees",
        "overflow", "no bfloat16", "no float16", "neither",
    ],
)  # fmt: skip
def test_the_fastest_that_agrees_is_chosen(
    bfloat16: tuple[int, float] | None, float16: tuple[int, float] | None, chosen: str
) -> None:
    card = Card({"bfloat16": bfloat16, "float16": float16})
    assert choose(card).precision == chosen
    assert card.asked == ["float32", "bfloat16", "float16"]


def test_a_choice_says_why() -> None:
    choice = choose(Card({"bfloat16": (8, 5.2), "float16": (2, 5.1)}))
    assert (choice.pictures, choice.count, choice.classes) == (VERSION, 1000, 7)
    assert choice.tried == {
        "bfloat16": Tried(agreement=0.992, time_ratio=0.52),
        "float16": Tried(agreement=0.998, time_ratio=0.51),
    }
    assert str(choice) == (
        "float16: of 1000 pictures (7 classes) bfloat16 names float32's class on 99.2 % in 52 % of its time, "
        "float16 names float32's class on 99.8 % in 51 % of its time"
    )
    assert Choice.model_validate_json(choice.model_dump_json()) == choice
    assert str(choose(Card({"bfloat16": None, "float16": None}))) == "float32: the device computes in nothing else"


def test_a_network_that_does_not_run_in_float32_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="no kernel image for float32"):
        choose(Card({"float32": None}))


class Timed(FakeEngine):
    """Takes 4 s for 64 pictures, and 1 s for the rest; the second time all is quicker by half."""

    now = 0.0
    passes = 0
    closed = False
    warm = 0

    def warm_up(self, largest: int) -> None:
        self.warm = largest

    def run(self, crops: npt.NDArray[np.uint8], whole: bool = False) -> TopK:
        took = 4.0 if len(crops) == 64 else 1.0
        Timed.now += took / 2 if self.passes in (2, 3) else took
        self.passes += 1
        return super().run(crops, whole)

    def close(self) -> None:
        self.closed = True


class Loading(Loader):
    """A loader of that engine."""

    __slots__ = ()
    made: list[tuple[str, Timed]] = []  # noqa: RUF012

    def __call__(self, checkpoint: Checkpoint) -> Timed:
        engine = Timed(checkpoint)
        self.made.append((self.precision, engine))
        return engine


def test_answers_are_of_all_pictures_and_the_best_of_three_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing.time, "perf_counter", lambda: Timed.now)
    Loading.made.clear()
    crops = pictures(LENET.preprocess, 100)
    found = answers(LENET, Loading("torch_cpu", "cpu", "auto", 1, tmp_path, 128), crops, "float16")
    np.testing.assert_array_equal(found.classes, crops.reshape(100, -1).max(1) % 10)
    assert (found.finite, found.ms) == (True, pytest.approx(1000 * 2.5 / 100))
    ((precision, engine),) = Loading.made
    assert (precision, engine.batches, engine.warm, engine.closed) == ("float16", [64, 36] * 3, 64, True)


def test_batches_are_no_larger_than_allowed(tmp_path: Path) -> None:
    Loading.made.clear()
    crops = pictures(LENET.preprocess, 20)
    assert len(answers(LENET, Loading("torch_cpu", "cpu", "auto", 1, tmp_path, 8), crops, "float32").classes) == 20
    assert Loading.made[0][1].batches == [8, 8, 4] * 3


def test_a_number_that_is_not_finite_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = FakeEngine.run

    def overflowing(self: FakeEngine, crops: npt.NDArray[np.uint8], whole: bool = False) -> TopK:
        top = run(self, crops, whole)
        top.probabilities[-1, 0] = np.nan
        return top

    monkeypatch.setattr(FakeEngine, "run", overflowing)
    loader = Loading("torch_cpu", "cpu", "auto", 1, tmp_path, 8)
    assert not answers(LENET, loader, pictures(LENET.preprocess, 10), "float16").finite


def test_the_engine_is_closed_if_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> TopK:
        raise RuntimeError("no kernel image")

    monkeypatch.setattr(Timed, "run", broken)
    Loading.made.clear()
    with pytest.raises(RuntimeError, match="no kernel image"):
        answers(LENET, Loading("torch_cpu", "cpu", "auto", 1, tmp_path, 8), pictures(LENET.preprocess, 1), "float16")
    assert Loading.made[0][1].closed


def test_a_real_network_is_compared_with_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On a CPU, where the choice is never asked for; the answers are those of the torch engine."""
    arguments = ["lenet5", "--labels", "mnist", "--device", "cpu", "--engine", "torch_cpu", "--precision", "float32"]
    arguments += ["--threads", "1", "--max-batch-size", "64", "--cache-dir", str(tmp_path)]
    assert choosing.main(arguments) == 0
    choice = Choice.model_validate(json.loads(capsys.readouterr().out))
    assert (choice.count, set(choice.tried)) == (512, {"bfloat16", "float16"})
    for tried in choice.tried.values():
        assert 0.97 < tried.agreement <= 1
    # float16 has three bits more of mantissa, so it rounds eight times as finely.
    assert choice.tried["float16"].agreement >= choice.tried["bfloat16"].agreement


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ["lenet5@mnist", "googlenet@cifar10"])
def test_a_gpu_agrees_with_itself_nearly_always(name: str, tmp_path: Path) -> None:
    checkpoint = Catalogue().find(name)
    loader = Loader("torch_cuda", "cuda:0", "auto", 0, tmp_path, 64)
    choice = choose(partial(answers, checkpoint, loader, pictures(checkpoint.preprocess)))
    assert set(choice.tried) == {"bfloat16", "float16"}
    assert all(0.97 < tried.agreement <= 1 for tried in choice.tried.values())
    assert choice.precision == "float32" or choice.tried[choice.precision].pays
