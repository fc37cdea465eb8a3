"""Panels with a time axis: a function for each type."""

from __future__ import annotations

from collections.abc import Sequence

from grafana_foundation_sdk.builders import common, dashboard, heatmap, prometheus, statetimeline, timeseries
from grafana_foundation_sdk.models import common as common_schema
from grafana_foundation_sdk.models import dashboard as schema
from grafana_foundation_sdk.models import heatmap as heatmap_schema
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from service.observability.dashboards.board import SOURCE
from service.observability.dashboards.panels import COUNT, by, fixed, legend, query


def lines(
    title: str, description: str, targets: Sequence[prometheus.Dataquery], unit: str, lowest: float | None = 0
) -> timeseries.Panel:
    """Lines over time. The axis begins at ``lowest``, or where the data does if that is None."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .targets(list(targets))
        .unit(unit)
        .color_scheme(by(schema.FieldColorModeId.PALETTE_CLASSIC))
        .draw_style(common_schema.GraphDrawStyle.LINE)
        .line_width(2)
        .fill_opacity(0)
        .show_points(common_schema.VisibilityMode.NEVER)
        .span_nulls(False)
        .legend(legend("lastNotNull"))
        .tooltip(
            common.VizTooltipOptions()
            .mode(common_schema.TooltipDisplayMode.MULTI)
            .sort(common_schema.SortOrder.DESCENDING)
        )
    )
    return panel if lowest is None else panel.min(lowest)


def areas(title: str, description: str, targets: Sequence[prometheus.Dataquery], unit: str) -> timeseries.Panel:
    """Stacked areas, for series whose sum means something."""
    return (
        lines(title, description, targets, unit)
        .line_width(1)
        .fill_opacity(45)
        .stacking(common.StackingConfig().mode(common_schema.StackingMode.NORMAL).group("A"))
    )


def bars(title: str, description: str, targets: Sequence[prometheus.Dataquery], unit: str) -> timeseries.Panel:
    """Stacked bars, for rare events."""
    panel = areas(title, description, targets, unit).draw_style(common_schema.GraphDrawStyle.BARS)
    return panel.fill_opacity(80).decimals(0).axis_soft_max(1).legend(legend())


def limit(panel: timeseries.Panel, colours: dashboard.ThresholdsConfig) -> timeseries.Panel:
    """Adds dashed lines at the thresholds to a panel."""
    style = common.GraphThresholdsStyleConfig().mode(common_schema.GraphThresholdsStyleMode.DASHED)
    return panel.thresholds(colours).thresholds_style(style)


def by_status(panel: timeseries.Panel) -> timeseries.Panel:
    """Colours series whose names begin with an HTTP status by the class of the status."""
    for beginning, colour in {"200": "green", "4": "blue", "429": "orange", "5": "red"}.items():
        panel.override_by_regexp(f"/^{beginning}/", [fixed(colour)])
    return panel


def in_powers_of_ten(panel: timeseries.Panel) -> timeseries.Panel:
    """Gives a panel a logarithmic axis, for series of different orders of magnitude. It cannot begin at 0."""
    scale = common.ScaleDistributionConfig().type(common_schema.ScaleDistribution.LOG).log(10)
    return panel.scale_distribution(scale)


def dashed(panel: timeseries.Panel, name: str, colour: str) -> timeseries.Panel:
    """Draws the series ``name`` as a dashed line that is not stacked."""
    return panel.override_by_name(
        name,
        [
            fixed(colour),
            schema.DynamicConfigValue("custom.lineStyle", {"fill": "dash", "dash": [10, 10]}),
            schema.DynamicConfigValue("custom.lineWidth", 2),
            schema.DynamicConfigValue("custom.fillOpacity", 0),
            schema.DynamicConfigValue("custom.stacking", {"mode": "none", "group": "A"}),
        ],
    )


def coloured(panel: timeseries.Panel, colours: dict[str, str]) -> timeseries.Panel:
    """Gives series fixed colours, by name."""
    for name, colour in colours.items():
        panel.override_by_name(name, [fixed(colour)])
    return panel


def buckets(title: str, description: str, expression: str, unit: str) -> heatmap.Panel:
    """A heatmap of a histogram's buckets over time."""
    return (
        heatmap.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .with_target(query(expression, "{{le}}").format(PromQueryFormat.HEATMAP))
        # Wide enough cells on a panel of any width.
        .interval("15s")
        .unit(unit)
        .calculate(False)
        .color(
            heatmap.HeatmapColorOptions()
            .mode(heatmap_schema.HeatmapColorMode.SCHEME)
            .scheme("Turbo")
            .fill("dark-orange")
            .scale(heatmap_schema.HeatmapColorScale.EXPONENTIAL)
            .exponent(0.5)
            .steps(64)
            .reverse(False)
        )
        .filter_values(heatmap.FilterValueRange().le(1e-9))
        .y_axis(heatmap.YAxisConfig().unit(unit).axis_placement(common_schema.AxisPlacement.LEFT).reverse(False))
        .cell_values(heatmap.CellValues().unit(COUNT))
        .cell_gap(1)
        .show_legend()
    )


def states(
    title: str, description: str, expression: str, name: str, words: dict[str, tuple[str, str]]
) -> statetimeline.Panel:
    """A row for each series, coloured by its value over time. ``words`` has a word and a colour for each value."""
    results = {
        value: schema.ValueMappingResult(text=word, color=colour, index=index)
        for index, (value, (word, colour)) in enumerate(words.items())
    }
    return (
        statetimeline.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .with_target(query(expression, name))
        .unit(COUNT)
        .mappings([schema.ValueMap(results)])
        .color_scheme(by(schema.FieldColorModeId.THRESHOLDS))
        .merge_values(True)
        .row_height(0.85)
        .fill_opacity(80)
        .line_width(0)
        .show_value(common_schema.VisibilityMode.AUTO)
        .legend(legend())
    )
