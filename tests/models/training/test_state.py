"""State files are written whole or not at all."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from models import get_model
from models.install.import_ import write_checkpoint
from models.training.errors import TrainingError
from models.training.state import load_state, save_state
from tests.cards import checkpoint


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file may grow beyond ``size`` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_the_older_files_whole(tmp_path: Path) -> None:
    state, out, network = tmp_path / "state", tmp_path / "out.safetensors", get_model("lenet5")
    card = checkpoint("lenet5", "mnist")
    save_state(state, {"seed": 1}, {"x": torch.zeros(3)})
    write_checkpoint(out, network, card)
    before = state.read_bytes(), out.read_bytes()
    with full_disk(50_000):
        with pytest.raises(
            TrainingError, match=r"state could not be written \(File too large\); the older file is still"
        ):
            save_state(state, {"seed": 1}, {"x": torch.zeros(10**6)})
        with pytest.raises(OSError, match=r"out\.safetensors could not be written"):
            write_checkpoint(out, network, card)
    assert (state.read_bytes(), out.read_bytes()) == before
    assert {path.name for path in tmp_path.iterdir()} == {"state", "out.safetensors"}
    assert load_state(state, {"seed": 1}) is not None
