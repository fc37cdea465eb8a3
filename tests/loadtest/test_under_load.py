"""The real service under the real Locust: the commands of docs/load.md as typed, and what both sides counted."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.generating import ROOT
from tests.running import Service

pytestmark = [pytest.mark.slow, pytest.mark.service, pytest.mark.timeout(300)]
GATES = """
[errors]
share = 0.01

[budgets]
met = 0.5
"""


def requests_by_status(service: Service) -> Counter[str]:
    """What the service has counted since its start."""
    counts: Counter[str] = Counter()
    text = httpx.get(f"{service.url}/metrics", timeout=30, trust_env=False).text
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "topfive_requests_total":
                counts[sample.labels["status"]] += int(sample.value)
    return counts


def test_locust_as_typed(local: Service, tmp_path: Path) -> None:
    before = requests_by_status(local)
    results = tmp_path / "results.json"
    command = f"locust -f loadtest/ --headless -u 8 -t 8s --host {local.url} --results {results}"
    done = subprocess.run([sys.executable, "-m", *command.split()], cwd=ROOT, capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    measured = json.loads(results.read_text())
    # Two cores that have other work too may miss a budget of 150 ms that was let in; nothing else may go wrong.
    assert set(measured["failures"]) <= {"504 /problems/deadline-missed"}
    assert done.returncode == bool(measured["failures"]), done.stderr
    assert measured["partial"] is False
    assert set(measured["by_user"]) == {"ClassifyUser", "BudgetUser", "BulkUser", "JunkUser"}
    budget = measured["by_user"].pop("BudgetUser")
    assert all(user["answered"] == user["sent"] > 0 for user in measured["by_user"].values())
    # Budgets that cannot be kept now are refused at once.
    assert budget["answered"] + budget["refused"] + budget["failed"] == budget["sent"]
    assert budget["answered"] > 0.5 * budget["sent"]
    # Photographs, where something in the box knows them.
    assert set(measured["by_model"]) == {"googlenet", "inception_v2"}
    counted = requests_by_status(local) - before
    assert {status: count for status, count in counted.items() if count} == measured["statuses"]


#: ``topfive`` with a coarse search: each rate that is looked at is a start of Locust, and which rates are is known by
#: tests/loadtest/test_knee.py.
COARSE = """
from loadreport import knee
knee._STRIDE, knee.TOLERANCE, knee._RETREATS = 2.0, 2.1, (0.5,) * 5
from service.commands.main import main
main()
"""


def loadtest(service: Service, out: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", COARSE, "loadtest", "--host", service.url, "--models", "lenet5"]
    command += ["--seconds", "1", "--out", str(out), *options]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_report_of_the_real_service(local: Service, tmp_path: Path) -> None:
    gates = tmp_path / "gates.toml"
    gates.write_text(GATES)
    options = ("--gates", str(gates), "--fail-on-gates", "--json")
    process = loadtest(local, tmp_path / "report", *options)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, out + err
    report: dict[str, Any] = json.loads(out)
    assert json.loads((tmp_path / "report" / "report.json").read_text()) == report
    (network,) = report["networks"]
    listed = httpx.get(f"{local.url}/models/lenet5", timeout=30, trust_env=False).json()
    assert network["name"] == "lenet5@mnist"
    assert network["footprint_mb"] == listed["footprint_mb"] > 0
    knee = network["knee"]
    assert knee["pictures_per_second"] == pytest.approx(knee["rate"])
    assert knee["p99_ms"] <= report["p99_limit_ms"]
    assert {gate["name"]: gate["verdict"] for gate in report["gates"]} == {"errors": "passed", "budgets met": "passed"}
    assert sum(budget["met"] for budget in report["budget_run"]["budgets"]) > 0
    assert "lenet5@mnist" in (tmp_path / "report" / "report.html").read_text()


def test_ctrl_c_in_the_middle_of_a_step_writes_what_was_measured(local: Service, tmp_path: Path) -> None:
    process = loadtest(local, tmp_path / "report", "--seconds", "4")
    # The third run of Locust, after those of one caller and of eight, is the first step.
    pids: set[int] = set()
    give_up = time.monotonic() + 120
    while len(pids) < 3 and time.monotonic() < give_up:
        pids |= {child.pid for child in psutil.Process(process.pid).children()}
        time.sleep(0.05)
    before = requests_by_status(local)
    while requests_by_status(local) == before and time.monotonic() < give_up:
        time.sleep(0.1)
    time.sleep(2)  # the first second is its warm-up
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in out + err
    assert not any(psutil.pid_exists(pid) for pid in pids)
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["partial"]
    (network,) = report["networks"]
    assert network["closed_per_second"] > 0
    assert [step["why_not"] for step in network["steps"]] == ["interrupted"]
    assert network["steps"][0]["samples"] > 0


def test_a_network_without_weights_is_one_line(local: Service, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "service.commands.main", "loadtest", "--host", local.url, "--models", "vgg16"]
    done = subprocess.run([*command, "--out", str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "topfive pull vgg16" in line
