"""Compares a report with a previous one: a network is worse only beyond the noise between two runs of one service.

The confirmed rates are compared. A run knows its knee only so well, for two reasons:

- The search leaves a gap: the confirmed rate held, the next one above it did not, and the true knee is anywhere
  between. If it is uniformly distributed there, its standard deviation is gap / sqrt(12).
- The number of requests is limited: counts of n Poisson arrivals have a relative standard deviation of 1 / sqrt(n), and
  since requests wait in bunches, a p99 tells less than n independent requests would. With twice that deviation, more
  than nine in ten pairs of runs of a simulated queue agree (``tests/loadreport/test_comparison.py``).

The allowance is two standard deviations of the difference of two runs, and at least 5 %: below that, changes of the
service cannot be told from the drift of a shared machine.
"""

from __future__ import annotations

import math

from loadreport.report import Change, Comparison, Knee, Network, Report

LEAST_ALLOWANCE = 0.05
_BUNCHING = 2.0


def compare(now: Report, before: Report) -> Comparison:
    """The comparison of each network that either report has."""
    earlier = {network.name: network for network in before.networks}
    later = {network.name: network for network in now.networks}
    changes = [_change(name, earlier.get(name), later.get(name)) for name in dict.fromkeys((*later, *earlier))]
    return Comparison(created=before.created, host=before.host, changes=changes, note=_note(now, before))


def allowance(one: Knee, other: Knee) -> float:
    """The share by which the rates of two runs of the same service may differ."""
    variance = sum(knee.ambiguity**2 / 12 + _BUNCHING**2 / max(1, knee.samples) for knee in (one, other))
    return max(LEAST_ALLOWANCE, 2 * math.sqrt(variance))


def _change(name: str, before: Network | None, now: Network | None) -> Change:
    old, new = None if before is None else before.knee, None if now is None else now.knee
    change = Change(
        name=name,
        before_per_second=None if old is None else old.rate,
        now_per_second=None if new is None else new.rate,
        ratio=None,
        allowance=None,
        verdict="not compared",
    )
    if new is None:
        change.note = "not measured now" if now is None else now.problem or ""
    elif old is None:
        change.note = "not in the previous report" if before is None else f"previously: {before.problem}"
    else:
        change.ratio, change.allowance = new.rate / old.rate, allowance(new, old)
        if change.ratio < 1 / (1 + change.allowance):
            change.verdict = "worse"
        elif change.ratio > 1 + change.allowance:
            change.verdict = "better"
        else:
            change.verdict = "same within the noise"
    return change


def _note(now: Report, before: Report) -> str:
    """A sentence on what was measured differently; empty if nothing was."""
    pairs = {
        "host": (now.host, before.host),
        "device": (now.device, before.device),
        "p99 limit": (f"{now.p99_limit_ms:g} ms", f"{before.p99_limit_ms:g} ms"),
        "pictures": (now.pictures, before.pictures),
        "seconds a step": (f"{now.seconds:g}", f"{before.seconds:g}"),
        "generator": (_machine(now), _machine(before)),
    }
    differing = [
        f"{name} ({old or 'not stated'} before, {new or 'not stated'} now)"
        for name, (new, old) in pairs.items()
        if new != old
    ]
    return f"Measured differently: {'; '.join(differing)}." if differing else ""


def _machine(report: Report) -> str:
    return ", ".join(f"{name} {version}" for name, version in report.generator.items())
