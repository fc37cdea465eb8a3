"""The table and the chart of a run."""

from __future__ import annotations

from pathlib import Path

from models.training.curves import Epoch, curves_figure, write_curves


def test_curves_are_a_table_and_a_chart(tmp_path: Path) -> None:
    epochs = [Epoch(1, 0.05, 2.25, 20.5, 30.0, 75.0), Epoch(2, 0.1, 1.5, 50.0, 55.0, 90.0)]
    write_curves(tmp_path / "out.csv", epochs, "a network")
    assert (tmp_path / "out.csv").read_text() == (
        "number,rate,loss,training_top1,test_top1,test_top5\n1,0.05,2.25,20.5,30.0,75.0\n2,0.1,1.5,50.0,55.0,90.0\n"
    )
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    assert len(list(tmp_path.iterdir())) == 2


def test_the_chart_has_the_loss_on_the_left_and_three_accuracies_on_the_right() -> None:
    epochs = [Epoch(1, 0.05, 2.25, 20.5, 30.0, 75.0), Epoch(2, 0.1, 1.5, 50.0, 55.0, 90.0)]
    left, right = curves_figure(epochs, "a network").axes
    (loss,) = left.lines
    assert (list(loss.get_xdata()), list(loss.get_ydata())) == ([1, 2], [2.25, 1.5])
    assert {str(line.get_label()): list(line.get_ydata()) for line in right.lines} == {
        "top-1, training": [20.5, 50.0],
        "top-1, test": [30.0, 55.0],
        "top-5, test": [75.0, 90.0],
    }
