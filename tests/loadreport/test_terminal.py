"""What the command prints of a report."""

from __future__ import annotations

import io

from rich.console import Console

from loadreport.report import Report
from loadreport.terminal import summary
from tests import reports


def printed(report: Report, *, colours: bool = False) -> str:
    out = io.StringIO()
    console = Console(file=out, width=200, force_terminal=colours, color_system="standard" if colours else None)
    for part in summary(report):
        console.print(part, soft_wrap=isinstance(part, str))
    return out.getvalue()


def test_the_answer_comes_first_and_the_tables_follow() -> None:
    lines = printed(reports.full()).splitlines()
    assert lines[0].startswith("googlenet gives 40.9 times VGG-16's")
    titles = [line.strip() for line in lines if line.strip() in ("Networks", "Mixed budgets", "Gates", "Every step")]
    assert titles == ["Networks", "Mixed budgets", "Gates"]
    assert any(line.split()[:2] == ["googlenet@untrained", "34.0"] for line in lines)


def test_a_partial_report_warns_before_all_else() -> None:
    assert printed(reports.report(partial="interrupted")).startswith(
        "PARTIAL: this load test ended early (interrupted)"
    )


def test_verdicts_are_coloured() -> None:
    shown = printed(reports.full(), colours=True)
    assert "\x1b[31mfailed" in shown
    assert "\x1b[33mnot judged" in shown
    assert "\x1b[32mpassed" in shown


def test_names_are_no_markup() -> None:
    network = reports.network("vgg16@untrained")
    network.name = network.variant = "[red]vgg[/red]"
    assert "[red]vgg[/red]" in printed(reports.report(network, host="[bold]here"))
    assert "at [bold]here" in printed(reports.report(network, host="[bold]here"))


def test_tables_without_rows_are_left_out() -> None:
    report = reports.report(budget_run=None)
    report.networks = []
    assert "Networks" not in printed(report)
