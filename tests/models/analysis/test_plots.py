"""Charts show the numbers, are legible, and are written whole or not at all."""

from __future__ import annotations

from functools import cache
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from PIL import Image

from models.analysis.description import Compared, Description, describe
from models.analysis.history import ILSVRC
from models.analysis.plots import comparison_figure, history_figure, layers_figure, save
from models.checkpoints.catalogue import Catalogue
from models.networks.variants import VARIANTS

#: The checkpoints of a machine where nothing was imported.
CATALOGUE = Catalogue(Path("there is no such folder"))
MIB = 2**20


@cache
def described(name: str) -> Description:
    return describe(CATALOGUE.find(name))


def compared(name: str) -> Compared:
    """A row of the comparison from the tables alone, which is fast; test_description.py checks the real ones."""
    checkpoint, variant = CATALOGUE.find(name), VARIANTS[name]
    published = (checkpoint.top1, checkpoint.top5) if checkpoint.top1 is not None else variant.published
    return Compared(
        name=name,
        year=variant.year,
        depth=1,
        params=variant.params,
        multiply_adds=variant.multiply_adds,
        analytic_bytes=variant.costs.analytic_bytes,
        top1=published[0],
        top5=published[1],
        accuracy_source="",
        labels=variant.labels,
        params_ratio=1.0,
        multiply_adds_ratio=1.0,
        analytic_ratio=1.0,
    )


def bars(axes: Axes) -> list[float]:
    return [patch.get_height() for patch in axes.patches if isinstance(patch, Rectangle)]


@pytest.mark.parametrize("name", ["vgg16", "googlenet", "inception_v3", "lenet5"])
def test_a_bar_is_as_high_as_the_bytes_of_its_row(name: str) -> None:
    told = described(name)
    rows = [row for row in told.rows if row.params or row.activations]
    figure = layers_figure(told)
    above, below = figure.axes
    assert bars(above) == pytest.approx([4 * row.activations / MIB for row in rows])
    assert bars(below) == pytest.approx([4 * row.params / MIB for row in rows])
    channels, height, width = told.analysis.input_shape
    picture = 4 * channels * height * width / MIB
    assert sum(bars(above)) + sum(bars(below)) + picture == pytest.approx(told.needs["inference"].bytes() / MIB)
    assert len(below.get_xticklabels()) == len(rows)
    # Bars and the numbers on top stay within the frame.
    for axes in (above, below):
        assert axes.get_ylim()[1] > max(bars(axes))


def test_vgg16s_chart_names_the_layers_that_are_known_for_their_size() -> None:
    figure = layers_figure(described("vgg16"))
    above, below = figure.axes
    labels = [label.get_text() for label in below.get_xticklabels()]
    assert labels[bars(above).index(max(bars(above)))] == "conv 3x3 64"
    assert labels[bars(below).index(max(bars(below)))] == "fc 4096"
    assert max(bars(below)) == pytest.approx(4 * 102_764_544 / MIB)
    assert figure.get_suptitle() == "vgg16 (2014): 585.9 MiB for one picture in float32"
    assert [axes.get_title(loc="left") for axes in (above, below)] == [
        "activations, one picture: 58.1 MiB",
        "parameters: 527.8 MiB",
    ]


def test_the_comparison_has_a_point_for_each_network_with_a_figure_for_imagenet() -> None:
    rows = [compared(name) for name in VARIANTS]
    (axes,) = comparison_figure(rows).axes
    (points,) = [found for found in axes.collections if isinstance(found, PathCollection)]
    shown = [row for row in rows if row.name not in ("lenet5", "nin")]
    places = [(row.analytic_bytes / 1e6, row.top1) for row in shown]
    assert np.asarray(points.get_offsets()).tolist() == [pytest.approx(place) for place in places]
    assert sorted(text.get_text() for text in axes.texts) == sorted(row.name for row in shown)
    areas = dict(zip([row.multiply_adds for row in shown], points.get_sizes(), strict=True))
    assert [areas[adds] for adds in sorted(areas)] == sorted(areas.values())


def check_names(rows: list[Compared]) -> None:
    """Checks that no name is cut off, or overlaps another."""
    figure = comparison_figure(rows)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    # The extent of the text alone; that of an annotation includes its line.
    boxes = {
        text.get_text(): Text.get_window_extent(text, canvas.get_renderer())
        for axes in figure.axes
        for text in axes.texts
    }
    for box in boxes.values():
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1
    for (name, box), (other, other_box) in combinations(boxes.items(), 2):
        assert not box.overlaps(other_box), (name, other)


def test_names_do_not_run_into_each_other() -> None:
    check_names([compared(name) for name in VARIANTS])


@pytest.mark.parametrize(
    "names",
    [
        ["vgg11", "vgg11_lrn", "vgg13", "vgg16_c", "vgg16", "vgg19"],
        ["googlenet", "googlenet_bn", "inception_v2", "inception_v3"],
        ["alexnet", "alexnet_owt", "zfnet", "zfnet512"],
        ["alexnet", "vgg16", "googlenet", "inception_v3"],
        ["vgg16", "vgg16_c"],
        ["vgg16"],
    ],
    ids="-".join,
)
def test_names_of_a_few_networks_do_not_run_into_each_other(names: list[str]) -> None:
    check_names([compared(name) for name in names])


@pytest.mark.parametrize("names", [[], ["nin"], ["lenet5", "nin"]])
def test_networks_without_a_figure_for_imagenet_make_an_empty_chart(names: list[str], tmp_path: Path) -> None:
    figure = comparison_figure([compared(name) for name in names])
    save(figure, tmp_path / "empty.png")
    assert len(figure.axes[0].texts) == 0


def test_the_history_has_a_bar_a_year_and_winner() -> None:
    (axes,) = history_figure().axes
    assert bars(axes) == [entry.top5_error for entry in ILSVRC]
    assert [text.get_text() for text in axes.texts] == ["28.2", "25.8", "16.4", "11.7", "7.3", "6.7"]
    assert [label.get_text().split("\n") for label in axes.get_xticklabels()] == [
        [entry.name, str(entry.year)] for entry in ILSVRC
    ]
    colours = [patch.get_facecolor() for patch in axes.patches]
    assert [colour == colours[0] for colour in colours] == [True, True, False, False, False, False]


def test_save_writes_a_png_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "history.png"
    save(history_figure(), file)
    with Image.open(file) as picture:
        picture.load()
        assert picture.format == "PNG"
        assert min(picture.size) > 400
    assert list(tmp_path.iterdir()) == [file]
    assert file.stat().st_mode & 0o777 == 0o644


def test_a_folder_that_does_not_exist_is_an_os_error_and_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        save(history_figure(), tmp_path / "missing" / "history.png")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_the_place_of_the_file_is_an_os_error_and_stays(tmp_path: Path) -> None:
    (tmp_path / "history.png").mkdir()
    with pytest.raises(OSError, match="history"):
        save(history_figure(), tmp_path / "history.png")
    assert [path.name for path in tmp_path.rglob("*")] == ["history.png"]


def test_a_drawing_that_fails_half_way_leaves_the_older_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "history.png"
    file.write_bytes(b"older")

    def disk_full(_figure: Figure, path: Path, **_options: object) -> None:
        Path(path).write_bytes(b"half")
        assert file.read_bytes() == b"older"
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Figure, "savefig", disk_full)
        with pytest.raises(OSError, match="No space left"):
            save(history_figure(), file)
    assert file.read_bytes() == b"older"
    assert list(tmp_path.iterdir()) == [file]
    save(history_figure(), file)
    with Image.open(file) as picture:
        picture.verify()
    assert list(tmp_path.iterdir()) == [file]
