"""The tables: figures in their places, what is left out, and the section of the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.gpu.__main__ import PAGE
from bench.gpu.table import BEGIN, END, limit, markdown, write_section


def figures(**changes: Any) -> dict[str, Any]:
    served = {
        "decode": "cpu",
        "fronts": 14,
        "network": "googlenet",
        "per_second": 4000.0,
        "mean_batch": 61.25,
        "errors": 0,
        "generator_busy": 0.5,
        "at_70": {"rate": 2800.0, "p50_ms": 12.34, "p99_ms": 40.0, "errors": 0},
    }
    loop = {"network": "googlenet", "precision": "float32", "batch": 16, "per_second": 5900.4, "ms": 2.69}
    found = {
        "device": "NVIDIA H100",
        "torch": "2.11",
        "cores": 16,
        "date": "2026-12-01",
        "took_s": 412.0,
        "minutes": 8.0,
        "connections": 256,
        "engines": [loop, {**loop, "batch": 64, "per_second": 9000.0}, {**loop, "network": "vgg16", "batch": 64}],
        "decoding": [{"processes": 1, "per_second": 500.0}, {"processes": 16, "per_second": 8000.0}],
        "served": [served, {**served, "decode": "gpu", "fronts": 0, "errors": 2, "generator_busy": 0.95}],
        "left_out": [],
    }
    return {**found, **changes}


def test_every_figure_is_in_its_place() -> None:
    text = markdown(figures())
    assert text.startswith("On one NVIDIA H100 with 16 CPU cores, PyTorch 2.11, 2026-12-01, in 412 s of at most 8 min")
    for line in (
        "| network | precision | batch 16 | batch 64 |",
        "| `googlenet` | float32 | 5,900 (2.69) | 9,000 (2.69) |",
        "| `vgg16` | float32 | – | 5,900 (2.69) |",
        "| 16 | 8,000 |",
        # Of what all cores decode, which is less than the best engine loop.
        "| `googlenet` | cpu | 14 | 4,000 | 0.50 | 61.2 | 12.3 | 40.0 |  |",
        "| `googlenet` | gpu | 0 | 4,000 | 0.44 | 61.2 | 12.3 | 40.0 | 2 errors, the load generator is at its limit |",
    ):
        assert line in text.splitlines()
    assert "Left out" not in text


def test_what_is_left_out_is_told() -> None:
    text = markdown(figures(engines=[], decoding=[], served=[], left_out=["engines (cut off)", "served (needs 90 s)"]))
    assert text.endswith("because it failed: engines (cut off); served (needs 90 s).")
    assert "|" not in text


def test_the_limit_is_the_slower_of_engine_and_cores() -> None:
    assert limit(figures(), "googlenet", "cpu") == 8000
    assert limit(figures(), "googlenet", "gpu") == 9000
    assert limit(figures(), "vgg16", "cpu") == pytest.approx(5900.4)
    assert limit(figures(), "alexnet", "cpu") is None
    assert limit(figures(decoding=[]), "googlenet", "cpu") is None
    assert limit(figures(decoding=[]), "googlenet", "gpu") == 9000


def test_a_network_without_answers_has_no_latency() -> None:
    row = {**figures()["served"][0], "per_second": 0.0, "mean_batch": None}
    del row["at_70"]
    assert "| `googlenet` | cpu | 14 | 0 | 0.00 | – | – | – |  |" in markdown(figures(served=[row]))


def test_only_the_section_is_replaced(tmp_path: Path) -> None:
    page = tmp_path / "gpu.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    for text in ("new", "newer"):
        write_section(page, text)
        assert page.read_text() == f"before\n{BEGIN}\n\n{text}\n\n{END}\nafter\n"
    assert list(tmp_path.iterdir()) == [page]


@pytest.mark.parametrize("content", ["", BEGIN, END])
def test_a_page_without_the_section_is_left_alone(tmp_path: Path, content: str) -> None:
    page = tmp_path / "gpu.md"
    page.write_text(content)
    with pytest.raises(ValueError, match="has no section"):
        write_section(page, "new")
    assert page.read_text() == content


def test_the_page_has_the_section() -> None:
    text = PAGE.read_text()
    assert text.count(BEGIN) == text.count(END) == 1
    assert text.index(BEGIN) < text.index(END)
