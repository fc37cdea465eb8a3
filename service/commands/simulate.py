"""``topfive simulate``: the service's router, queues and memory on a virtual clock, with devices as profiles say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from service.commands.console import console, errors, fail

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from service.twin.report import Report
    from service.twin.scenario import Scenario

#: The options that replace fields of the scenario.
_FIELDS = ("rate", "seconds", "seed", "arrivals", "policy", "retries", "fronts", "cores")


def simulate(
    scenario: Annotated[Path | None, typer.Argument(help="TOML file of a scenario.", show_default=False)] = None,
    rate: Annotated[float | None, typer.Option(help="Pictures a second.", show_default=False)] = None,
    seconds: Annotated[float | None, typer.Option(help="How long pictures arrive.", show_default=False)] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same report.", show_default=False)] = None,
    arrivals: Annotated[
        str | None, typer.Option(help="poisson, gamma, markov, step or spike.", show_default=False)
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(
            help="router, constant:NAME, guarded:NAME, best-constant, best-guarded or infaas.", show_default=False
        ),
    ] = None,
    retries: Annotated[
        str | None, typer.Option(help="Refused callers come back: once, never or ignore.", show_default=False)
    ] = None,
    profile: Annotated[
        str | None, typer.Option(help="The device: a shipped profile or a file of topfive profile.", show_default=False)
    ] = None,
    memory_mb: Annotated[
        float | None, typer.Option(help="The device's memory for networks, in MB.", show_default=False)
    ] = None,
    fronts: Annotated[int | None, typer.Option(help="Processes that decode.", show_default=False)] = None,
    cores: Annotated[int | None, typer.Option(help="Cores of each of them.", show_default=False)] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the report and its plots.", show_default=False)] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="All policies over several loads and kinds of arrivals.")
    ] = False,
    ablate: Annotated[
        bool, typer.Option("--ablate", help="What each correction of the router's predictions is worth.")
    ] = False,
    plan: Annotated[
        str | None,
        typer.Option(help="How many devices and fronts for rate=10000,mix=FILE,p99_ms=200.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Simulate the service on a virtual clock: an hour in a minute or two, the same each time."""
    from service.twin.comparison import resolved
    from service.twin.report import report
    from service.twin.running import simulate as run
    from service.twin.scenario import ScenarioError

    given = {name: value for name, value in locals().items() if name in _FIELDS and value is not None}
    try:
        found = _scenario(scenario, given, profile, memory_mb)
        if plan is not None:
            _plan(plan, found, out, as_json)
            return
        if compare:
            _compare(found, out or Path("comparison"), as_json)
            return
        if ablate:
            _ablate(found, out, as_json)
            return
        made = report(run(resolved(found)))
    except ScenarioError as error:
        fail(error, 2)
    _show(made, out, as_json)


def _scenario(path: Path | None, given: dict[str, Any], profile: str | None, memory_mb: float | None) -> Scenario:
    from service.twin.scenario import Device, Scenario, read_scenario

    found = Scenario() if path is None else read_scenario(path)
    if profile is not None or memory_mb is not None:
        first = found.device[0]
        changed = {"profile": profile or first.profile, "memory_mb": memory_mb or first.memory_mb}
        given["device"] = (Device.model_validate(first.model_dump() | changed), *found.device[1:])
    return found.but(**given)


def _show(report: Report, out: Path | None, as_json: bool) -> None:
    from service.twin.document import markdown

    if out is not None:
        from service.twin.plots import classes

        texts = {"report.json": report.model_dump_json(indent=1) + "\n", "report.md": markdown(report)}
        _write(out, texts, {"classes": classes(report)})
    if as_json:
        print(report.model_dump_json(indent=1))  # noqa: T201
        return
    console.print(markdown(report), markup=False, highlight=False, soft_wrap=True)
    if out is not None:
        errors.print(f"[green]written[/] {escape(str(out))}", highlight=False, soft_wrap=True)


def _plan(text: str, scenario: Scenario, out: Path | None, as_json: bool) -> None:
    from service.twin import plan

    found = plan.plan(plan.read_wish(text, scenario))
    page = plan.markdown(found)
    if out is not None:
        _write(out, {"plan.json": found.model_dump_json(indent=1) + "\n", "plan.md": page}, {})
    if as_json:
        print(found.model_dump_json(indent=1))  # noqa: T201
    else:
        console.print(page, markup=False, highlight=False, soft_wrap=True)


def _ablate(scenario: Scenario, out: Path | None, as_json: bool) -> None:
    from service.twin import ablation

    with _progress() as ended:
        found = ablation.ablate(scenario, ended=ended)
    page = ablation.markdown(found)
    if out is not None:
        _write(out, {"ablation.json": found.model_dump_json(indent=1) + "\n", "ablation.md": page}, {})
    if as_json:
        print(found.model_dump_json(indent=1))  # noqa: T201
    else:
        console.print(page, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error, and what is told how many runs have ended, and how many there are."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

    with Progress(BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=errors) as bars:
        task = bars.add_task("", total=None)
        yield lambda done, every: bars.update(task, completed=done, total=every)


def _compare(scenario: Scenario, out: Path, as_json: bool) -> None:
    from service.twin import comparison
    from service.twin.plots import loads

    with _progress() as ended:
        found = comparison.compare(scenario, ended=ended)
    page = comparison.markdown(found)
    _write(
        out, {"comparison.json": found.model_dump_json(indent=1) + "\n", "comparison.md": page}, {"loads": loads(found)}
    )
    if as_json:
        print(found.model_dump_json(indent=1))  # noqa: T201
        return
    console.print(page, markup=False, highlight=False, soft_wrap=True)
    errors.print(f"[green]written[/] {escape(str(out))}", highlight=False, soft_wrap=True)


def _write(out: Path, texts: dict[str, str], figures: dict[str, Figure]) -> None:
    """Writes a folder of texts by their file names, and of plots by their names."""
    from loadreport.plots import svg

    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in (texts | {f"{name}.svg": svg(figure) for name, figure in figures.items()}).items():
            (out / name).write_text(text, encoding="utf-8")
    except OSError as error:
        fail(f"cannot write to {out}: {error.strerror}", 2)
