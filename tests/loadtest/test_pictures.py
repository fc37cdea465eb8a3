"""Drawn pictures are complete and different, and the same for the same seed; a folder gives its files."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from loadtest._pictures import COUNT, pictures


@pytest.mark.parametrize(("kind", "format", "size"), [("photographs", "JPEG", (500, 375)), ("digits", "PNG", (28, 28))])
def test_pictures_are_drawn_from_a_seed(kind: str, format: str, size: tuple[int, int]) -> None:
    found = pictures(kind, 8)
    assert len(set(found)) == COUNT
    assert found == pictures(kind, 8)
    assert found[0] != pictures(kind, 9)[0]
    for picture in found:
        opened = Image.open(io.BytesIO(picture))
        opened.load()
        assert (opened.format, opened.size) == (format, size)


def test_a_photograph_has_the_size_of_a_file_from_a_camera() -> None:
    # ImageNet's at this size have 110 KB on average; a smooth picture would decode much faster.
    assert all(40_000 < len(picture) < 200_000 for picture in pictures("photographs", 8))


def test_a_folder_gives_its_picture_files(tmp_path: Path) -> None:
    (tmp_path / "b.JPG").write_bytes(b"two")
    (tmp_path / "a.png").write_bytes(b"one")
    (tmp_path / "notes.txt").write_bytes(b"none")
    assert pictures(str(tmp_path), 8) == [b"one", b"two"]


def test_an_empty_folder_and_a_missing_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no picture files in it"):
        pictures(str(tmp_path), 8)
    with pytest.raises(ValueError, match="photographs, digits or a folder"):
        pictures(str(tmp_path / "none"), 8)
