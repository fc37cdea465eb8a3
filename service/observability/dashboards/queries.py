"""PromQL that several panels use."""

from __future__ import annotations

from typing import Final

#: Every series has the deployment of its process; those of a checkpoint have a model too.
DEPLOYMENT: Final = 'deployment=~"$deployment"'
MODEL: Final = f'model=~"$model",{DEPLOYMENT}'
#: All models, whichever are selected: for the denominator of a share.
ANY_MODEL: Final = f'model=~".+",{DEPLOYMENT}'
#: Processes of the service; Prometheus has process_* series of other programs too.
OURS: Final = f'job="topfive",{DEPLOYMENT}'
RATE: Final = "$__rate_interval"
SHOWN: Final = "$__range"


def total(series: str, by: str = "") -> str:
    """The sum over processes, by these labels if there are any."""
    return f"sum by ({by}) ({series})" if by else f"sum({series})"


def rate(metric: str, labels: str = MODEL, by: str = "") -> str:
    """The rate of a counter per second, over all processes."""
    return total(f"rate({metric}{{{labels}}}[{RATE}])", by)


def increase(metric: str, labels: str = MODEL, by: str = "", over: str = RATE) -> str:
    """The increase of a counter in a period, over all processes. It may be fractional, since Prometheus
    extrapolates."""
    return total(f"increase({metric}{{{labels}}}[{over}])", by)


def some(expression: str) -> str:
    """Drops series that are 0 or have no value, so that of twenty models only those in use have a line."""
    return f"{expression} > 0"


def or_zero(expression: str) -> str:
    """The expression, which must have no labels, or 0 if it has no series."""
    return f"({expression} or vector(0))"


def quantile(which: float, metric: str, labels: str = MODEL, by: str = "") -> str:
    """A quantile of a histogram, over all processes; Prometheus interpolates between two buckets."""
    return f"histogram_quantile({which}, {rate(f'{metric}_bucket', labels, f'{by}, le' if by else 'le')})"


def mean(metric: str, labels: str = MODEL, by: str = "", over: str = "") -> str:
    """The mean of a histogram's observations. With labels, series without observations are dropped."""
    if over:
        counted, summed = (increase(f"{metric}_{part}", labels, by, over) for part in ("count", "sum"))
    else:
        counted, summed = (rate(f"{metric}_{part}", labels, by) for part in ("count", "sum"))
    return f"{summed} / ({some(counted)})" if by else f"{summed} / {counted}"


def ratio(numerator: str, denominator: str, labels: str = MODEL, by: str = "") -> str:
    """The ratio of the rates of two counters. With labels, series whose denominator does not grow are dropped."""
    below = rate(denominator, labels, by)
    return f"{rate(numerator, labels, by)} / ({some(below)})" if by else f"{rate(numerator, labels)} / {below}"
