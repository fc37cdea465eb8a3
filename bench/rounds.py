"""Contenders side by side: all are served at once, and put under the same closed loop one after the other, in rounds.

What drifts on a shared machine touches neighbours in a round alike, so ratios are taken within a round, and their
medians are what counts. A round in which others used the machine says little, and another is measured in its place.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import load
import psutil
from servers import ROOT, Body, Running, Server, StartError, running

#: How many of the machine's cores must have been left to a contender and the load for its figures to count.
_CORES_LEFT = 1.5
#: So many rounds are measured for each that is asked for, while others use the machine.
_TRIES = 2
Round = dict[str, dict[str, Any]]
"""What ``load.measure`` found, by the contender's name."""


@dataclass(frozen=True, slots=True)
class Contender:
    """A server of a checkout."""

    name: str
    server: Server
    checkout: Path = ROOT


@dataclass(frozen=True, slots=True)
class Ratio:
    """One contender to another: medians of the rounds' ratios."""

    of: str
    to: str
    rate: float
    """Of requests a second: the larger the better."""
    cpu: float
    """Of the CPU time of all processes for a request: the smaller the better."""

    def __str__(self) -> str:
        return f"{self.of} to {self.to}: {self.rate:.3f} times the requests a second, {self.cpu:.3f} times the CPU time"


@contextmanager
def serving(
    contenders: Sequence[Contender], network: str, body: Body, threads: int, folder: Path
) -> Iterator[dict[str, Running]]:
    """All contenders, ready.

    Raises:
        SystemExit: they do not give the picture the same class.
        StartError: one of them did not get ready.
    """
    with ExitStack() as stack:
        up = {}
        for number, contender in enumerate(contenders):
            own = folder / str(number)
            own.mkdir()
            started = running(contender.server, network, own, body, threads, contender.checkout)
            up[contender.name] = stack.enter_context(started)
        labels = {name: label(found.answer) for name, found in up.items()}
        if len(set(labels.values())) > 1:
            raise SystemExit(f"they compute different things: {labels}")
        yield up


def label(answer: Any) -> str:
    """The most probable class in TopFive's answer, or in the bare handler's."""
    top5 = answer["top5"] if isinstance(answer, dict) else answer
    return str(top5[0]["label"])


def measured(names: Sequence[str], rounds: int, measure: Callable[[str], dict[str, Any]]) -> list[Round]:
    """Measures everybody in each round.

    Args:
        rounds: how many quiet ones there should be. At most twice as many are measured, and all are returned.
        measure: puts a contender under load, and returns what ``load.measure`` does.

    Raises:
        SystemExit: a contender answered with another status than 200, or not at all.
    """
    found: list[Round] = []
    for number in range(_TRIES * rounds):
        if len(list(filter(quiet, found))) == rounds:
            break
        found.append({})
        # The order changes, so that nobody has the quieter half of each round.
        for name in names[:: -1 if number % 2 else 1]:
            figures = measure(name)
            if figures["errors"]:
                raise SystemExit(f"{name} did not answer everything with 200: {figures}")
            found[-1][name] = figures
            others = f"others used {figures['others_cores']:.1f} cores"
            print(f"round {number + 1}: {said(name, figures)}, {others}", flush=True)
    return found


def quiet(round_: Round) -> bool:
    """Whether others left enough of the machine to everybody who was measured in a round."""
    cores = psutil.cpu_count() or 1
    # A single core is shared with the load anyway.
    most = max(cores - _CORES_LEFT, 0.25)
    return all(figures["others_cores"] <= most for figures in round_.values())


def counted(rounds: Sequence[Round]) -> list[Round]:
    """The quiet rounds, or all where none was."""
    return list(filter(quiet, rounds)) or list(rounds)


def said(name: str, figures: dict[str, Any]) -> str:
    """A contender's figures in a line."""
    rate, cpu_ms = figures["per_second"], 1000 * figures["cpu_s_per_picture"]
    used = f"{cpu_ms:.3f} ms CPU each ({rate * cpu_ms / 1000:.1f} cores)"
    return f"{name:12} {rate:7.0f} requests/s, {used}, p50 {figures['p50_ms']:.1f} ms"


def medians(rounds: Sequence[Round]) -> Round:
    """Each contender's figures, medians over the rounds."""
    names = ("per_second", "p50_ms", "cpu_s_per_picture", "rss_mb", "processes")
    return {
        contender: {name: statistics.median(round_[contender][name] for round_ in rounds) for name in names}
        for contender in rounds[0]
    }


def ratio(rounds: Sequence[Round], of: str, to: str) -> Ratio:
    """Of one contender to another."""

    def median(name: str) -> float:
        return float(statistics.median(round_[of][name] / round_[to][name] for round_ in rounds))

    return Ratio(of, to, median("per_second"), median("cpu_s_per_picture"))


def show(rounds: Sequence[Round], ratios: Sequence[Ratio]) -> None:
    """Prints medians and ratios of the rounds that count."""
    for name, figures in medians(rounds).items():
        print(f"median:  {said(name, figures)}, {figures['processes']:.0f} processes, {figures['rss_mb']:.0f} MB")
    for found in ratios:
        print(found)
    loud = len(rounds) - len(list(filter(quiet, rounds)))
    if loud:
        print(f"others used the machine in all {loud} rounds: these figures say little")


def compared(
    contenders: Sequence[Contender],
    workload: load.Workload,
    picture: load.Picture,
    folder: Path,
    *,
    threads: int,
    rounds: int,
    warm_up_s: float,
    generate: Callable[[str, Path, Body, int, float], list[dict[str, str]]],
) -> list[Round]:
    """Serves the contenders, measures them and ends them.

    Raises:
        SystemExit: one of them did not start, or gave a wrong answer.
    """
    body = Body(picture.path.read_bytes(), picture.content_type)
    try:
        with serving(contenders, workload.network, body, threads, folder) as up:
            return measured(
                [contender.name for contender in contenders],
                rounds,
                lambda name: load.measure(up[name], body, workload, warm_up_s, folder, generate),
            )
    except StartError as error:
        raise SystemExit(str(error)) from error
