"""What all types of panels share: units, queries, colours, legends."""

from __future__ import annotations

from typing import Final, TypeVar

from grafana_foundation_sdk.builders import bargauge, common, dashboard, piechart, prometheus, timeseries
from grafana_foundation_sdk.models import common as common_schema
from grafana_foundation_sdk.models import dashboard as schema

SECONDS: Final = "s"
BYTES: Final = "bytes"  # Grafana's name for powers of 1024
REQUESTS: Final = "reqps"
PICTURES: Final = "suffix: /s"
SHARE: Final = "percentunit"
COUNT: Final = "short"
TIMES: Final = "suffix:×"
POINTS: Final = "suffix: points"

#: A network has the same colour on every panel, and networks of a family have similar ones; VGG-16, the largest, has a
#: colour of its own.
MODEL_COLOURS: Final = {
    "lenet5": "#5794F2",
    "alexnet": "#FADE2A", "alexnet_owt": "#E0B400", "zfnet": "#FFCB7D", "zfnet512": "#FF9830",
    "nin": "#C4162A",
    "vgg11": "#CA95E5", "vgg11_lrn": "#DEB6F2", "vgg13": "#B877D9", "vgg16_c": "#A352CC", "vgg19": "#8F3BB8",
    "vgg16": "#FF4D9D",
    "googlenet": "#73BF69", "googlenet_bn": "#37872D",
    "inception_v2": "#5BD6D0", "inception_v3": "#1FA8A0",
    "none": "#8E8E99", "several": "#C8C8D4", "ensemble": "#1F60C4",
}  # fmt: skip
Step = tuple[float, str]
Coloured = TypeVar("Coloured", bargauge.Panel, piechart.Panel, timeseries.Panel)


def query(expression: str, legend: str, ref: str = "A") -> prometheus.Dataquery:
    """A query over the time shown."""
    return prometheus.Dataquery().expr(expression).legend_format(legend).ref_id(ref).range()


def queries(*pairs: tuple[str, str]) -> list[prometheus.Dataquery]:
    """Several queries of one panel, each given as (expression, legend)."""
    return [query(expression, legend, chr(ord("A") + n)) for n, (expression, legend) in enumerate(pairs)]


def steps(base: str, *above: Step) -> dashboard.ThresholdsConfig:
    """Colours by value: ``base``, and from each value in ``above`` on the colour beside it."""
    return (
        dashboard.ThresholdsConfig()
        .mode(schema.ThresholdsMode.ABSOLUTE)
        .steps([schema.Threshold(None, base), *(schema.Threshold(value, colour) for value, colour in above)])
    )


def idle() -> schema.SpecialValueMap:
    """Shows a dash instead of NaN, the value of a share when there is no traffic."""
    return schema.SpecialValueMap(
        dashboard.DashboardSpecialValueMapOptions()
        .match(schema.SpecialValueMatch.NULL_AND_NAN)
        .result(schema.ValueMappingResult(text="–", color="text", index=0))
        .build()
    )


def newest() -> common.ReduceDataOptions:
    """Makes a panel of one number show the newest value of a series."""
    return common.ReduceDataOptions().calcs(["lastNotNull"]).fields("").values(False)


def by(mode: schema.FieldColorModeId) -> dashboard.FieldColor:
    """How series or values get their colours."""
    return dashboard.FieldColor().mode(mode)


def fixed(colour: str) -> schema.DynamicConfigValue:
    """A fixed colour, as a property of an override."""
    return schema.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": colour})


def of_models(panel: Coloured) -> Coloured:
    """Gives each series of a panel the colour of the network that it is named after."""
    for name, colour in MODEL_COLOURS.items():
        panel.override_by_name(name, [fixed(colour)])
    return panel


def legend(*calculations: str) -> common.VizLegendOptions:
    """A list of names below the panel, each with these calculations of its values."""
    return (
        common.VizLegendOptions()
        .display_mode(common_schema.LegendDisplayMode.LIST)
        .placement(common_schema.LegendPlacement.BOTTOM)
        .show_legend(True)
        .calcs(list(calculations))
    )


def legend_table(*calculations: str) -> common.VizLegendOptions:
    """The same as :func:`legend`, as a table."""
    return legend(*calculations).display_mode(common_schema.LegendDisplayMode.TABLE)
