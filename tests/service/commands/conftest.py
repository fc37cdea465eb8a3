"""Fixtures of the commands' tests."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder of every command that a test runs: empty, and not the user's."""
    monkeypatch.setenv("TOPFIVE_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def filled_cache(own_cache: Path, box_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache folder that may already have the graphs of the weights in the box, for tests that do not export them."""
    monkeypatch.setenv("TOPFIVE_CACHE_DIR", str(box_cache))
