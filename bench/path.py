"""The ratchet: what the path of a request costs, in ratios of one run: ``python bench/path.py [--against COMMIT]``.

Serves the app of this checkout under bare uvicorn, a bare Starlette handler with the same decode and engine, ``local``
behind Ray Serve and HAProxy (unless ``--no-ray``), and with ``--against`` the app of another commit (in a git worktree
that is removed afterwards). Puts one after the other under the same closed loop, in rounds, and prints ratios of
requests a second and of the CPU time of all processes of a contender: medians of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import load
import report
from rounds import Contender, Ratio, Round, compared, counted, medians, quiet, ratio, show
from servers import OURS, ROOT, STARLETTE

APP, LOCAL, BARE = "app", "local", "starlette"
GENERATORS = {"python": load.python_loop, "hey": load.hey}
#: The status of a run whose rounds others disturbed: ``EX_TEMPFAIL`` of sysexits.h.
CANNOT_TELL = 75
_FEWEST_QUIET = 3
_SERVER = {server.key: server for server in OURS}


@dataclass(frozen=True, slots=True)
class Limit:
    """What a contender must hold against another, with the default options."""

    of: str
    to: str
    rate: float
    """Least ratio of requests a second."""
    cpu: float
    """Largest ratio of CPU time for a request."""


#: The ratchet: ``--check`` and the slow tests fail beyond these. Measured on 2026-11-28 on two cores of an AMD EPYC,
#: two runs of four and three rounds of 3 s: 1.25 and 1.16 times the rate, 0.98 and 1.04 times the CPU time. Runs of one
#: commit differ by a tenth, so twice as much is left. Whoever makes the path faster tightens them.
LIMITS = (Limit(APP, BARE, rate=0.95, cpu=1.25),)


def missed(limits: Sequence[Limit], ratios: Sequence[Ratio]) -> list[str]:
    """What is beyond a limit, with both figures of what was measured and of what is due."""
    return [
        f"{found}; at least {limit.rate:g} and at most {limit.cpu:g} are due"
        for limit in limits
        for found in ratios
        if (found.of, found.to) == (limit.of, limit.to) and (found.rate < limit.rate or found.cpu > limit.cpu)
    ]


def pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """Whose ratios are of interest, of those who were measured: each to the bare handler, ``local`` to the app inside
    it, and the app of this checkout to another commit's."""
    found = [(name, BARE) for name in names if name != BARE]
    found += [(LOCAL, APP)] if LOCAL in names else []
    return found + [(APP, name) for name in names if name not in (APP, LOCAL, BARE)]


@contextmanager
def contenders(against: str | None, *, ray: bool) -> Iterator[list[Contender]]:
    """Who is measured."""
    found = [Contender(APP, _SERVER["app"]), Contender(BARE, STARLETTE)]
    found += [Contender(LOCAL, _SERVER["topfive"])] if ray else []
    if against is None:
        yield found
        return
    with worktree(against) as checkout:
        # Beside this checkout's app, since the two are to be compared.
        yield [Contender(against, _SERVER["app"], checkout), *found]


@contextmanager
def worktree(commit: str) -> Iterator[Path]:
    """A checkout of a commit."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkout"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(path), commit], check=True)  # noqa: S603
        try:
            yield path
        finally:
            subprocess.run([*git, "remove", "--force", str(path)], check=True)  # noqa: S603


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--against", metavar="COMMIT", help="its app is measured as well")
    parser.add_argument("--no-ray", action="store_true", help="without local")
    parser.add_argument(
        "--check",
        action="store_true",
        help="end with 1 beyond the limits, 75 if the machine was busy",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--network", default="lenet5", help="lenet5 is asked for a digit, all others for a photograph")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each round")
    parser.add_argument("--warm-up", type=float, default=1.0, help="seconds of the same load before each round")
    parser.add_argument("--generator", choices=GENERATORS, default="python", help="the limits are python's")
    options = parser.parse_args()
    if options.check and (options.network, options.connections) != ("lenet5", 64):
        parser.error("the limits are of lenet5 at 64 connections")
    return options


def main() -> None:
    options = arguments()
    cores = len(os.sched_getaffinity(0))
    workload = load.Workload(options.network, options.connections, options.seconds)
    with (
        tempfile.TemporaryDirectory(prefix="topfive-bench-") as name,
        contenders(options.against, ray=not options.no_ray) as everybody,
    ):
        folder = Path(name)
        rounds = compared(
            everybody,
            workload,
            load.digit(folder) if options.network == "lenet5" else load.photograph(folder),
            folder,
            threads=cores,
            rounds=options.rounds,
            warm_up_s=options.warm_up,
            generate=GENERATORS[options.generator],
        )
    ratios = [ratio(counted(rounds), *pair) for pair in pairs(list(rounds[0]))]
    show(counted(rounds), ratios)
    if options.json is not None:
        written = {"generator": options.generator, **results(workload, rounds, ratios, cores)}
        options.json.write_text(json.dumps(written, indent=1) + "\n")
    if options.check:
        check(rounds, ratios)


def check(rounds: Sequence[Round], ratios: Sequence[Ratio]) -> None:
    """Ends the run with 1 beyond a limit, and with 75 where the rounds cannot tell.

    Raises:
        SystemExit: as said.
    """
    quiet_rounds = len(list(filter(quiet, rounds)))
    if quiet_rounds < _FEWEST_QUIET:
        print(f"only {quiet_rounds} of {len(rounds)} rounds had the machine to themselves", file=sys.stderr)
        raise SystemExit(CANNOT_TELL)
    if beyond := missed(LIMITS, ratios):
        raise SystemExit("\n".join(beyond))


def results(workload: load.Workload, rounds: list[Round], ratios: list[Ratio], cores: int) -> dict[str, Any]:
    """What ``--json`` writes."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": report.machine(cores),
        "versions": report.versions(),
        "workload": load.described(workload),
        "rounds": rounds,
        "medians": medians(counted(rounds)),
        "ratios": [asdict(found) for found in ratios],
        "limits": [asdict(limit) for limit in LIMITS],
    }


if __name__ == "__main__":
    main()
