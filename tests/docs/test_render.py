"""Dashboards drawn as pictures, from a pretended Prometheus."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import httpx
import numpy as np
import pytest
from PIL import Image
from typer import Typer
from typer.testing import CliRunner

from docs.render import Window, dashboards, panel_queries
from docs.render.__main__ import render
from docs.render.canvas import Box, Canvas
from docs.render.fields import ask, calculate, fields
from docs.render.numbers import draw_piechart
from docs.render.picture import DRAW, draw
from docs.render.prometheus import Prometheus, PrometheusError
from docs.render.queries import panels, substitute
from docs.render.tables import draw_table
from docs.render.theme import colour, colour_of_value
from docs.render.units import written

WINDOW = Window(start=1_700_000_000, end=1_700_000_300)
LABELS = {
    "model": "vgg16", "deployment": "all", "replica": "one", "status": "200", "reason": "ok", "cut": "full",
    "result": "ok", "checkpoint": "vgg16@imagenet1k", "labels": "imagenet1k", "trained": "true", "origin": "a file",
    "version": "1", "python": "3", "torch": "2", "onnxruntime": "1", "ray": "2",
    "alertname": "Late", "severity": "page", "alertstate": "firing",
}  # fmt: skip
Answer = Callable[[str, float], list[tuple[dict[str, str], float]]]


def plenty(expression: str, moment: float) -> list[tuple[dict[str, str], float]]:
    """Two series for every query, and buckets for histograms."""
    if "by (le) (increase" in expression:
        return [({"le": le}, count) for le, count in (("1.0", 3.0), ("2.0", 5.0), ("+Inf", 5.0))]
    if "> bool 0" in expression:
        return [({"model": "vgg16"}, float(moment % 60 < 30)), ({"model": "lenet5"}, 1.0)]
    return [(LABELS, 0.25 + moment % 100 / 1000), (LABELS | {"model": "lenet5", "reason": "named"}, 0.125)]


def nothing(expression: str, moment: float) -> list[tuple[dict[str, str], float]]:
    return []


def without_values(expression: str, moment: float) -> list[tuple[dict[str, str], float]]:
    """NaN everywhere, which is the value of a share without traffic."""
    return [(labels, float("nan")) for labels, _ in plenty(expression, moment)]


def prometheus(answer: Answer, asked: list[str] | None = None) -> Prometheus:
    def respond(request: httpx.Request) -> httpx.Response:
        sent = {name: values[0] for name, values in parse_qs(request.content.decode()).items()}
        expression = sent["query"]
        if asked is not None:
            asked.append(expression)
        if request.url.path.endswith("/query"):
            moment = float(sent["time"])
            result: list[Any] = [
                {"metric": labels, "value": [moment, f"{value}"]} for labels, value in answer(expression, moment)
            ]
        else:
            times = np.arange(float(sent["start"]), float(sent["end"]) + 0.1, float(sent["step"]))
            result = [
                {"metric": labels, "values": [[t, f"{answer(expression, t)[n][1]}"] for t in times]}
                for n, (labels, _) in enumerate(answer(expression, times[0]))
            ]
        return httpx.Response(200, json={"status": "success", "data": {"result": result}})

    return Prometheus("http://prometheus", httpx.MockTransport(respond))


def pixels(path: Path) -> Any:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


@pytest.mark.parametrize("name", ["overview", "batching", "memory"])
def test_a_dashboard_is_drawn_and_all_its_queries_asked(name: str, tmp_path: Path) -> None:
    board, asked = dashboards()[name], []
    assert draw(board, prometheus(plenty, asked), WINDOW, tmp_path / "full.png") == []
    assert asked == [query.expression for query in panel_queries(board, WINDOW)]
    assert draw(board, prometheus(nothing), WINDOW, tmp_path / "empty.png") != []
    full, empty = pixels(tmp_path / "full.png"), pixels(tmp_path / "empty.png")
    assert full.shape == empty.shape
    # There are lines, areas and numbers instead of the words "No data".
    assert (full.max(axis=2) - full.min(axis=2) > 60).sum() > 20 * (empty.max(axis=2) - empty.min(axis=2) > 60).sum()
    assert (tmp_path / "full.png").stat().st_size < 300_000
    assert list(tmp_path.glob("*.unfinished")) == []


@pytest.mark.parametrize("kind", sorted(DRAW))
def test_each_type_of_panel_shows_its_data(kind: str, tmp_path: Path) -> None:
    """The pictures of a panel with and without data differ only inside the panel."""
    panel = next(p for board in dashboards().values() for p in panels(board) if p["type"] == kind)
    place = panel["gridPos"]
    board = dashboards()["overview"] | {"panels": [panel | {"gridPos": place | {"x": 0, "y": 0}}]}
    assert draw(board, prometheus(plenty), WINDOW, tmp_path / "full.png") == []
    draw(board, prometheus(nothing), WINDOW, tmp_path / "empty.png")
    # By more than the difference of the two files' palettes.
    different = abs(pixels(tmp_path / "full.png") - pixels(tmp_path / "empty.png")).max(axis=2) > 50
    rows, columns = np.nonzero(different)
    assert different.sum() > 400
    assert rows.min() > 84
    assert columns.max() < 16 + place["w"] * 60


def test_every_type_of_panel_can_be_drawn() -> None:
    assert {panel["type"] for board in dashboards().values() for panel in panels(board)} == set(DRAW)


def test_panels_without_data_are_named_unless_they_have_a_text_for_it(tmp_path: Path) -> None:
    board = dashboards()["overview"]
    missing = draw(board, prometheus(nothing), WINDOW, tmp_path / "picture.png")
    assert set(missing) == {query.panel for query in panel_queries(board, WINDOW) if not query.may_be_empty}
    assert "Alerts" not in missing
    assert "Requests by model" in missing


def test_nan_is_no_data(tmp_path: Path) -> None:
    board = dashboards()["memory"]
    missing = draw(board, prometheus(without_values), WINDOW, tmp_path / "picture.png")
    assert missing == draw(board, prometheus(nothing), WINDOW, tmp_path / "picture.png")


def test_variables_are_replaced() -> None:
    queries = [query for board in dashboards().values() for query in panel_queries(board, WINDOW)]
    assert not [query for query in queries if "$" in query.expression]
    asked = substitute('sum(rate(a{model=~"$model"}[$__rate_interval])) / b[$__range]', WINDOW, 5)
    assert asked == 'sum(rate(a{model=~".*"}[20s])) / b[300s]'
    with pytest.raises(ValueError, match="unknown variable"):
        substitute("a{b=~'$replica'}", WINDOW, 5)


def test_a_panel_with_a_longer_interval_has_a_longer_rate_window() -> None:
    window = Window(0, 300, step=5, rate_interval=10)
    queries = {query.panel: query.expression for query in panel_queries(dashboards()["batching"], window)}
    assert "[15s]" in queries["Batch sizes"]
    assert "[10s]" in queries["Mean batch by model"]


def test_series_have_the_names_and_colours_of_their_panel() -> None:
    panel = next(p for p in panels(dashboards()["memory"]) if p["title"] == "Resident bytes by model")
    found = {field.name: field for field in fields(panel, ask(prometheus(plenty), panel, WINDOW))}
    assert found["vgg16"].colour == "#FF4D9D"
    assert found["limit"].colour == colour("orange")
    assert found["limit"].custom("stacking")["mode"] == "none"
    assert found["vgg16"].custom("stacking")["mode"] == "normal"


def test_a_gap_is_nan() -> None:
    def respond(request: httpx.Request) -> httpx.Response:
        series = {"metric": {}, "values": [[1_700_000_000, "1"], [1_700_000_010, "3"]]}
        return httpx.Response(200, json={"status": "success", "data": {"result": [series]}})

    [series] = Prometheus("http://prometheus", httpx.MockTransport(respond)).over("a", WINDOW, 5)
    np.testing.assert_array_equal(series.values[:4], [1, np.nan, 3, np.nan])
    assert [calculate(name, series.values) for name in ("lastNotNull", "mean", "min", "max")] == [3, 2, 1, 3]


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.99412, "percentunit", "99.4%"),
        (1536, "bytes", "1.5 KiB"),
        (800 * 2**20, "bytes", "800 MiB"),
        (0, "bytes", "0 B"),
        (0.00123, "s", "1.23 ms"),
        (90, "s", "1.5 min"),
        (0, "s", "0 s"),
        (12, "reqps", "12 req/s"),
        (1.056, "suffix:×", "1.06×"),
        (12_000, "short", "12 K"),
        (float("nan"), "short", "–"),
    ],
)
def test_values_are_written_as_grafana_writes_them(value: float, unit: str, text: str) -> None:
    assert written(value, unit) == text


def test_an_unknown_unit_is_an_error() -> None:
    with pytest.raises(ValueError, match="furlongs"):
        written(1, "furlongs")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (httpx.Response(400, json={"status": "error", "error": "parse error at char 3"}), "parse error at char 3: a"),
        (httpx.Response(502, text="<html>bad gateway"), "is not a Prometheus: status 502"),
        (httpx.Response(200, json=["hello"]), "unexpected answer"),
    ],
)
def test_errors_of_prometheus_are_reported(answer: httpx.Response, said: str) -> None:
    source = Prometheus("http://prometheus", httpx.MockTransport(lambda request: answer))
    with pytest.raises(PrometheusError, match=said):
        source.at("a", 0)


def command(*arguments: str) -> Any:
    app = Typer()
    app.command()(render)
    return CliRunner().invoke(app, arguments)


def test_the_command_says_that_nothing_answers(tmp_path: Path) -> None:
    result = command("--prometheus", "http://127.0.0.1:1", "--out", f"{tmp_path}")
    assert result.exit_code == 1
    assert "no Prometheus answers at http://127.0.0.1:1" in result.output


@pytest.mark.parametrize("strict", [True, False])
def test_the_command_writes_pictures_and_names_empty_panels(
    strict: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("docs.render.__main__.Prometheus", lambda url: prometheus(nothing))
    result = command("--out", f"{tmp_path}", *(["--strict"] if strict else []))
    assert result.exit_code == int(strict)
    assert "no data: TopFive / Overview: Requests by model" in result.output
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"dashboard-overview.png", "dashboard-batching.png", "dashboard-memory.png"}


def test_a_folder_without_dashboards_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no dashboards"):
        dashboards(tmp_path)
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(json.JSONDecodeError):
        dashboards(tmp_path)


@pytest.mark.parametrize(
    ("value", "name"), [(0.0, "green"), (0.99, "green"), (1.0, "yellow"), (4.99, "yellow"), (5.0, "red")]
)
def test_a_colour_begins_at_its_threshold(value: float, name: str) -> None:
    steps = [{"value": None, "color": "green"}, {"value": 1.0, "color": "yellow"}, {"value": 5.0, "color": "red"}]
    assert colour_of_value(value, {"steps": steps}) == colour(name)


class Written(Canvas):
    """Notes what is written on it, from top to bottom and left to right."""

    def __init__(self) -> None:
        super().__init__(800, 400)
        self.texts: list[tuple[float, float, str]] = []

    def write(self, x: float, y: float, text: str, *style: Any, **more: Any) -> None:
        self.texts.append((y, x, text))
        super().write(x, y, text, *style, **more)

    def rows(self) -> list[list[str]]:
        by_line: dict[float, list[str]] = {}
        for y, _, text in sorted(self.texts):
            by_line.setdefault(y, []).append(text)
        return list(by_line.values())


def test_a_table_is_sorted_and_joins_the_answers_of_its_queries() -> None:
    """Whatever order Prometheus answers in."""
    panel = next(p for p in panels(dashboards()["batching"]) if p["title"] == "Phases by model")
    values = {"decode": 0.001, "queue": 0.5, "forward": 2.0}

    def answer(expression: str, moment: float) -> list[tuple[dict[str, str], float]]:
        seconds = next(value for phase, value in values.items() if f"topfive_{phase}_seconds_sum" in expression)
        return [({"model": "vgg16"}, seconds), ({"model": "alexnet"}, 2 * seconds)]

    canvas = Written()
    answers = ask(prometheus(answer), panel, WINDOW)
    for _, series in answers:
        series.reverse()
    draw_table(canvas, Box(0, 0, 800, 400), panel, answers, WINDOW)
    assert canvas.rows() == [
        ["Model", "Decode", "Queue", "Forward"],
        ["alexnet", "2 ms", "1 s", "4 s"],
        ["vgg16", "1 ms", "500 ms", "2 s"],
    ]


def test_the_ring_has_percentages_and_begins_with_the_largest_share() -> None:
    panel = next(p for p in panels(dashboards()["memory"]) if p["type"] == "piechart")

    def answer(expression: str, moment: float) -> list[tuple[dict[str, str], float]]:
        return [({"model": "alexnet"}, 2.0**20), ({"model": "vgg16"}, 3 * 2.0**20)]

    canvas = Written()
    draw_piechart(canvas, Box(0, 0, 800, 400), panel, ask(prometheus(answer), panel, WINDOW), WINDOW)
    *_, first, second = canvas.rows()
    assert (first, second) == (["vgg16", "3 MiB", "75%"], ["alexnet", "1 MiB", "25%"])
    assert ["4 MiB"] in canvas.rows()
