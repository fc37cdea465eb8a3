"""The gates: limits that a release must hold, and whether a report holds them.

A gate that cannot be judged says why, and has not passed.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from loadreport.formatting import first_error, percent
from loadreport.report import REFERENCE, Budget, DeviceKind, Gate, Report

#: The gates that are used unless the caller names a file.
DEFAULT = Path(__file__).parents[1] / "loadtest" / "gates.toml"


class GatesError(ValueError):
    """A file of gates or of profiles cannot be read; the text says why, in one line."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PerGib(_Table):
    networks: dict[str, float] = Field(min_length=1)
    gpu: dict[str, float] = {}
    """For services that compute on GPUs, where they differ."""

    def limits(self, kind: DeviceKind) -> dict[str, float]:
        """The least ratio of each network on a kind of device."""
        return {**self.networks, **self.gpu} if kind == "gpu" else self.networks


class Footprint(_Table):
    within: float = Field(gt=0)


class Errors(_Table):
    share: float = Field(ge=0, le=1)


class Budgets(_Table):
    met: float | None = Field(None, ge=0, le=1)
    p99_over_budget: float | None = Field(None, gt=0)


class Gates(_Table):
    """The limits of a gates.toml; what a missing table would limit is not checked."""

    per_gib: PerGib | None = None
    footprint: Footprint | None = None
    errors: Errors | None = None
    budgets: Budgets | None = None


def read_gates(path: Path) -> Gates:
    """Reads a gates.toml.

    Raises:
        GatesError: it cannot be read, or has an unknown table or key.
    """
    try:
        return Gates.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise GatesError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise GatesError(f"{path} is not TOML: {error}") from error
    except ValidationError as error:
        raise GatesError(f"{path}: {first_error(error)}") from error


def read_footprints(path: Path) -> dict[str, float]:
    """The footprints in MB by checkpoint, from a file of profiles.

    Raises:
        GatesError: it cannot be read, or is not a file of profiles.
    """
    try:
        profiles = json.loads(path.read_text(encoding="utf-8"))["profiles"]
        return {name: profile["footprint_bytes"] / 1e6 for name, profile in profiles.items()}
    except OSError as error:
        raise GatesError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise GatesError(f"{path} is not a file of profiles as topfive profile writes it") from error


def judge(gates: Gates, report: Report, footprints: Mapping[str, float] | None) -> list[Gate]:
    """Checks a report against every gate.

    Args:
        footprints: the profiles' footprints in MB by checkpoint; None if no profiles were given.
    """
    found: list[Gate] = []
    if gates.per_gib is not None:
        limits = gates.per_gib.limits(report.device_kind)
        found += [_per_gib(name, least, report) for name, least in limits.items()]
    if gates.footprint is not None:
        found += _footprints(gates.footprint.within, report, footprints)
    if gates.errors is not None:
        found.append(_errors(gates.errors.share, report))
    if gates.budgets is not None:
        found += _budgets(gates.budgets, report)
    return found


def _gate(name: str, limit: str, measured: str, passed: bool, by: str) -> Gate:
    return Gate(
        name=name, limit=limit, measured=measured, verdict="passed" if passed else "failed", note="" if passed else by
    )


def _not_judged(name: str, limit: str, why: str) -> Gate:
    return Gate(name=name, limit=limit, measured="–", verdict="not judged", note=why)


def _per_gib(name: str, least: float, report: Report) -> Gate:
    title, limit = f"pictures/s per GiB: {name} over {REFERENCE}", f"at least {least:g}"
    if report.device_kind == "mixed":
        return _not_judged(title, limit, f"the service computes on CPUs and on GPUs ({report.device})")
    for wanted in (name, REFERENCE):
        network = next((n for n in report.networks if wanted in (n.name, n.variant)), None)
        if network is None:
            return _not_judged(title, limit, f"{wanted} was not measured")
        if network.per_gib is None:
            return _not_judged(title, limit, f"{wanted}: {network.problem or 'its footprint is not known'}")
    network = next(n for n in report.networks if name in (n.name, n.variant))
    ratio = report.ratio(network)
    assert ratio is not None
    return _gate(title, limit, f"{ratio:.3g}", ratio >= least, f"{percent(1 - ratio / least, 1)} too low")


def _footprints(within: float, report: Report, footprints: Mapping[str, float] | None) -> Iterator[Gate]:
    limit = f"within {percent(within)} of the profile"
    if footprints is None:
        yield _not_judged("footprints", limit, "no profiles were given (--profiles)")
        return
    for network in report.networks:
        title, on_file = f"footprint: {network.name}", footprints.get(network.name)
        if on_file is None:
            yield _not_judged(title, limit, "the file has no profile of it")
        elif not network.footprint_mb:
            yield _not_judged(title, limit, "the service does not say its footprint")
        else:
            off = network.footprint_mb / on_file - 1
            measured = f"{network.footprint_mb:,.0f} MB against {on_file:,.0f}"
            by = f"{percent(abs(off), 1)} {'above' if off > 0 else 'below'} it"
            yield _gate(title, limit, measured, abs(off) <= within, by)


def _errors(share: float, report: Report) -> Gate:
    limit = f"at most {percent(share, 2)}"
    # Looks do not count: how a service fails beyond its knee says nothing against it.
    parts = [part for part in (report.budget_run, *(n.knee for n in report.networks)) if part is not None]
    counts = [(part.sent, part.failed) for part in parts] + [(n.probes_sent, n.probes_failed) for n in report.networks]
    sent, failed = sum(count[0] for count in counts), sum(count[1] for count in counts)
    if not sent:
        return _not_judged("errors", limit, "nothing was sent")
    measured = f"{failed} of {sent:,}, {percent(failed / sent, 2)}"
    return _gate("errors", limit, measured, failed <= share * sent, f"{percent(failed / sent - share, 2)} too many")


def _budgets(limits: Budgets, report: Report) -> Iterator[Gate]:
    run = report.budget_run
    timed = [] if run is None else [budget for budget in run.budgets if budget.budget_ms is not None]
    why = "nothing with a latency budget was let in" if run is not None else report.no_budget_run or "not measured"
    if limits.met is not None:
        title, limit = "budgets met", f"at least {percent(limits.met, 1)} of those let in"
        accepted, met = sum(b.accepted for b in timed), sum(b.met for b in timed)
        if not accepted:
            yield _not_judged(title, limit, why)
        else:
            measured = f"{met:,} of {accepted:,}, {percent(met / accepted, 1)}"
            by = f"{percent(limits.met - met / accepted, 1)} too few"
            yield _gate(title, limit, measured, met >= limits.met * accepted, by)
    if limits.p99_over_budget is not None:
        if run is None or not timed:
            yield _not_judged("p99 over budget", f"at most {limits.p99_over_budget:g}", why)
        for budget in timed:
            yield _p99(budget, limits.p99_over_budget)


def _p99(budget: Budget, most: float) -> Gate:
    title, limit = f"p99 over budget: {budget.name}", f"at most {most:g}"
    if budget.p99_ms is None or budget.budget_ms is None:
        return _not_judged(title, limit, "none of its requests was answered")
    ratio = budget.p99_ms / budget.budget_ms
    measured = f"{ratio:.2f} (p99 {budget.p99_ms:,.0f} ms of {budget.samples})"
    return _gate(title, limit, measured, ratio <= most, f"{percent(ratio / most - 1, 1)} too high")
