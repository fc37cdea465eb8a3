"""``topfive loadtest``: finds the highest rate of each network and writes a report."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from service.commands.console import console, errors, fail

if TYPE_CHECKING:
    from loadreport.gates import Gates
    from loadreport.report import Report
    from loadreport.steps import Plan
    from loadreport.target import Row, Target

_INTERRUPTED = 130
_GENERATED = ("photographs", "digits")


def loadtest(
    host: Annotated[str, typer.Option(help="URL of the service.")] = "http://127.0.0.1:8000",
    models: Annotated[
        str | None,
        typer.Option(help="Networks, separated by commas; by default all that can be served.", show_default=False),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("loadtest-report"),
    p99_ms: Annotated[float, typer.Option(min=1, help="A rate holds if p99 is at most this.")] = 1000.0,
    seconds: Annotated[float, typer.Option(min=1, max=600, help="Least duration of each step.")] = 15.0,
    budgets: Annotated[
        bool, typer.Option("--budgets/--no-budgets", help="Also run requests with mixed budgets.")
    ] = True,
    pictures: Annotated[
        str | None,
        typer.Option(
            help="photographs, digits or a folder; by default what the label set asks for.", show_default=False
        ),
    ] = None,
    profiles: Annotated[
        Path | None, typer.Option(help="Profiles to compare footprints with, as topfive profile writes them.")
    ] = None,
    gates: Annotated[Path | None, typer.Option(help="Your own gates, instead of loadtest/gates.toml.")] = None,
    fail_on_gates: Annotated[
        bool, typer.Option("--fail-on-gates", help="Exit with status 1 if a gate failed or could not be checked.")
    ] = False,
    previous: Annotated[Path | None, typer.Option(help="The report.json of an earlier run to compare with.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of arrivals and pictures.")] = 8,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Find the highest rate of each network on a running service, per GiB of its footprint, and write a report."""
    try:
        import jinja2  # noqa: F401 - the extra brings it for the pages of the report

        from loadreport.steps import Plan
    except ImportError:
        fail("the load tests are not installed: pip install -e '.[loadtest]'", 2)
    if pictures is not None and pictures not in _GENERATED and not Path(pictures).is_dir():
        fail(f"--pictures {pictures}: give {' or '.join(_GENERATED)}, or a folder of pictures", 2)
    plan = Plan(p99_limit_ms=p99_ms, seconds=seconds, seed=seed, pictures=pictures, budgets=budgets)
    try:
        with _stopping():
            _loadtest(plan, host, (models or "").split(","), out, profiles, gates, fail_on_gates, previous, as_json)
    except KeyboardInterrupt:
        raise typer.Exit(_INTERRUPTED) from None


def _loadtest(
    plan: Plan,
    host: str,
    names: list[str],
    out: Path,
    profiles: Path | None,
    gates_file: Path | None,
    fail_on_gates: bool,
    previous: Path | None,
    as_json: bool,
) -> None:
    from loadreport.campaign import StoppedError
    from loadreport.comparison import compare
    from loadreport.gates import DEFAULT, GatesError, read_footprints, read_gates
    from loadreport.locust_process import LocustError, check_installed
    from loadreport.pages import prepare, write
    from loadreport.report import ReportError, read_report
    from loadreport.target import Target, TargetError, chosen

    # All checks come first, before the run takes minutes.
    try:
        check_installed()
        gates = read_gates(gates_file or DEFAULT)
        footprints = None if profiles is None else read_footprints(profiles)
        before = None if previous is None else read_report(previous)
        target = Target(host)
        listing = target.listing()
        rows = chosen(listing.models, [name.strip() for name in names if name.strip()])
        prepare(out)
    except (LocustError, GatesError, ReportError, TargetError) as error:
        fail(error, 2)
    report = _empty(plan, target, listing.device)
    stopped: StoppedError | None = None
    try:
        _measure(target, plan, report, rows)
    except StoppedError as error:
        stopped = error
    # From here on no signal keeps the report from being written.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    _finish(report, gates, footprints)
    report.comparison = None if before is None else compare(report, before)
    try:
        written = write(report, out)
    except ReportError as error:
        fail(error, 2)
    _show(report, written, as_json)
    if stopped is not None:
        fail(f"partial: {stopped}", _INTERRUPTED if stopped.by_caller else 2)
    if fail_on_gates and any(gate.verdict != "passed" for gate in report.gates):
        raise typer.Exit(1)


@contextmanager
def _stopping() -> Iterator[None]:
    """Turns SIGINT and SIGTERM into KeyboardInterrupt, so that the report is still written. It sets both handlers,
    since a shell may have started the command with SIGINT ignored."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _empty(plan: Plan, target: Target, device: str | None) -> Report:
    from loadreport.locust_process import generator
    from loadreport.report import Report

    return Report(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        host=target.host,
        same_machine=target.local,
        device=device,
        generator=generator(),
        p99_limit_ms=plan.p99_limit_ms,
        seconds=plan.seconds,
        seed=plan.seed,
        pictures=plan.pictures,
    )


def _measure(target: Target, plan: Plan, report: Report, rows: list[Row]) -> None:
    from loadreport.campaign import Campaign
    from loadreport.progress import progress

    with progress(errors, plan, len(rows)) as shown:
        Campaign(target, plan, report, shown).run(rows)


def _finish(report: Report, gates: Gates, footprints: dict[str, float] | None) -> None:
    from loadreport.gates import judge
    from loadreport.pareto import mark_front

    mark_front(report.networks)
    report.gates = judge(gates, report, footprints)


def _show(report: Report, written: list[Path], as_json: bool) -> None:
    from loadreport.terminal import summary

    if as_json:
        print(report.model_dump_json(indent=1))  # noqa: T201
        return
    for part in summary(report):
        console.print(part, soft_wrap=isinstance(part, str))
    names = ", ".join(path.name for path in written)
    where = escape(str(written[0].parent))
    console.print(f"[green]written[/] {where}: {names}", highlight=False, soft_wrap=True)
