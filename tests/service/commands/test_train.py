"""``topfive train``: it writes a checkpoint with its card, the same one after a kill, and errors are one line."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from models import get_model
from models.checkpoints.catalogue import Catalogue, read_card
from models.images.preprocess import PRESETS
from models.training.accuracy import measure
from models.training.dataset import read_data
from models.training.run import Run
from service.commands.main import app
from tests.data_sets import tree, write_digits, write_tree, write_zip

pytestmark = pytest.mark.usefixtures("own_process")


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    return write_digits(tmp_path / "mnist.npz")


def options(data: Path, out: Path, *more: str, labels: str = "mnist") -> list[str]:
    given = ["--data", str(data), "--labels", labels, "--out", str(out), "--threads", "1", "--device", "cpu"]
    return [*given, *more]


def train(name: str, data: Path, out: Path, *more: str, labels: str = "mnist") -> Result:
    return CliRunner().invoke(app, ["train", name, *options(data, out, *more, labels=labels)])


def told(result: Result) -> str:
    return " ".join(result.output.split())


def refused(result: Result, code: int = 2) -> str:
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return told(result)


def test_a_checkpoint_with_its_card_and_curves(tmp_path: Path, digits: Path) -> None:
    out = tmp_path / "out.safetensors"
    result = train("lenet5", digits, out, "--epochs", "2", "--seed", "3", "--peak-rate", "0.02", "--batch-size", "16")
    assert result.exit_code == 0, result.output
    card = read_card(out)
    assert card is not None
    assert (card.name, card.preprocess) == ("lenet5@mnist", PRESETS["mnist"])
    assert card.origin == "trained by topfive train on 400 pictures of mnist"
    assert card.accuracy_source == "measured on 100 test pictures"
    for part in ("one cycle to 0.02", "2 epochs of batch 16", "seed 3"):
        assert part in card.recipe
    data = read_data(digits, "mnist", PRESETS["mnist"], keep=True)
    assert card.recipe.endswith(f"data sha256 {data.digest}")
    accuracy = measure(get_model("lenet5", weights=out), data.test, torch.device("cpu"))
    assert (card.top1, card.top5) == (round(accuracy.top1, 2), round(accuracy.top5, 2))
    assert f"top-1 {card.top1:.2f} %, top-5 {card.top5:.2f} %" in told(result)
    assert "epoch 2/2: loss" in told(result)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"mnist.npz", "out.safetensors", "out.csv", "out.png"}
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 3


def test_a_trained_checkpoint_can_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOPFIVE_CACHE_DIR", str(tmp_path / "cache"))
    data, out = write_zip(tmp_path / "set.zip", tree(train=2, test=1)), tmp_path / "out.safetensors"
    result = train("googlenet", data, out, "--epochs", "1", "--batch-size", "20", labels="cifar10")
    assert result.exit_code == 0, result.output
    assert CliRunner().invoke(app, ["import", "googlenet", str(out)]).exit_code == 0
    found = Catalogue().find("googlenet", "cifar10")
    assert found.preprocess.side == 64
    card = read_card(out)
    assert card is not None
    assert (found.recipe, found.top1) == (card.recipe, card.top1)
    assert out.stat().st_size < 13e6


def start(data: Path, out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "service.commands.main", "train", "lenet5", *options(data, out, "--epochs", "6")]
    return subprocess.Popen(command, stderr=subprocess.PIPE)


def wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.slow
def test_after_a_kill_the_same_command_writes_the_same_file(tmp_path: Path) -> None:
    data, out = write_digits(tmp_path / "mnist.npz", train=1000), tmp_path / "killed.safetensors"
    killed = start(data, out)
    wait_for(tmp_path / "killed.safetensors.state", killed)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert not out.exists()
    result = train("lenet5", data, out, "--epochs", "6")
    assert result.exit_code == 0, result.output
    assert "resuming after epoch" in told(result)
    assert train("lenet5", data, tmp_path / "whole.safetensors", "--epochs", "6").exit_code == 0
    assert out.read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
    assert (tmp_path / "killed.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert not (tmp_path / "killed.safetensors.state").exists()


def test_ctrl_c_says_how_to_resume(tmp_path: Path, digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a real signal, just before the second epoch."""
    save = Run._save

    def save_and_interrupt(run: Run) -> None:
        save(run)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Run, "_save", save_and_interrupt)
    text = refused(train("lenet5", digits, tmp_path / "out.safetensors", "--epochs", "2"), code=130)
    assert "interrupted; the finished epochs are in" in text
    assert "the same command resumes from there" in text
    assert (tmp_path / "out.safetensors.state").exists()


def test_unreadable_pictures_are_left_out_or_fail_the_command(tmp_path: Path) -> None:
    files = tree(train=3, test=1) | {"train/cat/0009.png": b"no picture"}
    data, out = write_tree(tmp_path / "set", files), tmp_path / "out.safetensors"
    given = ("--epochs", "1", "--batch-size", "30")
    assert "train/cat/0009.png: the bytes are no picture" in refused(
        train("googlenet", data, out, *given, "--fail-unreadable", labels="cifar10")
    )
    assert not out.exists()
    result = train("googlenet", data, out, *given, "--no-aux-heads", "--no-half", labels="cifar10")
    assert result.exit_code == 0, result.output
    assert "unreadable train/cat/0009.png: the bytes are no picture" in told(result)
    assert "1 unreadable pictures are left out" in told(result)
    card = read_card(out)
    assert card is not None
    assert card.origin == "trained by topfive train on 29 pictures of cifar10"
    assert "no auxiliary heads" in card.recipe
    assert out.stat().st_size > 20e6


def test_errors_are_one_line(tmp_path: Path, digits: Path) -> None:
    out = tmp_path / "out.safetensors"
    assert "unknown model 'lenet6'" in refused(train("lenet6", digits, out))
    assert "unknown label set 'emnist'" in refused(train("lenet5", digits, out, labels="emnist"))
    assert "lenet5 has no auxiliary heads" in refused(train("lenet5", digits, out, "--aux-heads"))
    assert "there is no" in refused(train("lenet5", tmp_path / "nothing", out))
    assert "train-images-idx3-ubyte" in refused(train("lenet5", tmp_path, out))
    assert "(--device) = 'tpu9'" in refused(train("lenet5", digits, out, "--device", "tpu9"))
    assert "device cuda:99 is not here" in refused(train("lenet5", digits, out, "--device", "cuda:99"))
    (tmp_path / "state").write_bytes(b"junk")
    assert "is damaged, or not the state" in refused(train("lenet5", digits, out, "--state", str(tmp_path / "state")))
    assert not out.exists()


def test_a_loss_that_is_not_a_number_ends_training(tmp_path: Path, digits: Path) -> None:
    out = tmp_path / "out.safetensors"
    # LeNet's squashing functions survive any rate, but weight decay at this one makes the weights overflow float32.
    text = refused(train("lenet5", digits, out, "--epochs", "1", "--peak-rate", "1e30"), 1)
    assert "the loss is not a number any more in epoch 1; no epoch was finished. Try a lower --peak-rate" in text
    assert not out.exists()


@pytest.mark.parametrize("ending", ["safetensors", "csv", "png"])
def test_a_failed_write_at_the_end_loses_no_epoch(tmp_path: Path, digits: Path, ending: str) -> None:
    """A folder in the place of a file makes writing fail for every user, root included."""
    out, state = tmp_path / "out.safetensors", tmp_path / "out.safetensors.state"
    (tmp_path / f"out.{ending}" / "x").mkdir(parents=True)
    text = refused(train("lenet5", digits, out, "--epochs", "1"), 1)
    assert f"out.{ending}" in text
    assert f"the finished epochs are in {state}, and the same command resumes from there" in text
    (tmp_path / f"out.{ending}" / "x").rmdir()
    (tmp_path / f"out.{ending}").rmdir()
    result = train("lenet5", digits, out, "--epochs", "1")
    assert result.exit_code == 0, result.output
    assert "resuming after epoch 1" in told(result)
    assert read_card(out) is not None
    assert (tmp_path / "out.csv").exists()
