"""Panels that show the present: a function for each type."""

from __future__ import annotations

from collections.abc import Sequence

from grafana_foundation_sdk.builders import bargauge, common, dashboard, gauge, piechart, stat, table
from grafana_foundation_sdk.models import common as common_schema
from grafana_foundation_sdk.models import dashboard as schema
from grafana_foundation_sdk.models import piechart as piechart_schema
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from service.observability.dashboards.board import SOURCE
from service.observability.dashboards.panels import SHARE, by, idle, newest, query


def number(
    title: str, description: str, expression: str, unit: str, colours: dashboard.ThresholdsConfig, decimals: int = -1
) -> stat.Panel:
    """The newest value as a big number, with a small graph of the past behind it."""
    panel = (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .with_target(query(expression, title))
        .unit(unit)
        .thresholds(colours)
        .color_scheme(by(schema.FieldColorModeId.THRESHOLDS))
        .mappings([idle()])
        .reduce_options(newest())
        .color_mode(common_schema.BigValueColorMode.VALUE)
        .graph_mode(common_schema.BigValueGraphMode.AREA)
        .text_mode(common_schema.BigValueTextMode.VALUE)
    )
    return panel if decimals < 0 else panel.decimals(decimals)


def dial(
    title: str, description: str, expression: str, colours: dashboard.ThresholdsConfig, unit: str = SHARE
) -> gauge.Panel:
    """A share, from 0 to 100 %, on a dial."""
    return (
        gauge.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .with_target(query(expression, title))
        .unit(unit)
        .min(0)
        .max(1)
        .decimals(0)
        .thresholds(colours)
        .color_scheme(by(schema.FieldColorModeId.THRESHOLDS))
        .mappings([idle()])
        .reduce_options(newest())
        .show_threshold_markers(True)
        .show_threshold_labels(False)
    )


def bar_gauges(title: str, description: str, expression: str, name: str, unit: str) -> bargauge.Panel:
    """A bar for each series, for values that rarely change."""
    return (
        bargauge.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .with_target(query(expression, name).instant())
        .unit(unit)
        .min(0)
        .color_scheme(by(schema.FieldColorModeId.PALETTE_CLASSIC))
        .reduce_options(newest())
        .orientation(common_schema.VizOrientation.HORIZONTAL)
        .display_mode(common_schema.BarGaugeDisplayMode.BASIC)
        .show_unfilled(True)
    )


def shares(title: str, description: str, expression: str, name: str, unit: str) -> piechart.Panel:
    """A ring of shares with a table of values and percentages."""
    return (
        piechart.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .with_target(query(expression, name).instant())
        .unit(unit)
        .color_scheme(by(schema.FieldColorModeId.PALETTE_CLASSIC))
        .reduce_options(newest())
        .pie_type(piechart_schema.PieChartType.DONUT)
        .legend(
            piechart.PieChartLegendOptions()
            .display_mode(common_schema.LegendDisplayMode.TABLE)
            .placement(common_schema.LegendPlacement.BOTTOM)
            .show_legend(True)
            .values([piechart_schema.PieChartLegendValues.VALUE, piechart_schema.PieChartLegendValues.PERCENT])
        )
    )


def rows(
    title: str, description: str, targets: Sequence[str], columns: dict[str, str], unit: str, sort_by: str
) -> table.Panel:
    """A table with a row for each combination of labels.

    Args:
        columns: the titles of the fields to show, in order. A field is a label, or the value of an expression:
            ``Value`` if there is one expression, otherwise ``Value #A``, ``Value #B``.
    """
    panel = (
        table.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .filterable(False)
        .show_header(True)
        .cell_height(common_schema.TableCellHeight.SM)
        .sort_by([common.TableSortByFieldState().display_name(sort_by).desc(False)])
    )
    for number_of, expression in enumerate(targets):
        ref = chr(ord("A") + number_of)
        panel.with_target(query(expression, "", ref).instant().format(PromQueryFormat.TABLE))
    if len(targets) > 1:
        panel.with_transformation(schema.DataTransformerConfig("merge", options={}))
    hidden = {"Time", "Value"} - set(columns)
    arranged = {
        "excludeByName": dict.fromkeys(sorted(hidden), True),
        "indexByName": {field: index for index, field in enumerate(columns)},
        "renameByName": columns,
    }
    return panel.with_transformation(schema.DataTransformerConfig("organize", options=arranged))
