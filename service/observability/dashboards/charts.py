"""Panels with a time axis, one function a type."""

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
    """Lines over time; the axis begins at 0, or where the lines do."""
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
    """Lines that add up to something, one upon the other."""
    return (
        lines(title, description, targets, unit)
        .line_width(1)
        .fill_opacity(45)
        .stacking(common.StackingConfig().mode(common_schema.StackingMode.NORMAL).group("A"))
    )


def bars(title: str, description: str, targets: Sequence[prometheus.Dataquery], unit: str) -> timeseries.Panel:
    """Events, which are rare: bars one upon the other instead of lines."""
    panel = areas(title, description, targets, unit).draw_style(common_schema.GraphDrawStyle.BARS)
    return panel.fill_opacity(80).decimals(0).axis_soft_max(1).legend(legend())


def limit(panel: timeseries.Panel, colours: dashboard.ThresholdsConfig) -> timeseries.Panel:
    """With dashed lines at the values that matter."""
    style = common.GraphThresholdsStyleConfig().mode(common_schema.GraphThresholdsStyleMode.DASHED)
    return panel.thresholds(colours).thresholds_style(style)


def by_status(panel: timeseries.Panel) -> timeseries.Panel:
    """With series that begin with an HTTP status in the colour of its class."""
    for beginning, colour in {"200": "green", "4": "blue", "429": "orange", "5": "red"}.items():
        panel.override_by_regexp(f"/^{beginning}/", [fixed(colour)])
    return panel


def in_powers_of_ten(panel: timeseries.Panel) -> timeseries.Panel:
    """With a logarithmic axis, for series of different orders of magnitude; it cannot begin at 0."""
    scale = common.ScaleDistributionConfig().type(common_schema.ScaleDistribution.LOG).log(10)
    return panel.scale_distribution(scale)


def dashed(panel: timeseries.Panel, name: str, colour: str) -> timeseries.Panel:
    """With the series ``name`` as a dashed line that nothing is piled upon."""
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
    """With colours that mean something: series by name."""
    for name, colour in colours.items():
        panel.override_by_name(name, [fixed(colour)])
    return panel


def buckets(title: str, description: str, expression: str, unit: str) -> heatmap.Panel:
    """How a histogram's observations spread, over time."""
    return (
        heatmap.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .with_target(query(expression, "{{le}}").format(PromQueryFormat.HEATMAP))
        # Cells that can be told apart, whatever the panel's width.
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
    """A row over time for each series; ``words`` has a word and a colour for each value that there is."""
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
