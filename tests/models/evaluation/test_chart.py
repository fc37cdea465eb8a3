"""The confusion matrix as a chart."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from models.checkpoints.labels import labels
from models.evaluation.chart import confusion_figure


def test_the_chart_of_few_classes_has_numbers_and_words() -> None:
    matrix = np.diag(np.arange(1_000, 1_010))
    matrix[3, 5] = 77
    figure = confusion_figure(matrix, labels("cifar10"), "a network")
    FigureCanvasAgg(figure).draw()  # type: ignore[no-untyped-call]
    (axes, _) = figure.axes
    texts = {tuple(map(round, text.get_position())): text.get_text() for text in axes.texts}
    assert texts == {(i, i): f"{1000 + i:,}" for i in range(10)} | {(5, 3): "77"}
    assert [tick.get_text() for tick in axes.get_yticklabels()] == [label.word for label in labels("cifar10")]
    shares = np.asarray(axes.images[0].get_array())
    assert shares[3] == pytest.approx(matrix[3] / 1080)
    assert axes.images[0].get_clim() == (0, 1)


def test_the_chart_of_a_thousand_classes_is_an_image() -> None:
    matrix = np.zeros((1000, 1000), np.int64)
    matrix[7, 9] = 3
    figure = confusion_figure(matrix, labels("imagenet1k"), "a network")
    FigureCanvasAgg(figure).draw()  # type: ignore[no-untyped-call]
    (axes, _) = figure.axes
    assert not axes.texts
    shares = np.asarray(axes.images[0].get_array())
    assert (shares.shape, shares[7, 9], shares.sum()) == ((1000, 1000), 1, 1)
