"""The colours of Grafana's dark theme."""

from __future__ import annotations

import bisect
from typing import Any, Final

BACKGROUND: Final = "#111217"
PANEL: Final = "#181b1f"
BORDER: Final = "#25272d"
GRID: Final = "#2a2d33"
TEXT: Final = "#ccccdc"
FAINT: Final = "#8e8e99"
LINK: Final = "#6e9fff"

_NAMED: Final = {
    "green": "#73BF69", "light-green": "#96D98D", "semi-dark-green": "#56A64B", "dark-green": "#37872D",
    "yellow": "#FADE2A", "semi-dark-yellow": "#F2CC0C", "orange": "#FF9830", "semi-dark-orange": "#FF780A",
    "red": "#F2495C", "blue": "#5794F2", "light-blue": "#8AB8FF", "purple": "#B877D9",
    "text": TEXT, "transparent": "none",
}  # fmt: skip
#: The colours of Grafana's classic palette that are easy to tell apart on a dark background.
_CLASSIC: Final = (
    "green", "semi-dark-yellow", "light-blue", "semi-dark-orange", "red", "blue", "purple", "#705DA0", "dark-green",
    "yellow", "#447EBC", "#C15C17",
)  # fmt: skip


def colour(name: str) -> str:
    """A colour by Grafana's name for it; any other text is returned unchanged."""
    return _NAMED.get(name, name)


def colour_of_series(place: int) -> str:
    """The colour of a series by its index in the panel."""
    return colour(_CLASSIC[place % len(_CLASSIC)])


def colour_of_value(value: float, thresholds: dict[str, Any]) -> str:
    """The colour of the highest threshold that ``value`` reaches."""
    steps = thresholds["steps"]
    limits = [step["value"] for step in steps[1:]]
    return colour(steps[bisect.bisect_right(limits, value)]["color"])
