"""Capacity on paper: how many devices and fronts answer a rate in time.

The highest rate of one device is found by bisection in the twin: attainment, and p99 if it is asked for. The number of
devices for a rate that few of them answer is found by trying; a larger rate is divided by that of one device. A device
owner is one process of Python, and the twin runs its code: what the twin takes for a picture on this machine bounds an
owner too. Cores that decode follow from the price of a decode.

Assumptions, which the page repeats: devices do not share anything but the fronts; more of them at the same rate each do
no worse than one, since each front asks the one with the fewest pictures; networks between machines take no time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel

from models.checkpoints.catalogue import Catalogue
from models.images.cost import RATES, price
from service.domain.outcome import OK
from service.domain.quantile import quantile
from service.twin.document import table
from service.twin.report import report
from service.twin.running import NOWHERE, Outcome, device_profiles, simulate
from service.twin.scenario import Scenario, ScenarioError, read_scenario

#: Which share of all offered must be answered in time.
_ATTAINMENT = 0.99
#: Nor may devices be busier than this. In a short trial patient callers would hide that more comes than is computed.
_DEVICES_BUSY = 0.95
#: Cores that decode, and owners, are busy for at most this share of the time.
_BUSY = 0.7
#: Pictures of a trial, about, and seconds at least.
_PICTURES, _LEAST_S = 2000.0, 20.0
#: The bisection ends at rates that differ by less than this share.
_NEAR = 0.03
#: Up to so many devices are simulated together.
_TOGETHER = 8
#: Rates of the table, in pictures a second.
SCALE = (100, 1_000, 10_000, 100_000)


class Wish(NamedTuple):
    """What is to be planned for."""

    rate: float
    scenario: Scenario
    p99_ms: float | None


class Row(BaseModel):
    """What a rate needs."""

    rate: float
    devices: int
    owners: int
    """Processes: one for each device, or more where Python is the limit."""
    cores: int
    """That decode."""
    fronts: int


class Plan(BaseModel):
    """What a rate needs, and how that was found."""

    scenario: Scenario
    p99_ms: float | None
    per_device: float
    """Pictures a second that one device answers in time."""
    python_us: float
    """What the code of an owner takes for a picture on this machine."""
    decode_ms: float
    """The mean price of decoding a picture of the mix."""
    simulated: int | None
    """The fewest devices that were simulated together at the rate that is wished; None if they are too many."""
    wished: Row
    table: list[Row]


def read_wish(text: str, scenario: Scenario) -> Wish:
    """Reads ``rate=10000,mix=FILE,p99_ms=200``: all but the rate may be left out. The file is a scenario; by default it
    is the given one.

    Raises:
        ScenarioError: it cannot be read.
    """
    words = dict(word.strip().partition("=")[::2] for word in text.split(","))
    unknown = sorted(words.keys() - {"rate", "mix", "p99_ms"})
    if unknown or "rate" not in words:
        raise ScenarioError(f"--plan {text}: write it as rate=10000,mix=FILE,p99_ms=200")
    try:
        rate = float(words["rate"])
        p99_ms = float(words["p99_ms"]) if "p99_ms" in words else None
    except ValueError as error:
        raise ScenarioError(f"--plan {text}: {error}") from error
    if not (0 < rate < math.inf) or (p99_ms is not None and not 0 < p99_ms < math.inf):
        raise ScenarioError(f"--plan {text}: rate and p99_ms are numbers above 0")
    if "mix" in words:
        scenario = scenario.but(mix=read_scenario(Path(words["mix"])).mix)
    return Wish(rate, scenario, p99_ms)


def plan(wish: Wish) -> Plan:
    """What a wish needs, in devices like the scenario's first.

    Raises:
        ScenarioError: one device does not answer a picture at a time in time.
    """
    scenario = wish.scenario.but(device=(wish.scenario.device[0].model_copy(update={"count": 1}),))
    began, pictures = time.process_time(), 0

    def holds(rate: float, devices: int = 1) -> bool:
        nonlocal pictures
        outcome = simulate(_trial(scenario, rate, devices))
        pictures += len(outcome.sent)
        return _holds(outcome, wish.p99_ms)

    per_device = _highest(holds)
    python_s = (time.process_time() - began) / pictures
    simulated = None
    if wish.rate / per_device <= _TOGETHER:
        simulated = next((n for n in range(1, 2 * _TOGETHER + 1) if holds(wish.rate, n)), None)
    decode_s = _decode_s(scenario)

    def row(rate: float, devices: int | None = None) -> Row:
        devices = devices or math.ceil(rate / per_device)
        cores = math.ceil(rate * decode_s / _BUSY)
        return Row(
            rate=rate,
            devices=devices,
            owners=max(devices, math.ceil(rate * python_s / _BUSY)),
            cores=cores,
            fronts=math.ceil(cores / scenario.cores),
        )

    return Plan(
        scenario=scenario,
        p99_ms=wish.p99_ms,
        per_device=per_device,
        python_us=1e6 * python_s,
        decode_ms=1e3 * decode_s,
        simulated=simulated,
        wished=row(wish.rate, simulated),
        table=[row(rate) for rate in SCALE],
    )


def _highest(holds: Callable[[float], bool]) -> float:
    """The highest rate that holds, to three hundredths, by doubling and bisection."""
    low = high = 1.0
    if holds(low):
        while holds(high := 2 * low):
            low = high
    else:
        while not holds(low := high / 2):
            high = low
            if high < 1e-3:
                raise ScenarioError("one device does not even answer a lone picture in time: no number of them will")
    while high / low > 1 + _NEAR:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def _trial(scenario: Scenario, rate: float, devices: int) -> Scenario:
    """So many devices at a rate, with as many cores as it takes."""
    cores = max(scenario.cores, math.ceil(rate * _decode_s(scenario) / _BUSY))
    return scenario.but(
        rate=rate,
        seconds=max(_LEAST_S, _PICTURES / rate),
        retries="never",
        fronts=math.ceil(cores / scenario.cores),
        device=(scenario.device[0].model_copy(update={"count": devices}),),
    )


def _holds(outcome: Outcome, p99_ms: float | None) -> bool:
    made = report(outcome)
    if made.total.attainment < _ATTAINMENT or made.busy > _DEVICES_BUSY:
        return False
    took_ms = [1000 * sent.took_s for sent in outcome.sent if sent.reason == OK]
    return p99_ms is None or quantile(took_ms, 0.99) <= p99_ms


def _decode_s(scenario: Scenario) -> float:
    """The mean price of a picture's decode for the largest crop that networks here need, by the device's rates."""
    profiles = device_profiles(scenario.device[0].profile)
    found = [c for c in Catalogue(NOWHERE, untrained=True).checkpoints() if c.labels == "imagenet1k"]
    rates = next((p.decode_rates for c in found if (p := profiles.nearest(c)) is not None and p.decode_rates), RATES)
    weights = sum(budget.weight for budget in scenario.mix)
    return sum(
        budget.weight / weights * max(price(budget.outline, c.preprocess, rates).seconds for c in found)
        for budget in scenario.mix
    )


def markdown(found: Plan) -> str:
    """The plan as a page."""
    device = found.scenario.device[0].profile
    p99 = "" if found.p99_ms is None else f", and p99 within {found.p99_ms:g} ms"
    how = (
        f"{found.wished.devices} devices were simulated together"
        if found.simulated
        else "the rate is divided by that of one device"
    )
    columns = ("pictures/s", f"devices ({device})", "device owners", "cores that decode", "fronts")
    rows = [found.wished, *found.table]
    lines = [
        f"# {found.wished.rate:,g} pictures a second",
        "",
        f"{_ATTAINMENT:.0%} of all offered are answered within their budgets{p99}. One device answers "
        f"{found.per_device:,.1f} a second ({found.scenario.arrivals} arrivals, seed {found.scenario.seed}). "
        f"First row: {how}.",
        "",
        table(columns, [_cells(row) for row in rows]),
        "",
        "Assumptions:",
        "",
        "- Devices share nothing but the fronts, and each front asks the one with the fewest pictures: many do no "
        "worse at the same rate each than one does.",
        f"- An owner's Python takes {found.python_us:.0f} us a picture, as the simulation does on this machine, and "
        f"may be busy for {_BUSY:.0%} of the time. Where there are more owners than devices, Python is the limit.",
        f"- A picture takes {found.decode_ms:.1f} ms of a core to decode, by its price; cores are busy for {_BUSY:.0%} "
        f"of the time, and a front has {found.scenario.cores}.",
        f"- Devices are busy for at most {_DEVICES_BUSY:.0%} of the time.",
        "- HTTP and the network between machines take no time.",
        "",
    ]
    return "\n".join(lines)


def _cells(row: Row) -> tuple[str, ...]:
    return f"{row.rate:,g}", f"{row.devices:,}", f"{row.owners:,}", f"{row.cores:,}", f"{row.fronts:,}"
