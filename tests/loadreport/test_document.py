"""The report as a document: which sections it has, and what their sentences and tables say."""

from __future__ import annotations

import math

import pytest

from loadreport.document import Section, document, headline
from loadreport.report import Change, Comparison, Report
from tests import reports


def section(report: Report, title: str) -> Section:
    (found,) = (section for section in document(report).sections if section.title == title)
    return found


def table(report: Report, title: str) -> dict[str, dict[str, str]]:
    """The cells of a section's table by the first cell of the row and the column's head."""
    shown = section(report, title).table
    assert shown is not None
    return {row[0]: dict(zip(shown.head, row, strict=True)) for row in shown.rows}


def test_the_headline_compares_pictures_per_gib_with_vgg16() -> None:
    assert (
        headline(reports.full()) == "googlenet gives 40.9 times VGG-16's pictures a second per GiB: 192 against 4.69."
    )
    without = reports.report(reports.network("googlenet@untrained"))
    assert "VGG-16 was not measured" in headline(without)
    alone = reports.report(reports.network("vgg16@untrained"))
    assert "VGG-16 was not measured beside another" in headline(alone)


def test_the_headline_names_no_network_of_another_task() -> None:
    """LeNet-5 gives most per GiB, and recognises digits."""
    report = reports.report(
        *(reports.network(name) for name in ("lenet5@untrained", "alexnet@untrained", "vgg16@untrained"))
    )
    assert headline(report).startswith("alexnet gives")


def test_sections_come_in_one_order_and_only_if_there_is_something_to_say() -> None:
    titles = [section.title for section in document(reports.report()).sections]
    assert titles == [
        "Pictures a second per GiB",
        "Networks",
        "Latency at the knee",
        "Mixed budgets",
        "Every step",
        "How it was measured",
    ]
    more = [section.title for section in document(reports.full()).sections]
    assert more == [*titles[:4], "Gates", "Against the previous report", *titles[4:]]


def test_tables_have_as_many_cells_as_heads() -> None:
    shown = [section.table for section in document(reports.full()).sections if section.table is not None]
    assert len(shown) == 6
    for found in shown:
        assert {len(row) for row in found.rows} == {len(found.head)}


def test_a_networks_figures_are_in_the_columns_that_say_so() -> None:
    knee = reports.knee(4.0, pictures_per_second=3.9, p50_ms=310.0, p99_ms=870.0, samples=1234, mean_batch_size=2.5)
    report = reports.report(reports.network("vgg16@untrained", knee=knee, on_front=False, closed_per_second=4.4))
    assert table(report, "Networks")["vgg16@untrained"] == {
        "network": "vgg16@untrained",
        "pictures/s": "3.90",
        "footprint MB": "915",
        # 3.9 / (915e6 / 2^30)
        "pictures/s per GiB": "4.58",
        "to VGG-16": "1.00 x",
        "top-1 %": "71.6",
        "analytic MB": "50.0",
        "front": "no",
    }
    assert table(report, "Latency at the knee")["vgg16@untrained"] == {
        "network": "vgg16@untrained",
        "rate/s": "4.00",
        "p50 ms": "310",
        "p99 ms": "870",
        "answers": "1,234",
        "one caller p50 ms": "187",
        "decode ms": "2.00",
        "queue ms": "200",
        "forward ms": "30.0",
        "mean batch": "2.50",
        "8 callers/s": "4.40",
    }


def test_figures_that_are_not_known_are_dashes() -> None:
    report = reports.report(
        reports.network("vgg19@untrained", knee=None, top1=None, footprint_mb=None, alone_p50_ms=None)
    )
    cells = table(report, "Networks")["vgg19@untrained"]
    assert {
        cells[head] for head in ("pictures/s", "footprint MB", "pictures/s per GiB", "to VGG-16", "top-1 %", "front")
    } == {"–"}
    latency = table(report, "Latency at the knee")["vgg19@untrained"]
    assert set(list(latency.values())[1:-1]) == {"–"}


def test_a_network_of_another_task_is_marked_as_no_rival() -> None:
    assert table(reports.full(), "Networks")["lenet5@untrained"]["to VGG-16"].endswith(" x*")
    assert any(note.startswith("* Another label set") for note in section(reports.full(), "Networks").notes)
    assert table(reports.full(), "Networks")["alexnet@untrained"]["to VGG-16"].endswith(" x")
    assert not any(note.startswith("*") for note in section(reports.report(), "Networks").notes)


def test_why_a_network_has_no_figures_is_a_note() -> None:
    assert "vgg19@untrained: cannot be <loaded>." in section(reports.full(), "Networks").notes


@pytest.mark.parametrize(("samples", "rests_on"), [(120, 1), (149, 1), (151, 2), (999, 10)])
def test_few_answers_are_said_to_be_few(samples: int, rests_on: int) -> None:
    report = reports.report(reports.network("vgg16@untrained", knee=reports.knee(4, samples=samples)))
    notes = " ".join(section(report, "Latency at the knee").notes)
    assert f"A p99 of {samples} answers rests on the slowest {rests_on} of them" in notes
    # A Poisson process of n arrivals deviates by 1 / sqrt(n).
    assert f"{samples} Poisson arrivals, {100 / math.sqrt(samples):.0f} %" in notes


def test_many_answers_are_not() -> None:
    report = reports.report(reports.network("vgg16@untrained", knee=reports.knee(4, samples=1000)))
    assert "rests on the slowest" not in " ".join(section(report, "Latency at the knee").notes)


def test_the_least_sure_search_is_named() -> None:
    knees = {"vgg16@untrained": 0.05, "alexnet@untrained": 0.31}
    networks = [reports.network(name, knee=reports.knee(4, ambiguity=gap)) for name, gap in knees.items()]
    assert "up to 31 %" in " ".join(section(reports.report(*networks), "Latency at the knee").notes)


def test_a_limit_of_the_generator_is_said() -> None:
    full = reports.full()
    assert "could not send faster" not in " ".join(section(full, "Networks").notes)
    full.networks[0].generator_bound = True
    assert "could not send faster: alexnet@untrained may hold more" in " ".join(section(full, "Networks").notes)


def test_budgets_are_met_by_those_who_were_let_in() -> None:
    budget = reports.budget("latency_ms=150", 150.0, sent=1100, accepted=80, refused=1020, met=60, p99_ms=165.0)
    free = reports.budget("memory_mb=250", None, samples=100)
    report = reports.report(budget_run=reports.budget_run(budget, free))
    cells = table(report, "Mixed budgets")
    assert list(cells["latency_ms=150"].values())[1:] == ["1,100", "80", "1,020", "75.0 %", "60.0", "165", "1.10"]
    assert (cells["memory_mb=250"]["met"], cells["memory_mb=250"]["p99 over budget"]) == ("–", "–")
    shown = section(report, "Mixed budgets")
    assert "The smallest class has 90 answers" in shown.notes[-1]
    assert "The router picked googlenet 75.0 %, alexnet 25.0 %." in shown.text[0]


def test_a_class_of_a_hundred_answers_is_large_enough_for_a_p99() -> None:
    run = reports.budget_run(reports.budget("latency_ms=150", 150.0, samples=100))
    assert "smallest class" not in " ".join(section(reports.report(budget_run=run), "Mixed budgets").notes)


def test_without_mixed_budgets_the_reason_is_told() -> None:
    report = reports.report(budget_run=None, no_budget_run="not asked for")
    assert section(report, "Mixed budgets").text == ["No figures: not asked for."]


def test_failed_gates_come_first() -> None:
    rows = section(reports.full(), "Gates").table
    assert rows is not None
    verdicts = [row[3] for row in rows.rows]
    assert verdicts == sorted(verdicts, key=["failed", "not judged", "passed"].index)
    assert {"failed", "not judged", "passed"} == set(verdicts)
    failed = table(reports.full(), "Gates")["footprint: googlenet@untrained"]
    assert failed["by how much, or why"] == "90.0 % above it"


def test_gates_are_counted_and_networks_that_got_worse_are_named() -> None:
    full = reports.full()
    verdicts = [gate.verdict for gate in full.gates]
    counted = ", ".join(f"{verdicts.count(v)} {v}" for v in ("passed", "failed", "not judged"))
    assert f"Gates: {counted}." in section(full, "Pictures a second per GiB").text
    assert full.comparison is not None
    assert not any("Worse than" in text for text in section(full, "Pictures a second per GiB").text)
    full.comparison.changes[0].verdict = "worse"
    assert any(
        f"noise: {full.comparison.changes[0].name}." in text for text in section(full, "Pictures a second per GiB").text
    )


def test_every_step_is_there_in_the_order_of_the_search() -> None:
    rows = section(reports.report(reports.network("vgg16@untrained")), "Every step").table
    assert rows is not None
    assert [row[1:4] for row in rows.rows] == [
        ["look", "held", "3.60"],
        ["look", "p99 1,700 ms", "4.40"],
        ["confirmation", "held", "4.00"],
    ]


def test_the_method_names_the_overload_that_goes_unnoticed() -> None:
    """A queue that grows by a share e of the time takes limit / e to reach the limit of p99."""
    knees = [reports.knee(4.0, seconds=seconds) for seconds in (50.0, 25.0)]
    networks = [reports.network(name, knee=knee) for name, knee in zip(("vgg16@a", "alexnet@a"), knees, strict=True)]
    shown = section(reports.report(*networks, p99_limit_ms=500.0), "How it was measured")
    assert "less than 2.0 % lets the queue grow" in shown.text[0]
    assert "The generator ran on the service's own machine" in shown.text[-1]
    elsewhere = section(reports.report(same_machine=False), "How it was measured")
    assert "own machine" not in " ".join(elsewhere.text)


def test_a_partial_report_warns() -> None:
    assert document(reports.report()).warning is None
    warning = document(reports.report(partial="interrupted")).warning
    assert warning is not None
    assert warning.startswith("PARTIAL: this load test ended early (interrupted)")


def test_the_fewest_answers_count() -> None:
    knees = {"vgg16@untrained": 400, "alexnet@untrained": 5000}
    networks = [reports.network(name, knee=reports.knee(4, samples=samples)) for name, samples in knees.items()]
    assert "A p99 of 400 answers" in " ".join(section(reports.report(*networks), "Latency at the knee").notes)


def test_changes_have_both_rates_and_the_noise() -> None:
    change = Change(
        name="vgg16@untrained",
        before_per_second=4.0,
        now_per_second=5.0,
        ratio=1.25,
        allowance=0.128,
        verdict="better",
        note="",
    )
    gone = Change(
        name="nin@untrained",
        before_per_second=8.0,
        now_per_second=None,
        ratio=None,
        allowance=None,
        verdict="not compared",
        note="not measured now",
    )
    compared = Comparison(created="2026-01-02T03:04:05", host="http://there", changes=[change, gone], note="Otherwise.")
    report = reports.report(comparison=compared)
    cells = table(report, "Against the previous report")
    assert list(cells["vgg16@untrained"].values())[1:] == ["better", "", "4.00", "5.00", "1.25", "13 %"]
    assert list(cells["nin@untrained"].values())[1:] == ["not compared", "not measured now", "8.00", "–", "–", "–"]
    text = section(report, "Against the previous report").text
    assert text == ["The rates held now, compared with those of 2026-01-02T03:04:05 at http://there.", "Otherwise."]


def test_steps_have_all_their_figures() -> None:
    step = reports.step(3.0, pictures_per_second=2.9, p50_ms=210.0, p99_ms=820.0, samples=1300, seconds=41.0)
    report = reports.report(reports.network("vgg16@untrained", steps=[step]))
    assert list(table(report, "Every step")["vgg16@untrained"].values()) == [
        *("vgg16@untrained", "look", "held", "3.00", "2.90", "210", "820", "1,300", "41"),
    ]


def test_the_method_has_the_settings_of_the_run() -> None:
    report = reports.report(p99_limit_ms=2000.0, seconds=20.0, seed=5, pictures="digits")
    text = " ".join(section(report, "How it was measured").text)
    assert "A rate held if p99 was within 2,000 ms" in text
    assert "20 s or for about 60, a confirmation for those of 40 s or about 200" in text
    assert "Seed 5; pictures: digits; generator: locust 2.47.0, cores 2." in text
    assert "pictures: generated, by the label set" in " ".join(section(reports.report(), "How it was measured").text)


def test_the_mix_is_told_in_full() -> None:
    run = reports.budget_run(sent=1234, seconds=61.4, rate=20.0, failed=3, pictures_by_model={"a": 1, "b": 3})
    (text,) = section(reports.report(budget_run=run), "Mixed budgets").text
    assert text.startswith("1,234 requests in 61 s, 20.0 a second: half of what the median network held")
    assert text.endswith("The router picked b 75.0 %, a 25.0 %. 3 failed.")
    nothing = reports.budget_run(pictures_by_model={})
    assert "The router picked none." in section(reports.report(budget_run=nothing), "Mixed budgets").text[0]


def test_where_and_when_it_was_measured_is_told() -> None:
    text = section(reports.report(), "Pictures a second per GiB").text[-1]
    assert "(p99 within 1,000 ms), at http://127.0.0.1:8000 on AMD EPYC, 2 cores, 2026-11-25." in text
    assert " on " not in section(reports.report(device=None), "Pictures a second per GiB").text[-1].split("held")[1]


def test_untrained_weights_are_explained_if_there_are_any() -> None:
    assert any(note.startswith("@untrained: ") for note in section(reports.report(), "Networks").notes)
    trained = reports.report(reports.network("vgg16@imagenet1k"))
    assert not any(note.startswith("@untrained") for note in section(trained, "Networks").notes)


def test_without_a_knee_the_shortest_confirmation_is_two_steps_long() -> None:
    report = reports.report(reports.network("vgg16@a", knee=None), seconds=10.0, p99_limit_ms=500.0)
    assert "less than 2.5 % lets the queue grow" in section(report, "How it was measured").text[0]
