"""PromQL that the dashboards have in common."""

from __future__ import annotations

from typing import Final

#: Every series has its process's deployment; those of a checkpoint have a model as well.
DEPLOYMENT: Final = 'deployment=~"$deployment"'
MODEL: Final = f'model=~"$model",{DEPLOYMENT}'
#: Whatever models are chosen: what a share is a share of.
ANY_MODEL: Final = f'model=~".+",{DEPLOYMENT}'
#: Our own processes; Prometheus has process_* series of others too.
OURS: Final = f'job="topfive",{DEPLOYMENT}'
RATE: Final = "$__rate_interval"
SHOWN: Final = "$__range"


def total(series: str, by: str = "") -> str:
    """The sum over processes, by labels if any are given."""
    return f"sum by ({by}) ({series})" if by else f"sum({series})"


def rate(metric: str, labels: str = MODEL, by: str = "") -> str:
    """Of a counter, a second, over all processes."""
    return total(f"rate({metric}{{{labels}}}[{RATE}])", by)


def increase(metric: str, labels: str = MODEL, by: str = "", over: str = RATE) -> str:
    """Of a counter, in a stretch of time, over all processes. Prometheus extrapolates, so it need not be whole."""
    return total(f"increase({metric}{{{labels}}}[{over}])", by)


def some(expression: str) -> str:
    """Without series that are 0 or have no value: twenty models, of which three are in use, are three lines."""
    return f"{expression} > 0"


def or_zero(expression: str) -> str:
    """0 where nothing of it was ever counted; only of an expression without labels."""
    return f"({expression} or vector(0))"


def quantile(which: float, metric: str, labels: str = MODEL, by: str = "") -> str:
    """Of a histogram, over all processes; between two buckets it is interpolated."""
    return f"histogram_quantile({which}, {rate(f'{metric}_bucket', labels, f'{by}, le' if by else 'le')})"


def mean(metric: str, labels: str = MODEL, by: str = "", over: str = "") -> str:
    """Of a histogram's observations; series without any are left out if there are labels to tell them by."""
    if over:
        counted, summed = (increase(f"{metric}_{part}", labels, by, over) for part in ("count", "sum"))
    else:
        counted, summed = (rate(f"{metric}_{part}", labels, by) for part in ("count", "sum"))
    return f"{summed} / ({some(counted)})" if by else f"{summed} / {counted}"


def ratio(numerator: str, denominator: str, labels: str = MODEL, by: str = "") -> str:
    """Of the rates of two counters; series whose denominator stands still are left out if there are labels."""
    below = rate(denominator, labels, by)
    return f"{rate(numerator, labels, by)} / ({some(below)})" if by else f"{rate(numerator, labels)} / {below}"
