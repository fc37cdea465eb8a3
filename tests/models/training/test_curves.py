"""The table and the chart of a run."""

from __future__ import annotations

from pathlib import Path

from models.training.curves import Epoch, write_curves


def test_curves_are_a_table_and_a_chart(tmp_path: Path) -> None:
    epochs = [Epoch(1, 0.05, 2.25, 20.5, 30.0, 75.0), Epoch(2, 0.1, 1.5, 50.0, 55.0, 90.0)]
    write_curves(tmp_path / "out.csv", epochs, "a network")
    assert (tmp_path / "out.csv").read_text() == (
        "number,rate,loss,training_top1,test_top1,test_top5\n1,0.05,2.25,20.5,30.0,75.0\n2,0.1,1.5,50.0,55.0,90.0\n"
    )
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    assert len(list(tmp_path.iterdir())) == 2
