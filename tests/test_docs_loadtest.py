"""The page on load: its commands can be typed, its figures were measured."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from loadreport.formatting import number
from loadreport.gates import DEFAULT, judge, read_footprints, read_gates
from loadreport.report import Report, read_report

ROOT = Path(__file__).parents[1]
LOAD = (ROOT / "docs" / "load.md").read_text()
PROFILE = ROOT / "weights" / "profiles" / "cpu-2-cores.json"


@pytest.fixture(scope="module")
def report() -> Report:
    return read_report(ROOT / "docs" / "loadtest" / "report.json")


@pytest.mark.parametrize("command", re.findall(r"^\$ (locust .*)$", LOAD, re.MULTILINE))
def test_locust_takes_the_options_of_the_page(command: str) -> None:
    """--list ends it when all options have been read."""
    words = [sys.executable, "-m", *shlex.split(command), "--list"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert set(re.findall(r"^\| `(\w+User)` \|", LOAD, re.MULTILINE)) == set(re.findall(r"\w+User\b", done.stdout))


def test_the_table_is_the_reports(report: Report) -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \| (.*?) \| (.*?) \| (.*?) \|$", LOAD, re.MULTILINE)
    reference = report.reference()
    assert reference is not None
    measured = {
        network.variant: (
            number(network.knee.pictures_per_second),
            number(network.knee.p99_ms),
            number(network.footprint_mb),
            number(network.per_gib),
            f"{number(report.ratio(network))} x" if network.labels == reference.labels else "–",
        )
        for network in report.networks
        if network.knee is not None
    }
    assert {name: tuple(cells) for name, *cells in rows} == measured
    assert len(measured) == 6


def test_the_committed_report_holds_the_committed_gates(report: Report) -> None:
    assert report.partial is None
    gates = judge(read_gates(DEFAULT), report, read_footprints(PROFILE))
    assert {gate.name for gate in gates if gate.verdict != "passed"} == set()


def test_a_gate_leaves_no_more_room_than_it_says(report: Report) -> None:
    """``gates.toml`` names its margin below what was measured; a limit that anything passes would guard nothing."""
    gates = read_gates(DEFAULT)
    assert gates.per_gib is not None
    margin = int(re.search(r"less (\d+) % for", DEFAULT.read_text())[1])  # type: ignore[index]
    for name, least in gates.per_gib.networks.items():
        (network,) = (n for n in report.networks if n.variant == name)
        ratio = report.ratio(network)
        assert ratio is not None
        assert 0.9 * (1 - margin / 100) * ratio <= least <= ratio
