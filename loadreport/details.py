"""The sections behind the answer: mixed budgets, gates, the comparison, every step, the method."""

from __future__ import annotations

from loadreport.formatting import Section, Table, number, percent
from loadreport.report import Budget, BudgetRun, Comparison, Report
from loadreport.steps import CONFIRM_ARRIVALS, LONGEST_S, LOOK_ARRIVALS

_URGENCY = {"failed": 0, "not judged": 1, "passed": 2}


def mixed_budgets(report: Report) -> Section:
    """By budget: who was let in, and who was answered in time."""
    run = report.budget_run
    if run is None:
        return Section("Mixed budgets", [f"No figures: {report.no_budget_run or 'not measured'}."])
    head = ["budget", "sent", "let in", "refused", "met", "p50 ms", "p99 ms", "p99 over budget"]
    notes = [
        "Met: answered within the budget by the client's clock, of those let in. Refused: 422 or 429, at once. p50 and "
        "p99 are of the answers: a request that ended with 504 has none, and was not met."
    ]
    fewest = min((budget.samples for budget in run.budgets if budget.samples), default=0)
    if 0 < fewest < 100:
        notes.append(f"The smallest class has {fewest} answers: below 100 a p99 is about the slowest of them.")
    rows = [_budget(budget) for budget in run.budgets]
    return Section("Mixed budgets", [_mix(run)], Table(head, rows), notes, plots=("budgets",))


def _mix(run: BudgetRun) -> str:
    total = sum(run.pictures_by_model.values())
    picked = sorted(run.pictures_by_model.items(), key=lambda item: -item[1])
    shares = ", ".join(f"{name} {percent(count / total, 1)}" for name, count in picked if total) or "none"
    return (
        f"{run.sent:,} requests in {run.seconds:,.0f} s, {number(run.rate)} a second: half of what the median network "
        f"held, so that this is about promises and not about overload. The router picked {shares}. {run.failed} failed."
    )


def _budget(budget: Budget) -> list[str]:
    timed, over = budget.budget_ms is not None and budget.accepted > 0, None
    if budget.budget_ms is not None and budget.p99_ms is not None:
        over = budget.p99_ms / budget.budget_ms
    counts = [f"{count:,}" for count in (budget.sent, budget.accepted, budget.refused)]
    met = percent(budget.met / budget.accepted, 1) if timed else "–"
    return [budget.name, *counts, met, number(budget.p50_ms), number(budget.p99_ms), number(over)]


def gates(report: Report) -> Section:
    """What failed first."""
    rows = [[gate.name, gate.limit, gate.measured, gate.verdict, gate.note] for gate in report.gates]
    rows.sort(key=lambda row: _URGENCY[row[3]])
    return Section("Gates", table=Table(["gate", "limit", "measured", "verdict", "by how much, or why"], rows, left=5))


def comparison(compared: Comparison) -> Section:
    """Held rates, before and now."""
    rows = []
    for change in compared.changes:
        figures = [number(value) for value in (change.before_per_second, change.now_per_second, change.ratio)]
        noise = "–" if change.allowance is None else percent(change.allowance)
        rows.append([change.name, change.verdict, change.note, *figures, noise])
    text = [f"The rates held, against those of {compared.created} at {compared.host}."]
    if compared.note:
        text.append(compared.note)
    notes = [
        "Noise: a search knows the knee up to the gap between the rate that held and the next that did not, and by no "
        "more requests than it sent. Two standard deviations of what two runs of the same service differ by for that "
        "are allowed, and at least 5 %."
    ]
    head = ["network", "verdict", "", "before/s", "now/s", "ratio", "noise"]
    return Section("Against the previous report", text, Table(head, rows, left=3), notes)


def steps(report: Report) -> Section:
    """Every rate that was tried, in order."""
    rows = []
    for network in report.networks:
        for step in network.steps:
            kind = "confirmation" if step.confirmation else "look"
            figures = [number(step.rate), number(step.pictures_per_second), number(step.p50_ms), number(step.p99_ms)]
            outcome = step.why_not or "held"
            rows.append([network.name, kind, outcome, *figures, f"{step.samples:,}", f"{step.seconds:,.0f}"])
    head = ["network", "step", "outcome", "rate/s", "pictures/s", "p50 ms", "p99 ms", "answers", "s"]
    return Section("Every step", table=Table(head, rows, left=3), plots=("steps",))


def method(report: Report) -> Section:
    """How it was measured, and with what."""
    made_by = ", ".join(f"{name} {value}" for name, value in report.generator.items())
    text = [
        f"A rate held if p99 was within {report.p99_limit_ms:,.0f} ms, nothing failed or stayed unanswered, at least "
        "95 % was answered. Looks go up and down until the gap is 10 %; the figures are of a confirmation with "
        "arrivals of its own. A look has the arrivals of "
        f"{report.seconds:g} s or about {LOOK_ARRIVALS}, a confirmation those of {2 * report.seconds:g} s or about "
        f"{CONFIRM_ARRIVALS}, whichever takes longer, in at most {LONGEST_S:g} s. An overload of less than "
        f"{percent(_unnoticed(report), 1)} lets the queue grow too slowly for the shortest confirmation to notice.",
        "Requests are sent when they are due, by Locust in open loop, whether or not those before have been answered. "
        "A generator that sends late makes a rate harder to hold, never easier: latency counts from when it was due.",
        f"Seed {report.seed}; pictures: {report.pictures or 'generated, by the label set'}; generator: {made_by}.",
    ]
    if report.same_machine:
        text.append("The generator ran on the service's own machine and took some of its CPU: figures are low ones.")
    return Section("How it was measured", text)


def _unnoticed(report: Report) -> float:
    """By how much requests may come too fast without p99 reaching its limit before the confirmation ends."""
    shortest = min((n.knee.seconds for n in report.networks if n.knee is not None), default=2 * report.seconds)
    return report.p99_limit_ms / 1000 / shortest
