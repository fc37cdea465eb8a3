"""Gates: what passes, what fails and by how much, and what cannot be judged."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadreport.gates import DEFAULT, Gates, GatesError, judge, read_footprints, read_gates
from loadreport.report import Gate, Report, read_report
from tests import reports

FOOTPRINTS = {name: figures[1] for name, figures in reports.FIGURES.items()}
PROFILES = Path(__file__).parents[2] / "weights/profiles/cpu-2-cores.json"


def only(found: list[Gate]) -> Gate:
    assert len(found) == 1
    return found[0]


def per_gib(least: float, report: Report) -> Gate:
    return only(judge(Gates.model_validate({"per_gib": {"networks": {"googlenet": least}}}), report, None))


def test_the_gates_in_the_box_hold_for_figures_like_those_of_two_cores() -> None:
    found = judge(read_gates(DEFAULT), reports.report(), FOOTPRINTS)
    assert {gate.verdict for gate in found} == {"passed"}
    # Three kinds of one gate, a footprint a network, and a budget class that has a latency.
    assert len(found) == 3 + len(reports.FIGURES) + 1


def test_per_gib_against_vgg16() -> None:
    # (34 / 190) / (4 / 915) = 40.9
    assert per_gib(40.5, reports.report()).verdict == "passed"
    failed = per_gib(50, reports.report())
    assert (failed.verdict, failed.measured, failed.note) == ("failed", "40.9", "18.1 % too low")


@pytest.mark.parametrize(
    ("report", "why"),
    [
        (reports.report(reports.network("googlenet@untrained")), "vgg16 was not measured"),
        (reports.report(reports.network("vgg16@untrained")), "googlenet was not measured"),
        (
            reports.report(
                reports.network("googlenet@untrained"),
                reports.network("vgg16@untrained", knee=None, problem="no rate held"),
            ),
            "vgg16: no rate held",
        ),
        (
            reports.report(
                reports.network("googlenet@untrained", footprint_mb=None), reports.network("vgg16@untrained")
            ),
            "googlenet: its footprint is not known",
        ),
    ],
)
def test_per_gib_that_cannot_be_judged(report: Report, why: str) -> None:
    gate = per_gib(1, report)
    assert (gate.verdict, gate.note) == ("not judged", why)


@pytest.mark.parametrize(
    ("on_file", "verdict", "note"),
    [
        (190.0, "passed", ""),
        (172.8, "passed", ""),
        (172.6, "failed", "10.1 % above it"),
        (250.0, "failed", "24.0 % below it"),
    ],
)
def test_footprints_against_the_profile(on_file: float, verdict: str, note: str) -> None:
    gates = Gates.model_validate({"footprint": {"within": 0.1}})
    report = reports.report(reports.network("googlenet@untrained"))
    gate = only(judge(gates, report, {"googlenet@untrained": on_file}))
    assert (gate.verdict, gate.note) == (verdict, note)
    assert only(judge(gates, report, {})).note == "the file has no profile of it"
    assert only(judge(gates, report, None)).note == "no profiles were given (--profiles)"
    unknown = reports.report(reports.network("googlenet@untrained", footprint_mb=None))
    assert only(judge(gates, unknown, {"googlenet@untrained": 1.0})).verdict == "not judged"


def test_errors_of_every_load_that_a_service_should_bear() -> None:
    gates = Gates.model_validate({"errors": {"share": 0.01}})
    network = reports.network("vgg16@untrained", probes_sent=100, probes_failed=2, knee=reports.knee(4, failed=1))
    # 120 confirmed, 400 mixed, 100 of the probes.
    gate = only(judge(gates, reports.report(network), None))
    assert (gate.verdict, gate.measured) == ("passed", "3 of 620, 0.48 %")
    mixed = reports.budget_run(failed=4)
    gate = only(judge(gates, reports.report(network, budget_run=mixed), None))
    assert (gate.verdict, gate.measured, gate.note) == ("failed", "7 of 620, 1.13 %", "0.13 % too many")
    nothing = reports.network("vgg16@untrained", probes_sent=0, knee=None)
    assert only(judge(gates, reports.report(nothing, budget_run=None), None)).verdict == "not judged"


def test_budgets_met_and_their_p99() -> None:
    gates = Gates.model_validate({"budgets": {"met": 0.9, "p99_over_budget": 1.0}})
    run = reports.budget_run(
        reports.budget("latency_ms=150", 150.0, met=88, p99_ms=180.0),
        reports.budget("latency_ms=600", 600.0, met=75, p99_ms=600.0),
        reports.budget("latency_ms=1", 1.0, accepted=0, met=0, p99_ms=None),
        # No latency in it: nothing to be met.
        reports.budget("memory_mb=250", None, met=90),
    )
    met, *p99s = judge(gates, reports.report(budget_run=run), None)
    assert (met.verdict, met.measured) == ("passed", "163 of 180, 90.6 %")
    assert [gate.verdict for gate in p99s] == ["failed", "passed", "not judged"]
    assert p99s[0].note == "20.0 % too high"
    fewer = reports.budget_run(reports.budget("latency_ms=150", 150.0, met=80))
    met = judge(gates, reports.report(budget_run=fewer), None)[0]
    assert (met.verdict, met.note) == ("failed", "1.1 % too few")


def test_budgets_that_were_not_run() -> None:
    gates = Gates.model_validate({"budgets": {"met": 0.9, "p99_over_budget": 1.0}})
    found = judge(gates, reports.report(budget_run=None, no_budget_run="not asked for"), None)
    assert [(gate.verdict, gate.note) for gate in found] == [("not judged", "not asked for")] * 2


def test_a_table_that_is_not_there_is_no_gate() -> None:
    assert judge(Gates(), reports.report(), None) == []


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[per_gib", "not TOML"),
        ("[errors]\nshare = 2", "errors.share"),
        ("[erors]\nshare = 0.1", "erors"),
        ("[per_gib]\nnetworks = {}", "per_gib.networks"),
    ],
)
def test_files_that_are_no_gates(tmp_path: Path, text: str, what: str) -> None:
    path = tmp_path / "gates.toml"
    path.write_text(text)
    with pytest.raises(GatesError, match=what) as told:
        read_gates(path)
    assert "\n" not in str(told.value)


def test_profiles(tmp_path: Path) -> None:
    found = read_footprints(PROFILES)
    assert found["googlenet@untrained"] == pytest.approx(190, rel=0.5)
    path = tmp_path / "profiles.json"
    path.write_text('{"profiles": {"a@b": {"footprint_bytes": 2500000}}}')
    assert read_footprints(path) == {"a@b": 2.5}
    path.unlink()
    with pytest.raises(GatesError, match="No such file"):
        read_footprints(path)
    for text in ("[]", "{", '{"profiles": {"a": 1}}', '{"profiles": {"a": {}}}'):
        path.write_text(text)
        with pytest.raises(GatesError, match="not a file of profiles"):
            read_footprints(path)


def test_figures_exactly_at_their_limits_pass() -> None:
    """All figures here are exact in binary."""
    fast = reports.network("googlenet@untrained", knee=reports.knee(8.0, sent=128, failed=1), footprint_mb=150.0)
    slow = reports.network("vgg16@untrained", knee=reports.knee(4.0, sent=128, failed=0), footprint_mb=150.0)
    for network in (fast, slow):
        network.probes_sent = 0
    run = reports.budget_run(
        reports.budget("latency_ms=100", 100.0, accepted=4, met=3, p99_ms=150.0), sent=256, failed=1
    )
    limits = {
        "per_gib": {"networks": {"googlenet": 2.0}},
        "footprint": {"within": 0.5},
        "errors": {"share": 2 / 512},
        "budgets": {"met": 0.75, "p99_over_budget": 1.5},
    }
    on_file = {"googlenet@untrained": 100.0, "vgg16@untrained": 300.0}
    report = reports.report(fast, slow, budget_run=run)
    # 50 % above the one profile, 50 % below the other.
    found = judge(Gates.model_validate(limits), report, on_file)
    assert [gate.verdict for gate in found] == ["passed"] * 6
    tighter = {
        "per_gib": {"networks": {"googlenet": 2.001}},
        "footprint": {"within": 0.499},
        "errors": {"share": 1.99 / 512},
        "budgets": {"met": 0.751, "p99_over_budget": 1.499},
    }
    assert [gate.verdict for gate in judge(Gates.model_validate(tighter), report, on_file)] == ["failed"] * 6


def test_budgets_without_a_latency_say_nothing_of_promises() -> None:
    gates = Gates.model_validate({"budgets": {"met": 0.9, "p99_over_budget": 1.0}})
    run = reports.budget_run(reports.budget("memory_mb=250", None, met=0, p99_ms=9000.0))
    found = judge(gates, reports.report(budget_run=run), None)
    assert [gate.note for gate in found] == ["nothing with a latency budget was let in"] * 2


def test_a_gate_may_limit_budgets_by_one_figure_alone() -> None:
    for limit in ("met", "p99_over_budget"):
        gates = Gates.model_validate({"budgets": {limit: 1.0}})
        assert len(judge(gates, reports.report(budget_run=reports.budget_run()), None)) == 1


def on(device: str | None, gates: dict[str, object]) -> Gate:
    """The gate of pictures/s per GiB, which is 40.9, for a service on a device."""
    return only(judge(Gates.model_validate({"per_gib": gates}), reports.report(device=device), None))


def test_a_gpu_has_limits_of_its_own() -> None:
    both = {"networks": {"googlenet": 41.0}, "gpu": {"googlenet": 40.5}}
    assert [on(device, both).limit for device in ("NVIDIA H100 80GB HBM3", "AMD EPYC, 2 cores", None)] == [
        "at least 40.5",
        "at least 41",
        "at least 41",
    ]
    assert on("NVIDIA H100 80GB HBM3", both).verdict == "passed"
    assert on("AMD EPYC, 2 cores", both).verdict == "failed"


def test_a_limit_without_one_for_gpus_holds_there_too() -> None:
    assert on("NVIDIA H100 80GB HBM3", {"networks": {"googlenet": 41.0}}).verdict == "failed"


def test_a_ratio_of_networks_on_different_kinds_of_devices_is_not_judged() -> None:
    gate = on("AMD EPYC, 2 cores, NVIDIA L4", {"networks": {"googlenet": 1.0}, "gpu": {"googlenet": 1.0}})
    why = "the service computes on CPUs and on GPUs (AMD EPYC, 2 cores, NVIDIA L4)"
    assert (gate.verdict, gate.note) == ("not judged", why)


@pytest.mark.parametrize("run", ["two-decoders", "eight-decoders"])
def test_the_gate_for_gpus_is_70_percent_of_what_an_h100_gave(run: str) -> None:
    report = read_report(Path(__file__).parents[2] / f"docs/loadtest/h100/{run}.json")
    gate = next(gate for gate in judge(read_gates(DEFAULT), report, None) if gate.name.startswith("pictures/s per GiB"))
    assert (gate.verdict, gate.limit) == ("passed", "at least 3")
    assert 0.65 * float(gate.measured) <= 3.0 <= 0.7 * float(gate.measured)
