"""Decoding by processes, and the photograph that they decode."""

from __future__ import annotations

import io
import sys

import pytest
from PIL import Image
from PIL.JpegImagePlugin import get_sampling

from bench.gpu.decoding import counts, measured
from bench.gpu.pictures import photograph
from models.images.baseline import baseline


@pytest.mark.parametrize(
    ("cores", "expected"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (16, [1, 2, 4, 8, 16])], ids=str
)
def test_one_process_to_all_cores(cores: int, expected: list[int]) -> None:
    assert counts(cores) == expected


def test_two_processes_decode() -> None:
    assert measured(2, 0.1, photograph()) > 0


def test_a_process_that_fails_is_an_error() -> None:
    with pytest.raises(EOFError):
        measured(1, 0.1, b"no picture")


def test_the_photograph_is_one_that_a_gpu_would_decode() -> None:
    picture = Image.open(io.BytesIO(photograph()))
    assert (picture.size, get_sampling(picture)) == ((500, 375), 2)
    assert 40_000 < len(photograph()) < 50_000
    assert baseline(photograph(), max_pixels=1 << 24) is not None


def test_it_is_the_one_of_the_other_benchmarks(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    from pathlib import Path

    bench = Path(__file__).parents[3] / "bench"
    monkeypatch.setattr(sys, "path", [str(bench), *sys.path])
    import load  # type: ignore[import-not-found]

    assert load.photograph(Path(str(tmp_path))).path.read_bytes() == photograph()
