"""A dashboard's frame: variables, links, time range, and its panels on the grid of 24 columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from grafana_foundation_sdk.builders import bargauge, gauge, heatmap, piechart, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.models import dashboard as schema

#: The variable below that names the data source, so that one file fits every Grafana.
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
    """Panels side by side: equally wide, or as many columns as ``widths`` says."""

    def __init__(self, height: int, *panels: PanelBuilder, widths: Sequence[int] = ()) -> None:
        self.height = height
        self.panels = panels
        self.widths = widths or [_COLUMNS // len(panels)] * len(panels)
        if sum(self.widths) != _COLUMNS or len(self.widths) != len(panels):
            raise ValueError(f"{len(panels)} panels do not fill {_COLUMNS} columns with {list(self.widths)}")


def board(uid: str, description: str, rows: dict[str, Sequence[Line]]) -> build.Dashboard:
    """The dashboard ``uid`` with lines of panels below each row's title; panels are numbered as they are read."""
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
    """To another of the dashboards, with the same time and the same choice of models."""
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
        "Processes by their name in the fleet file. Requests and decisions are counted where HTTP is, in 'ingress'; "
        "batches, loads and bytes where the network is. In the local fleet that is one process."
    )
    return _labels("deployment", "Deployment", what, "topfive_ready")


def _models() -> build.QueryVariable:
    # Requests have every model that is served, and 'none', 'several' and 'ensemble', which no predictor's metric has.
    return _labels("model", "Model", "Networks, as in an answer's 'model'.", "topfive_requests_total")


def _labels(name: str, label: str, description: str, metric: str) -> build.QueryVariable:
    """A choice among a label's values; all of them at first, those of a metric that has no such label included."""
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
