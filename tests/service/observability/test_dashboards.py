"""The dashboards are what the code writes, conform to Grafana's schema, and query only metrics that exist."""

from __future__ import annotations

import json
import re
from itertools import combinations
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.cog.runtime import panelcfg_config
from grafana_foundation_sdk.models.dashboard import Dashboard, FieldColorModeId
from grafana_foundation_sdk.models.dashboard import Panel as PanelSchema

from docs.render import dashboards
from models.networks.variants import VARIANTS
from service.observability.dashboards.__main__ import FOLDER, files
from service.observability.dashboards.board import Line
from service.observability.dashboards.charts import lines
from service.observability.dashboards.panels import MODEL_COLOURS
from service.telemetry.metrics import LIVE, REGISTRY

Json = dict[str, Any]
BOARDS = dashboards()
UIDS = {"overview": "topfive-overview", "batching": "topfive-batching", "memory": "topfive-memory"}
#: Series that Prometheus itself adds: for each target, for each process, and for its rules.
OTHERS = {
    "up": {"job", "instance"},
    "process_cpu_seconds_total": {"job", "instance"},
    "process_resident_memory_bytes": {"job", "instance"},
    "ALERTS": {"alertname", "alertstate", "severity"},
}
#: Labels that http_sd adds to all series of the service.
OF_TARGETS = {"job", "instance", "deployment", "replica"}
NAME = re.compile(r"\b(topfive_\w+|up|ALERTS|process_\w+)\b")
SELECTOR = re.compile(r"\b(topfive_\w+|up|process_\w+){([^}]*)}")
GROUPING = re.compile(r"\bby \(([^)]*)\)")


def metrics() -> dict[str, set[str]]:
    """All series that the service can have, with their labels."""
    found = {name: set(labels) for name, (_, labels) in LIVE.items()}
    for collector in set(REGISTRY._collector_to_names):
        # Ours name their labels so, and the library's so.
        labels = {*getattr(collector, "label_names", ()), *getattr(collector, "_labelnames", ())}
        for name in REGISTRY._collector_to_names[collector]:
            found[name] = labels | ({"le"} if name.endswith("_bucket") else set())
    return {name: labels | OF_TARGETS for name, labels in (found | OTHERS).items()}


def panels(board: Json, *, rows: bool = False) -> list[Json]:
    return [panel for panel in board["panels"] if rows or panel["type"] != "row"]


def expressions(board: Json) -> list[str]:
    return [target["expr"] for panel in panels(board) for target in panel["targets"]]


ALL_EXPRESSIONS = sorted({expression for board in BOARDS.values() for expression in expressions(board)})
EVERY_PANEL = [pytest.param(panel, id=f"{name}: {panel['title']}") for name in BOARDS for panel in panels(BOARDS[name])]


def test_the_files_are_what_the_code_writes() -> None:
    assert {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.json")} == files()


@pytest.mark.parametrize("name", UIDS)
def test_grafanas_schema_knows_every_field(name: str) -> None:
    """Reading drops fields that the schema does not have. So if nothing is missing afterwards, all fields are known."""
    register_default_plugins()
    # The options of a type that is not registered would not be checked at all.
    for panel in panels(BOARDS[name]):
        assert panelcfg_config(panel["type"]) is not None, panel["type"]
    again = json.loads(JSONEncoder().encode(Dashboard.from_json(BOARDS[name])))
    for panel, read in zip(BOARDS[name]["panels"], again["panels"], strict=True):
        # The SDK adds an empty `custom` to every panel that it reads; its builders omit an empty one.
        if panel["type"] != "row" and "custom" not in panel["fieldConfig"]["defaults"]:
            assert read["fieldConfig"]["defaults"].pop("custom", {}) == {}
    assert again == BOARDS[name]


def test_that_check_finds_a_field_that_the_schema_does_not_have() -> None:
    register_default_plugins()
    panel = json.loads(json.dumps(panels(BOARDS["overview"])[0]))
    for place in (panel, panel["options"], panel["fieldConfig"]["defaults"], panel["targets"][0]):
        place["sparkline"] = True
        assert json.loads(JSONEncoder().encode(PanelSchema.from_json(panel))) != panel
        del place["sparkline"]
    assert json.loads(JSONEncoder().encode(PanelSchema.from_json(panel))) == panel


@pytest.mark.parametrize("name", UIDS)
def test_the_frame(name: str) -> None:
    board = BOARDS[name]
    assert board["uid"] == UIDS[name]
    assert "topfive" in board["tags"]
    assert (board["refresh"], board["time"]) == ("10s", {"from": "now-15m", "to": "now"})
    assert {link["url"] for link in board["links"]} == {f"/d/{uid}" for uid in UIDS.values() if uid != UIDS[name]}
    assert all(link["keepTime"] and link["includeVars"] for link in board["links"])
    # Grafana assigns the id; an id in the file could overwrite another dashboard.
    assert "id" not in board


@pytest.mark.parametrize("name", UIDS)
def test_panels_fill_the_grid_without_overlaps(name: str) -> None:
    shown = panels(BOARDS[name], rows=True)
    assert len({panel["id"] for panel in shown}) == len(shown)
    cells = [
        {(place["x"] + dx, place["y"] + dy) for dx in range(place["w"]) for dy in range(place["h"])}
        for place in (panel["gridPos"] for panel in shown)
    ]
    for (first, one), (second, other) in combinations(zip(shown, cells, strict=True), 2):
        assert not one & other, (first["title"], second["title"])
    taken = set().union(*cells)
    assert {x for x, _ in taken} == set(range(24))
    assert len(taken) == 24 * (max(y for _, y in taken) + 1), "there are gaps"


@pytest.mark.parametrize("widths", [(12, 11), (12, 13), (24,), (8, 8, 8)])
def test_panels_that_do_not_fill_a_line_are_refused(widths: tuple[int, ...]) -> None:
    two = lines("One", "", [], "s"), lines("Other", "", [], "s")
    assert Line(8, *two).widths == [12, 12]
    with pytest.raises(ValueError, match="2 panels do not fill 24 columns"):
        Line(8, *two, widths=widths)


@pytest.mark.parametrize("panel", EVERY_PANEL)
def test_every_panel_has_a_description_a_unit_and_queries(panel: Json) -> None:
    assert panel["title"]
    assert len(panel["description"]) > 30
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert panel["targets"]
    references = [target["refId"] for target in panel["targets"]]
    assert len(set(references)) == len(references)
    if panel["type"] != "table":
        assert all(target["legendFormat"] for target in panel["targets"])


@pytest.mark.parametrize("name", UIDS)
def test_titles_are_unique(name: str) -> None:
    titles = [panel["title"] for panel in panels(BOARDS[name])]
    repeated = {title for title in titles if titles.count(title) > 1}
    # A number at the top and the graph of it below may have the same title.
    assert all(
        len({panel["type"] for panel in panels(BOARDS[name]) if panel["title"] == title}) == titles.count(title)
        for title in repeated
    )


@pytest.mark.parametrize("name", UIDS)
def test_every_variable_is_used_and_none_is_unknown(name: str) -> None:
    variables = {variable["name"] for variable in BOARDS[name]["templating"]["list"]}
    assert variables == {"datasource", "deployment", "model"}
    used = set(re.findall(r"\$(\w+)", " ".join(expressions(BOARDS[name]))))
    assert used - {"__rate_interval", "__range"} == {"deployment", "model"}
    for variable in BOARDS[name]["templating"]["list"][1:]:
        assert (variable["multi"], variable["includeAll"], variable["allValue"]) == (True, True, ".*")
        metric, label = re.fullmatch(r"label_values\((\w+),(\w+)\)", variable["query"]["query"]).groups()  # type: ignore[union-attr]
        assert label == variable["name"]
        assert label in metrics()[metric]


@pytest.mark.parametrize("expression", ALL_EXPRESSIONS)
def test_queries_use_only_metrics_and_labels_that_exist(expression: str) -> None:
    known = metrics()
    # Without names of labels and quoted values, only metrics are left.
    bare = GROUPING.sub("", re.sub(r"{[^}]*}", "", expression))
    names = NAME.findall(bare)
    assert names
    assert set(names) <= set(known)
    for name, matchers in SELECTOR.findall(expression):
        assert set(re.findall(r"(\w+)=", matchers)) <= known[name]
    for grouping in GROUPING.findall(expression):
        assert {label.strip() for label in grouping.split(",")} <= set.union(*(known[name] for name in names))


@pytest.mark.parametrize("expression", [e for e in ALL_EXPRESSIONS if "ALERTS" not in e])
def test_queries_filter_by_the_variables(expression: str) -> None:
    """Every selector filters by deployment, and by model unless the query names the models itself."""
    known = metrics()
    selected = SELECTOR.findall(expression)
    assert [name for name, _ in selected] == NAME.findall(GROUPING.sub("", re.sub(r"{[^}]*}", "", expression)))
    for name, matchers in selected:
        assert 'deployment=~"$deployment"' in matchers
        if "model" in known[name]:
            assert re.search(r'model=~"\$model"|model=~"\.\+"|model="vgg16"', matchers), matchers
    for window in re.findall(r"\[([^]]*)\]", expression):
        assert window in ("$__rate_interval", "$__range")


@pytest.mark.parametrize("panel", EVERY_PANEL)
def test_overrides_name_only_known_settings(panel: Json) -> None:
    """The SDK accepts any name for an overridden setting, and Grafana ignores unknown ones silently."""
    custom = set(panelcfg_custom(panel["type"]))
    for override in panel["fieldConfig"].get("overrides") or []:
        assert override["matcher"]["id"] in ("byName", "byRegexp")
        for setting in override["properties"]:
            if setting["id"] == "color":
                assert setting["value"]["mode"] in list(FieldColorModeId)
            else:
                assert setting["id"].removeprefix("custom.") in custom


def panelcfg_custom(kind: str) -> list[str]:
    """The field settings that only this type of panel has."""
    register_default_plugins()
    config = panelcfg_config(kind)
    assert config is not None
    if config.field_config_from_json_hook is None:
        return []
    names = {"lineStyle": {}, "lineWidth": 1, "fillOpacity": 1, "stacking": {}}
    return list(config.field_config_from_json_hook(names).to_json())


def test_every_network_has_a_colour_of_its_own() -> None:
    assert set(VARIANTS) | {"none", "several", "ensemble"} == set(MODEL_COLOURS)
    assert len(set(MODEL_COLOURS.values())) == len(MODEL_COLOURS)


def test_no_panel_type_is_deprecated() -> None:
    kinds = {panel["type"] for board in BOARDS.values() for panel in panels(board)}
    assert kinds <= {
        "alertlist", "barchart", "bargauge", "gauge", "heatmap", "piechart", "stat", "state-timeline", "table", "text",
        "timeseries",
    }  # fmt: skip
