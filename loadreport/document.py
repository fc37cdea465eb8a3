"""The report as sections, from the answer to the details."""

from __future__ import annotations

from loadreport.details import comparison, gates, method, mixed_budgets, steps
from loadreport.formatting import Section, Table, number, percent
from loadreport.report import Network, Report
from loadreport.steps import PROBE_USERS

_FRONT = {True: "yes", False: "no", None: "–"}


def sections(report: Report) -> list[Section]:
    """Everything that Markdown, HTML and the terminal show."""
    found = [_answer(report), _networks(report), _latency(report), mixed_budgets(report)]
    if report.gates:
        found.append(gates(report))
    if report.comparison is not None:
        found.append(comparison(report.comparison))
    return [*found, steps(report), method(report)]


def headline(report: Report) -> str:
    """What came of it, in a sentence."""
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


def ranked(report: Report) -> list[Network]:
    """Most pictures a second per GiB first, then those without a figure; those of another task than VGG-16's last."""
    reference = report.reference()
    task = None if reference is None else reference.labels
    return sorted(report.networks, key=lambda n: (task not in (None, n.labels), -(n.per_gib or 0.0)))


def _answer(report: Report) -> Section:
    text = []
    if report.partial is not None:
        text.append(f"PARTIAL: this load test ended early ({report.partial}). What was measured until then follows.")
    text.append(headline(report))
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
    head = ["network", "pictures/s", "footprint MB", "pictures/s per GiB", "to VGG-16", "top-1 %", "analytic MB"]
    reference = report.reference()
    rows, notes = [], [f"{n.name}: {n.problem}." for n in report.networks if n.problem is not None]
    bound = [network.name for network in report.networks if network.generator_bound]
    if bound:
        notes.append(f"The load generator could not send faster: {', '.join(bound)} may hold more than is told here.")
    for network in ranked(report):
        ratio = report.ratio(network)
        other_task = reference is not None and ratio is not None and network.labels != reference.labels
        rows.append(
            [
                network.name,
                number(None if network.knee is None else network.knee.pictures_per_second),
                number(network.footprint_mb),
                number(network.per_gib),
                ("–" if ratio is None else f"{number(ratio)} x") + "*" * other_task,
                "–" if network.top1 is None else f"{network.top1:.1f}",
                number(network.analytic_mb),
                _FRONT[network.on_front],
            ]
        )
    if any(row[4].endswith("*") for row in rows):
        notes.append("* Another label set than VGG-16's, and smaller pictures: not the same task, only what it costs.")
    if any(network.name.endswith("@untrained") for network in report.networks):
        notes.append("@untrained: seeded random weights, which cost what trained ones do; top-1 is as published.")
    notes += [
        "MB is 10^6 bytes, GiB 2^30. Footprint: bytes measured at the largest batch, as GET /models tells them. "
        "Analytic: parameters, input and layer outputs of one picture in float32.",
        "Front: no other network of the label set is at least as good in top-1, in the p50 of a lone request and in "
        "footprint, and better in one of them. A network without a peer has none.",
    ]
    return Section("Networks", table=Table([*head, "front"], rows), notes=notes)


def _latency(report: Report) -> Section:
    head = ["network", "rate/s", "p50 ms", "p99 ms", "answers", "one caller p50 ms"]
    head += ["decode ms", "queue ms", "forward ms", "mean batch", f"{PROBE_USERS} callers/s"]
    rows = []
    for network in ranked(report):
        knee = network.knee
        first, last = ["–"] * 4, ["–"] * 4
        if knee is not None:
            first = [number(knee.rate), number(knee.p50_ms), number(knee.p99_ms), f"{knee.samples:,}"]
            phases = [knee.phases_p50_ms.get(name) for name in ("decode", "queue", "forward")]
            last = [number(figure) for figure in (*phases, knee.mean_batch_size)]
        closed = number(network.closed_per_second)
        rows.append([network.name, *first, number(network.alone_p50_ms), *last, closed])
    notes = [
        "Latency counts from when a request was due, not from when it was sent. Decode, queue and forward are medians "
        "by the service's clock."
    ]
    return Section("Latency at the knee", table=Table(head, rows), notes=[*notes, *_samples(report)])


def _samples(report: Report) -> list[str]:
    """What the number of answers allows to say."""
    fewest = min((network.knee.samples for network in report.networks if network.knee is not None), default=0)
    if not fewest:
        return []
    gap = max(network.knee.ambiguity for network in report.networks if network.knee is not None)
    words = [
        "Pictures/s is the rate held, times the share that was answered, as MLPerf's server scenario has it: pictures "
        f"counted would add chance, {percent(fewest**-0.5)} for {fewest:,} Poisson arrivals. The true knee may lie "
        f"above, by up to {percent(gap)} where the search was least sure.",
    ]
    if fewest < 1000:
        slowest = max(1, round(fewest / 100))
        words.append(
            f"A p99 of {fewest:,} answers rests on the slowest {slowest} of them: it says whether the limit held, not "
            "how long the tail is."
        )
    return words
