"""A file is there as a whole or not at all."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from loadreport.files import write_atomically


def test_a_file_replaces_an_earlier_one_and_can_be_read_by_everybody(tmp_path: Path) -> None:
    path = tmp_path / "report.md"
    path.write_text("earlier")
    write_atomically(path, b"later")
    assert path.read_bytes() == b"later"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("step", ["chmod", "replace"])
def test_a_write_that_fails_leaves_the_earlier_file_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "report.md"
    path.write_text("earlier")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, step, fail)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"later")
    assert path.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_readers_never_see_half_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is written is in the file before it takes the name."""
    path, seen = tmp_path / "report.md", []
    rename = Path.replace

    def look_and_rename(self: Path, target: Path) -> Path:
        seen.append((self.parent, self.read_bytes(), path.exists()))
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", look_and_rename)
    write_atomically(path, b"whole" * 10_000)
    assert seen == [(tmp_path, b"whole" * 10_000, False)]
    assert list(tmp_path.iterdir()) == [path]
