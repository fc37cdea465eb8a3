"""Builds a dashboard: its variables, links and time range, and its panels on the grid of 24 columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from grafana_foundation_sdk.builders import bargauge, gauge, heatmap, piechart, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.models import dashboard as schema

#: Panels name their data source by a variable, so that the files work in every Grafana.
SOURCE: Final = schema.DataSourceRef(type_val="prometheus", uid="${datasource}")
_TITLES: Final = {
    "topfive-overview": "TopFive / Overview",
    "topfive-batching": "TopFive / Batching and device",
    "topfive-memory": "TopFive / Memory and routing",
}
_COLUMNS: Final = 24


PanelBuilder = (
    bargauge.Panel
    | gauge.Panel
    | heatmap.Panel
    | piechart.Panel
    | stat.Panel
    | statetimeline.Panel
    | table.Panel
    | timeseries.Panel
)


class Line:
    """Panels side by side: of equal width, or as wide as ``widths`` says, in columns."""

    def __init__(self, height: int, *panels: PanelBuilder, widths: Sequence[int] = ()) -> None:
        self.height = height
        self.panels = panels
        self.widths = widths or [_COLUMNS // len(panels)] * len(panels)
        if sum(self.widths) != _COLUMNS or len(self.widths) != len(panels):
            raise ValueError(f"{len(panels)} panels do not fill {_COLUMNS} columns with {list(self.widths)}")


def board(uid: str, description: str, rows: dict[str, Sequence[Line]]) -> build.Dashboard:
    """A dashboard with lines of panels below the title of each row. Panels are numbered in reading order."""
    made = (
        build.Dashboard(_TITLES[uid])
        .uid(uid)
        .description(description)
        .tags(["topfive"])
        .timezone("browser")
        .editable()
        .refresh("10s")
        .time("now-15m", "now")
        .tooltip(schema.DashboardCursorSync.CROSSHAIR)
        .variables([_datasource(), _deployments(), _models()])
        .links([_link(other) for other in _TITLES if other != uid])
    )
    number = 0
    for title, lines in rows.items():
        number += 1
        made.with_row(build.Row(title).id(number))
        for line in lines:
            for width, panel in zip(line.widths, line.panels, strict=True):
                number += 1
                panel.id(number)
                panel.height(line.height)
                panel.span(width)
                made.with_panel(panel)
    return made


def _link(uid: str) -> build.DashboardLink:
    """A link to another dashboard, which keeps the time range and the selected models."""
    return (
        build.DashboardLink(_TITLES[uid].removeprefix("TopFive / "))
        .type(schema.DashboardLinkType.LINK)
        .icon("dashboard")
        .url(f"/d/{uid}")
        .keep_time(True)
        .include_vars(True)
    )


def _datasource() -> build.DatasourceVariable:
    return (
        build.DatasourceVariable("datasource")
        .label("Data source")
        .description("The Prometheus that scrapes the service.")
        .type("prometheus")
    )


def _deployments() -> build.QueryVariable:
    what = (
        "Deployments by their name in the fleet file. 'ingress', which does HTTP, counts requests and decisions; the "
        "deployment of a network counts its batches, loads and bytes. The local fleet has one deployment for both."
    )
    return _labels("deployment", "Deployment", what, "topfive_ready")


def _models() -> build.QueryVariable:
    # This metric has every model that is served, and also 'none', 'several' and 'ensemble', unlike those of predictors.
    return _labels("model", "Model", "Networks, by the names that answers have in 'model'.", "topfive_requests_total")


def _labels(name: str, label: str, description: str, metric: str) -> build.QueryVariable:
    """A variable whose values are those of a label. At first all are selected, which also matches series without the
    label."""
    query: dict[str, object] = {
        "qryType": 1,  # label values
        "query": f"label_values({metric},{name})",
        "refId": "PrometheusVariableQueryEditor-VariableQuery",
    }
    return (
        build.QueryVariable(name)
        .label(label)
        .description(description)
        .query(query)
        .datasource(SOURCE)
        .refresh(schema.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(schema.VariableSort.NATURAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(schema.VariableOption(selected=True, text=["All"], value=["$__all"]))
    )
