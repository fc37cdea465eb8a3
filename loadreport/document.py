"""The report as a document: the sections that every page shows, from the answer to the details.

The Markdown page, the HTML page and the terminal show this document; none of them adds text of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from loadreport.formatting import UNKNOWN, number, percent
from loadreport.report import Budget, BudgetRun, Change, Comparison, Gate, Knee, Network, Report, Step
from loadreport.steps import CONFIRM_ARRIVALS, LONGEST_S, LOOK_ARRIVALS, PROBE_USERS

_FRONT = {True: "yes", False: "no", None: UNKNOWN}
#: The order of gates: failed ones first.
_URGENCY = {"failed": 0, "not judged": 1, "passed": 2}

T = TypeVar("T")


@dataclass(frozen=True)
class Table:
    """Cells of text; the first ``left`` columns hold words, the others figures."""

    head: list[str]
    rows: list[list[str]]
    left: int = 1


@dataclass(frozen=True)
class Section:
    """A title with paragraphs, a table, notes on the table, and the names of the plots that belong to it."""

    title: str
    text: list[str] = field(default_factory=list)
    table: Table | None = None
    notes: list[str] = field(default_factory=list)
    plots: tuple[str, ...] = ()


@dataclass(frozen=True)
class Document:
    """Everything that a page shows; ``warning`` comes before all else."""

    title: str
    warning: str | None
    sections: list[Section]


def document(report: Report) -> Document:
    """The document of a report."""
    sections = [_answer(report), _networks(report), _latency(report), _mixed_budgets(report)]
    if report.gates:
        sections.append(_gates(report.gates))
    if report.comparison is not None:
        sections.append(_comparison(report.comparison))
    warning = None
    if report.partial is not None:
        warning = f"PARTIAL: this load test ended early ({report.partial}). What was measured until then follows."
    return Document(f"Load test of {report.host}", warning, [*sections, _steps(report), _method(report)])


def headline(report: Report) -> str:
    """The report's answer in one sentence: the best network's pictures a second per GiB against VGG-16's."""
    reference = report.reference()
    peers = [n for n in report.networks if reference is not None and n.labels == reference.labels]
    ratios = [(ratio, n) for n in peers if n is not reference and (ratio := report.ratio(n)) is not None]
    if reference is None or not ratios:
        return "VGG-16 was not measured beside another network, so there is no ratio to it."
    ratio, best = max(ratios, key=lambda pair: pair[0])
    return (
        f"{best.variant} gives {number(ratio)} times VGG-16's pictures a second per GiB: "
        f"{number(best.per_gib)} against {number(reference.per_gib)}."
    )


def _table(columns: Mapping[str, Callable[[T], str]], items: Iterable[T], left: int = 1) -> Table:
    return Table(list(columns), [[cell(item) for cell in columns.values()] for item in items], left)


def _at_knee(figure: Callable[[Knee], float | None]) -> Callable[[Network], str]:
    return lambda network: number(None if network.knee is None else figure(network.knee))


def _answer(report: Report) -> Section:
    text = [headline(report)]
    if report.gates:
        verdicts = [gate.verdict for gate in report.gates]
        counts = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in ("passed", "failed", "not judged"))
        text.append(f"Gates: {counts}.")
    worse = [c.name for c in report.comparison.changes if c.verdict == "worse"] if report.comparison else []
    if worse:
        text.append(f"Worse than the previous report beyond the noise: {', '.join(worse)}.")
    where = f"at {report.host}" + (f" on {report.device}" if report.device else "")
    text.append(
        "Each network's figures are those of the highest Poisson rate that it held "
        f"(p99 within {report.p99_limit_ms:,.0f} ms), {where}, {report.created[:10]}."
    )
    return Section("Pictures a second per GiB", text, plots=("per_gib", "front"))


def _networks(report: Report) -> Section:
    reference = report.reference()

    def is_other_task(network: Network) -> bool:
        return reference is not None and network.per_gib is not None and network.labels != reference.labels

    def ratio(network: Network) -> str:
        found = report.ratio(network)
        return (UNKNOWN if found is None else f"{number(found)} x") + "*" * is_other_task(network)

    columns: dict[str, Callable[[Network], str]] = {
        "network": lambda n: n.name,
        "pictures/s": _at_knee(lambda knee: knee.pictures_per_second),
        "footprint MB": lambda n: number(n.footprint_mb),
        "pictures/s per GiB": lambda n: number(n.per_gib),
        "to VGG-16": ratio,
        "top-1 %": lambda n: UNKNOWN if n.top1 is None else f"{n.top1:.1f}",
        "analytic MB": lambda n: number(n.analytic_mb),
        "front": lambda n: _FRONT[n.on_front],
    }
    notes = [f"{n.name}: {n.problem}." for n in report.networks if n.problem is not None]
    bound = [network.name for network in report.networks if network.generator_bound]
    if bound:
        notes.append(f"The load generator could not send faster: {', '.join(bound)} may hold more than stated here.")
    if any(is_other_task(network) for network in report.networks):
        notes.append("* Another label set than VGG-16's and smaller pictures: a different task, so only costs compare.")
    if any(network.name.endswith("@untrained") for network in report.networks):
        notes.append("@untrained: random weights from a fixed seed, as costly as trained ones; top-1 is as published.")
    notes += [
        "MB is 10^6 bytes, GiB 2^30. Footprint: bytes measured at the largest batch, from GET /models. "
        "Analytic: parameters, input and layer outputs of one picture in float32.",
        "Front: yes if no other network of the label set is at least as good in top-1, in the p50 of a lone request "
        "and in footprint, and better in one of them. There is no answer for the only network of a label set.",
    ]
    return Section("Networks", table=_table(columns, report.ranked()), notes=notes)


def _latency(report: Report) -> Section:
    columns: dict[str, Callable[[Network], str]] = {
        "network": lambda n: n.name,
        "rate/s": _at_knee(lambda knee: knee.rate),
        "p50 ms": _at_knee(lambda knee: knee.p50_ms),
        "p99 ms": _at_knee(lambda knee: knee.p99_ms),
        "answers": lambda n: f"{n.knee.samples:,}" if n.knee else UNKNOWN,
        "one caller p50 ms": lambda n: number(n.alone_p50_ms),
        "decode ms": _at_knee(lambda knee: knee.phases_p50_ms.get("decode")),
        "queue ms": _at_knee(lambda knee: knee.phases_p50_ms.get("queue")),
        "forward ms": _at_knee(lambda knee: knee.phases_p50_ms.get("forward")),
        "mean batch": _at_knee(lambda knee: knee.mean_batch_size),
        f"{PROBE_USERS} callers/s": lambda n: number(n.closed_per_second),
    }
    note = (
        "Latency counts from when a request was due, not from when it was sent. Decode, queue and forward are medians "
        "by the service's clock."
    )
    return Section("Latency at the knee", table=_table(columns, report.ranked()), notes=[note, *_certainty(report)])


def _certainty(report: Report) -> list[str]:
    """How much the number of answers proves."""
    knees = [network.knee for network in report.networks if network.knee is not None]
    fewest = min((knee.samples for knee in knees), default=0)
    if not fewest:
        return []
    gap = max(knee.ambiguity for knee in knees)
    notes = [
        "Pictures/s is the rate held times the share that was answered, as in MLPerf's server scenario: counted "
        f"pictures would add the chance of {fewest:,} Poisson arrivals, {percent(fewest**-0.5)}. The true knee may lie "
        f"above, by up to {percent(gap)} where the search was least sure."
    ]
    if fewest < 1000:
        slowest = max(1, round(fewest / 100))
        notes.append(
            f"A p99 of {fewest:,} answers rests on the slowest {slowest} of them: it says whether the limit held, not "
            "how long the tail is."
        )
    return notes


def _mixed_budgets(report: Report) -> Section:
    run = report.budget_run
    if run is None:
        return Section("Mixed budgets", [f"No figures: {report.no_budget_run or 'not measured'}."])

    def over(budget: Budget) -> float | None:
        if budget.budget_ms is None or budget.p99_ms is None:
            return None
        return budget.p99_ms / budget.budget_ms

    columns: dict[str, Callable[[Budget], str]] = {
        "budget": lambda b: b.name,
        "sent": lambda b: f"{b.sent:,}",
        "let in": lambda b: f"{b.accepted:,}",
        "refused": lambda b: f"{b.refused:,}",
        "met": lambda b: percent(b.met / b.accepted, 1) if b.budget_ms is not None and b.accepted else UNKNOWN,
        "p50 ms": lambda b: number(b.p50_ms),
        "p99 ms": lambda b: number(b.p99_ms),
        "p99 over budget": lambda b: number(over(b)),
    }
    notes = [
        "Met: answered within the budget by the client's clock, of those let in. Refused: 422 or 429, at once. p50 and "
        "p99 are of the answers: a request that ended with 504 has none, and was not met."
    ]
    fewest = min((budget.samples for budget in run.budgets if budget.samples), default=0)
    if 0 < fewest < 100:
        notes.append(f"The smallest class has {fewest} answers: below 100, a p99 is little more than the slowest one.")
    return Section("Mixed budgets", [_mix(run)], _table(columns, run.budgets), notes, plots=("budgets",))


def _mix(run: BudgetRun) -> str:
    total = sum(run.pictures_by_model.values())
    picked = sorted(run.pictures_by_model.items(), key=lambda item: -item[1])
    shares = ", ".join(f"{name} {percent(count / total, 1)}" for name, count in picked if total) or "none"
    return (
        f"{run.sent:,} requests in {run.seconds:,.0f} s, {number(run.rate)} a second: half of what the median network "
        "held, since this tests whether budgets are kept, not what happens under overload. "
        f"The router picked {shares}. {run.failed} failed."
    )


def _gates(gates: Iterable[Gate]) -> Section:
    columns: dict[str, Callable[[Gate], str]] = {
        "gate": lambda g: g.name,
        "limit": lambda g: g.limit,
        "measured": lambda g: g.measured,
        "verdict": lambda g: g.verdict,
        "by how much, or why": lambda g: g.note,
    }
    return Section("Gates", table=_table(columns, sorted(gates, key=lambda gate: _URGENCY[gate.verdict]), left=5))


def _comparison(compared: Comparison) -> Section:
    columns: dict[str, Callable[[Change], str]] = {
        "network": lambda c: c.name,
        "verdict": lambda c: c.verdict,
        "": lambda c: c.note,
        "before/s": lambda c: number(c.before_per_second),
        "now/s": lambda c: number(c.now_per_second),
        "ratio": lambda c: number(c.ratio),
        "noise": lambda c: UNKNOWN if c.allowance is None else percent(c.allowance),
    }
    text = [f"The rates held now, compared with those of {compared.created} at {compared.host}."]
    if compared.note:
        text.append(compared.note)
    note = (
        "Noise: two runs of the same service differ, since a search knows the knee only up to the gap between the rate "
        "that held and the next one that did not, and from a limited number of requests. Two standard deviations of "
        "that difference are allowed, and at least 5 %."
    )
    return Section("Against the previous report", text, _table(columns, compared.changes, left=3), [note])


def _steps(report: Report) -> Section:
    columns: dict[str, Callable[[tuple[Network, Step]], str]] = {
        "network": lambda tried: tried[0].name,
        "step": lambda tried: "confirmation" if tried[1].confirmation else "look",
        "outcome": lambda tried: tried[1].why_not or "held",
        "rate/s": lambda tried: number(tried[1].rate),
        "pictures/s": lambda tried: number(tried[1].pictures_per_second),
        "p50 ms": lambda tried: number(tried[1].p50_ms),
        "p99 ms": lambda tried: number(tried[1].p99_ms),
        "answers": lambda tried: f"{tried[1].samples:,}",
        "s": lambda tried: f"{tried[1].seconds:,.0f}",
    }
    steps = [(network, step) for network in report.networks for step in network.steps]
    return Section("Every step", table=_table(columns, steps, left=3), plots=("steps",))


def _method(report: Report) -> Section:
    shortest = min((n.knee.seconds for n in report.networks if n.knee is not None), default=2 * report.seconds)
    # A queue that grows by this share of the time reaches the limit of p99 only as the shortest confirmation ends.
    unnoticed = report.p99_limit_ms / 1000 / shortest
    made_by = ", ".join(f"{name} {value}" for name, value in report.generator.items())
    text = [
        f"A rate held if p99 was within {report.p99_limit_ms:,.0f} ms, no request failed or stayed unanswered, and at "
        "least 95 % were answered. Looks go up and down until the gap is 10 %; the figures are of a confirmation with "
        "arrivals of its own. A look lasts for the arrivals of "
        f"{report.seconds:g} s or for about {LOOK_ARRIVALS}, a confirmation for those of {2 * report.seconds:g} s or "
        f"about {CONFIRM_ARRIVALS}, whichever takes longer, and at most {LONGEST_S:g} s. An overload of less than "
        f"{percent(unnoticed, 1)} lets the queue grow too slowly for the shortest confirmation to notice.",
        "Requests are sent when they are due, by Locust in open loop, whether or not earlier ones have been answered. "
        "A generator that sends late makes a rate harder to hold, never easier: latency counts from when it was due.",
        f"Seed {report.seed}; pictures: {report.pictures or 'generated, by the label set'}; generator: {made_by}.",
    ]
    if report.same_machine:
        text.append("The generator ran on the service's own machine and took some of its CPU: figures are low ones.")
    return Section("How it was measured", text)
