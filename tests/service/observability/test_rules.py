"""Prometheus's configuration and rules: promtool accepts them, alerts fire and stay quiet when they should, and
expressions name only series and labels that the service has."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.domain import outcome
from service.domain.errors import PROBLEMS
from service.telemetry import metrics

ROOT = Path(__file__).parents[3]
OBSERVABILITY = ROOT / "service" / "observability"
RULES = OBSERVABILITY / "rules"
UNIT_TESTS = sorted(Path(__file__).parent.glob("*.yml"))
#: Series of other programs that our rules read.
FOREIGN = re.compile(r"up|process_resident_memory_bytes|ray_node_\w+|haproxy_\w+")
#: Labels that Prometheus or the list of targets adds to every series.
TARGET_LABELS = {"job", "instance", "deployment", "replica"}
WORDS = {
    "sum", "max", "min", "count", "by", "on", "and", "or", "unless", "rate", "increase", "absent", "clamp_min", "bool",
    "histogram_quantile", "max_over_time", "sum_over_time",
}  # fmt: skip

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not here (Debian package prometheus)"
)


def read_yaml(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(path.read_text())
    return document


def rules_of(name: str) -> list[dict[str, Any]]:
    return [rule for group in read_yaml(RULES / name)["groups"] for rule in group["rules"]]


RECORDED = rules_of("recording.yml")
ALERTS = rules_of("alerts.yml")


def promtool(*arguments: str, cwd: Path) -> str:
    """The output of promtool, which must succeed."""
    found = subprocess.run(["promtool", *arguments], cwd=cwd, capture_output=True, text=True, timeout=110)
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


@needs_promtool
def test_promtool_accepts_configuration_and_rules() -> None:
    said = promtool("check", "config", "prometheus.yml", cwd=OBSERVABILITY)
    assert f"{len(RECORDED)} rules found" in said
    assert f"{len(ALERTS)} rules found" in said


@needs_promtool
@pytest.mark.parametrize("path", UNIT_TESTS, ids=lambda path: path.stem)
def test_rules_do_as_their_unit_tests_say(path: Path, tmp_path: Path) -> None:
    """Only with the rules that a file names and those that these read: promtool would evaluate all rules, thousands of
    times."""
    tests, wanted, found = read_yaml(path), set[str](), named_in(path.read_text())
    while found:
        wanted |= found
        found = named_in(" ".join(rule["expr"] for rule in RECORDED + ALERTS if name_of(rule) in found)) - wanted
    for place, file in enumerate(tests["rule_files"]):
        groups = read_yaml(path.parent / file)["groups"]
        for group in groups:
            group["rules"] = [rule for rule in group["rules"] if name_of(rule) in wanted]
        tests["rule_files"][place] = Path(file).name
        (tmp_path / Path(file).name).write_text(yaml.safe_dump({"groups": groups}))
    (tmp_path / "tests.yml").write_text(yaml.safe_dump(tests))
    promtool("test", "rules", "tests.yml", cwd=tmp_path)


def name_of(rule: dict[str, Any]) -> str:
    return str(rule.get("record") or rule["alert"])


def named_in(text: str) -> set[str]:
    """The rules that a text names."""
    return {name_of(rule) for rule in RECORDED + ALERTS} & set(re.findall(r"[\w:]+", text))


@functools.cache
def cases() -> list[tuple[str, str, dict[str, Any]]]:
    """The name of the alert, ``fires`` or ``is`` (quiet), and the unit test."""
    tests = [test for path in UNIT_TESTS if path.stem != "recording" for test in read_yaml(path)["tests"]]
    return [(*test["name"].split()[:2], test) for test in tests]


@pytest.mark.parametrize("alert", [rule["alert"] for rule in ALERTS])
def test_each_alert_has_a_firing_and_a_quiet_case(alert: str) -> None:
    firing = [test for name, verb, test in cases() if (name, verb) == (alert, "fires")]
    quiet = [test for name, verb, test in cases() if (name, verb) == (alert, "is")]
    assert firing
    assert quiet
    asked = f'alertname="{alert}"'
    for test in firing:
        assert any(asked in question["expr"] and question.get("exp_samples") for question in test["promql_expr_test"])
    for test in quiet:
        assert test["input_series"]
        answers = [question for question in test["promql_expr_test"] if "ALERTS" in question["expr"]]
        assert answers[-1].get("exp_samples") is None


def test_unit_tests_name_only_alerts_that_exist() -> None:
    assert {alert for alert, _, _ in cases()} == {rule["alert"] for rule in ALERTS}


def test_each_recording_rule_has_a_value_in_the_unit_tests() -> None:
    tests = read_yaml(Path(__file__).parent / "recording.yml")["tests"]
    valued = {
        name
        for test in tests
        for question in test["promql_expr_test"]
        if question.get("exp_samples")
        for name in re.findall(r"[a-z_]+:\w+:\w+", question["expr"])
    }
    assert {rule["record"] for rule in RECORDED} == valued


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_every_alert_has_a_description_and_a_runbook(rule: dict[str, Any]) -> None:
    annotations = rule["annotations"]
    assert set(annotations) == {"summary", "description", "runbook"}
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert "for" in rule
    steps = re.findall(r"^(\d)\. ", annotations["runbook"], re.MULTILINE)
    assert steps == [str(number) for number in range(1, len(steps) + 1)]
    assert len(steps) >= 2
    for other in re.findall(r"\bTopfive\w+", annotations["runbook"]):
        assert other in {known["alert"] for known in ALERTS}


def known_series() -> dict[str, set[str]]:
    """The series of the service, with their labels."""
    known = {name: set(labels) for name, (_, labels) in metrics.LIVE.items()}
    for declared in vars(metrics).values():
        if isinstance(declared, metrics.Counter | metrics.Gauge | metrics.Histogram):
            (family,) = declared.describe()
            labels = set(declared._labelnames if isinstance(declared, metrics.Gauge) else declared.label_names)
            if family.type == "histogram":
                known[f"{family.name}_bucket"] = labels | {"le"}
                known[f"{family.name}_count"] = known[f"{family.name}_sum"] = labels
            else:
                known[f"{family.name}_total" if family.type == "counter" else family.name] = labels
    return known


def possible(series: str, label: str) -> set[str]:
    """The possible values of a label of a series."""
    if label == "le":
        declared = metrics.REGISTRY._names_to_collectors[series.removesuffix("_bucket")]
        return {str(bound) for bound in declared.bounds}
    if label == "reason" and series in {"topfive_requests_total", "topfive_pictures_total"}:
        return {*PROBLEMS, outcome.OK, outcome.PARTIAL, outcome.GONE}
    return {
        ("topfive_evictions_total", "reason"): set(metrics.EVICTED_FOR),
        ("topfive_requests_total", "model"): {outcome.NO_MODEL, outcome.SEVERAL},
        ("topfive_requests_total", "status"): statuses(),
        ("topfive_pictures_total", "status"): statuses(),
        ("up", "job"): {job["job_name"] for job in read_yaml(OBSERVABILITY / "prometheus.yml")["scrape_configs"]},
        ("process_resident_memory_bytes", "job"): {"topfive"},
    }[series, label]


def statuses() -> set[str]:
    return {str(problem.status) for problem in PROBLEMS.values()} | {"200", str(outcome.GONE_STATUS)}


EXPRESSIONS = [(rule.get("record") or rule["alert"], rule["expr"]) for rule in RECORDED + ALERTS]


@pytest.mark.parametrize(("name", "expression"), EXPRESSIONS, ids=lambda value: value if ":" not in value else None)
def test_an_expression_names_only_series_labels_and_values_that_exist(name: str, expression: str) -> None:
    known = known_series()
    recorded = {rule["record"] for rule in RECORDED}
    plain = re.sub(r'"[^"]*"|\[\w+\]|\{[^}]*\}|\b\d[\w.]*', "", expression)
    grouped = {
        label for labels in re.findall(r"\b(?:by|on) \(([^)]*)\)", plain) for label in re.findall(r"\w+", labels)
    }
    series = set(re.findall(r"[a-zA-Z_:][\w:]*", re.sub(r"\b(by|on) \([^)]*\)", "", plain))) - WORDS
    assert series
    for one in series:
        assert one in known or one in recorded or FOREIGN.fullmatch(one), one
    labels = TARGET_LABELS.union(*(known.get(one, set()) for one in series))
    assert grouped <= labels | ({"model"} if series & recorded else set())
    for one, matchers in re.findall(r"([\w:]+)\{([^}]*)\}", expression):
        for label, values in re.findall(r'(\w+)[=!]~?"([^"]*)"', matchers):
            for value in values.split("|"):
                assert any(re.fullmatch(value, there) for there in possible(one, label)), f"{one}{{{label}={value}}}"


def test_recording_rules_are_named_by_the_labels_they_keep() -> None:
    kept = {"service": set(), "replica": {"deployment", "replica"}, "model_cut": {"model", "cut"}}
    kept["model_reason"] = {"model", "reason"}
    for rule in RECORDED:
        level = rule["record"].split(":")[0]
        grouped = {
            frozenset(re.findall(r"\w+", labels)) - {"le"} for labels in re.findall(r"\bby \(([^)]*)\)", rule["expr"])
        }
        assert grouped <= {frozenset(kept.get(level, {level}))}, rule["record"]


def test_ray_metrics_that_rules_read_are_kept() -> None:
    jobs = {job["job_name"]: job for job in read_yaml(OBSERVABILITY / "prometheus.yml")["scrape_configs"]}
    keep = next(step["regex"] for step in jobs["ray"]["metric_relabel_configs"] if step["action"] == "keep")
    read = {name for _, expression in EXPRESSIONS for name in re.findall(r"\bray_\w+", expression)}
    assert read
    assert all(re.fullmatch(keep, name) for name in read)
    assert not re.fullmatch(keep, "ray_tasks")
