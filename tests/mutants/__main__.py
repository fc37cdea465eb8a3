"""``make mutants``: makes small wrong changes to the code, one at a time, and says which no test notices.

The tables beside this file have a row for each change: the file, the text that is searched, the text that replaces it,
and the test files that should notice. Each change is made in a copy of the working tree, never in the tree itself. A
change counts as noticed if one of its test files fails with it; all of them must pass without it.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import NoReturn

import pytest

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
PACKAGES = ("service", "models", "loadtest", "loadreport", "traffic", "docs", "bench")
#: Seconds for one test, and for all test files of one change: a change that makes a test hang is noticed too.
TEST_WITHIN_S, WITHIN_S = 20, 45.0
#: The share of all changes that must be noticed.
LEAST_NOTICED = 0.95
#: How many test files run in one process when nothing is changed.
_AT_ONCE = 12
#: What pytest returns when all tests passed, and when one failed or a file could not be imported.
_PASSED, _FAILED = 0, (1, 2)
#: Some plugins of pytest are among the libraries that are imported already.
_OPTIONS = ["-x", "-q", "-p", "no:cacheprovider", "-m", "not slow and not service"]
_OPTIONS += ["--timeout", str(TEST_WITHIN_S), "-W", "ignore::pytest.PytestAssertRewriteWarning"]
#: Libraries that most tests import, and none of our own packages.
_PRELOADED = (
    "fastapi", "fastapi_offline", "httpx", "hypothesis.strategies", "hypothesis.stateful",
    "matplotlib.figure", "msgspec", "numpy", "onnx", "onnxruntime", "PIL.Image", "prometheus_client.parser", "psutil",
    "pydantic_settings", "pytest_asyncio.plugin", "pytest_timeout", "rich.progress", "safetensors.torch", "torch.fx",
    "typer.testing", "uvicorn", "xdist.plugin",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Mutant:
    """One wrong change: a row of a table."""

    table: str
    file: str
    what: str
    search: str
    replace: str
    tests: tuple[str, ...]

    def changed(self) -> str:
        """The text of the file with the change.

        Raises:
            ValueError: the searched text is not there exactly once, or the change is no Python.
        """
        text = (ROOT / self.file).read_text(encoding="utf-8")
        found = text.count(self.search)
        if found != 1:
            raise ValueError(f"the searched text is there {found} times, not once")
        changed = text.replace(self.search, self.replace)
        if self.file.endswith(".py"):
            compile(changed, self.file, "exec")
        return changed


def read_tables(folder: Path = FOLDER) -> list[Mutant]:
    """All rows of all tables, by the tables' names."""
    rows = []
    for path in sorted(folder.glob("*.toml")):
        for row in tomllib.loads(path.read_text(encoding="utf-8"))["mutant"]:
            rows.append(Mutant(path.stem, **{**row, "tests": tuple(row["tests"])}))
    return rows


def wrong_rows(rows: list[Mutant]) -> list[str]:
    """A line for each row that cannot be tried, since the code or the tests have changed."""
    wrong = []
    for row in rows:
        try:
            row.changed()
            missing = [test for test in row.tests if not (ROOT / test).is_file()]
            if missing or not row.tests:
                raise ValueError(f"there is no test file {', '.join(missing)}")
        except (OSError, SyntaxError, ValueError) as error:
            wrong.append(f"{row.table}.toml: {row.file}: {row.what}: {error}")
    return wrong


class Copy:
    """A copy of the working tree in which changes are made."""

    _moments = itertools.count(1)

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        listed = subprocess.check_output(["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=ROOT, text=True)
        for name in filter(None, listed.split("\0")):
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name)

    def write(self, name: str, text: str) -> None:
        """Writes a file, as of a second that no version of it has had: compiled files are told apart by that."""
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        moment = time.time() + next(self._moments)
        os.utime(path, (moment, moment))

    @property
    def output(self) -> str:
        """What the tests that ran in it last have printed."""
        return self.folder.with_suffix(".txt").read_text(encoding="utf-8", errors="replace")

    def restore(self, name: str) -> None:
        """Takes a change back."""
        self.write(name, (ROOT / name).read_text(encoding="utf-8"))


@dataclass(slots=True)
class Run:
    """Test files that run in a child process, in a copy of their own."""

    copy: Copy
    pid: int
    began: float
    give_up: float
    tests: tuple[str, ...]
    row: Mutant | None

    @classmethod
    def start(cls, copy: Copy, tests: tuple[str, ...], row: Mutant | None = None) -> Run:
        """Forks, since this process has imported the libraries already: that is most of what a short test takes."""
        sys.stdout.flush()
        pid = os.fork()
        if not pid:
            _run_tests(copy.folder, tests)
        began, within_s = time.monotonic(), WITHIN_S if row else len(tests) * WITHIN_S
        return cls(copy, pid, began, began + within_s, tests, row)

    def result(self) -> bool | None:
        """Whether all tests passed; None as long as they run. Tests that take too long are ended and have failed."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if not pid and time.monotonic() < self.give_up:
            return None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        if not pid:
            os.waitpid(self.pid, 0)
            return False
        code = os.waitstatus_to_exitcode(status)
        if code not in (_PASSED, *_FAILED) and code >= 0:
            raise SystemExit(f"pytest ended with status {code}:\n{self.copy.output[-3000:]}")
        return code == _PASSED


def _run_tests(folder: Path, tests: tuple[str, ...]) -> NoReturn:
    """In the child: runs test files of a copy as a fresh process would, and ends."""
    code = 1
    try:
        os.setsid()
        os.chdir(folder)
        # The copy's modules, not those that this process was started with.
        sys.path[:] = [str(folder), *(path for path in sys.path if path and Path(path).resolve() != ROOT)]
        for name in [name for name in sys.modules if name.partition(".")[0] in ("tests", *PACKAGES)]:
            del sys.modules[name]
        importlib.invalidate_caches()
        output = os.open(folder.with_suffix(".txt"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        code = int(pytest.main([*_OPTIONS, *tests]))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def run_all(jobs: Iterable[tuple[tuple[str, ...], Mutant | None]], copies: list[Copy]) -> Iterator[tuple[Run, bool]]:
    """Runs test files with a change each, or without one, as many at once as there are copies."""
    waiting, running, free = iter(jobs), list[Run](), list(copies)
    try:
        while True:
            while free and (job := next(waiting, None)) is not None:
                tests, row = job
                copy = free.pop()
                if row is not None:
                    copy.write(row.file, row.changed())
                running.append(Run.start(copy, tests, row))
            if not running:
                return
            time.sleep(0.01)
            for run in list(running):
                passed = run.result()
                if passed is not None:
                    running.remove(run)
                    if run.row is not None:
                        run.copy.restore(run.row.file)
                    free.append(run.copy)
                    yield run, passed
    finally:
        for run in running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(run.pid, signal.SIGKILL)


def in_turn(rows: list[Mutant]) -> list[Mutant]:
    """The rows, one of each table after the other, so that a run that ends early has tried some of each."""
    places = Counter[str]()
    numbered = []
    for row in rows:
        numbered.append((places[row.table], row))
        places[row.table] += 1
    return [row for _, row in sorted(numbered, key=lambda pair: pair[0])]


def try_all(rows: list[Mutant], jobs: int, give_up: float) -> tuple[int, list[Mutant]]:
    """Tries each change until the time is up; returns how many were tried, and those that no test noticed."""
    survivors, number = [], 0
    with tempfile.TemporaryDirectory() as folder:
        copies = [Copy(Path(folder) / str(number)) for number in range(jobs)]
        files = sorted({test for row in rows for test in row.tests})
        # Several files at once: most of what a short one takes is the start.
        several = [(tuple(files[at : at + _AT_ONCE]), None) for at in range(0, len(files), _AT_ONCE)]
        for run, passed in run_all(several, copies):
            if not passed:
                raise SystemExit(f"{run.tests} fails without any change:\n{run.copy.output[-3000:]}")
        print(f"{len(files)} test files pass without any change", flush=True)
        due = takewhile(lambda _: time.monotonic() < give_up, ((row.tests, row) for row in in_turn(rows)))
        for number, (run, passed) in enumerate(run_all(due, copies), 1):
            assert run.row is not None
            if passed:
                survivors.append(run.row)
            word = "NOT NOTICED" if passed else "noticed"
            took_s = time.monotonic() - run.began
            print(f"{number:4}/{len(rows)} {word:<12} {took_s:5.1f} s {run.row.file}: {run.row.what}", flush=True)
    return number, survivors


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="", metavar="TEXT", help="rows whose table, file or description has the text")
    parser.add_argument("--jobs", type=int, default=2, help="copies of the tree that are tried at once")
    parser.add_argument("--minutes", type=float, default=14, help="no change is begun after so many minutes")
    parser.add_argument("--check", action="store_true", help="only say which rows cannot be tried")
    options = parser.parse_args()
    rows = [row for row in read_tables() if options.only in f"{row.table} {row.file} {row.what}"]
    wrong = wrong_rows(rows)
    if wrong:
        raise SystemExit("\n".join(wrong))
    if options.check:
        return
    for name in _PRELOADED:
        importlib.import_module(name)
    began = time.monotonic()
    tried, survivors = try_all(rows, options.jobs, began + 60 * options.minutes)
    share = 1 - len(survivors) / max(1, tried)
    print(f"{tried - len(survivors)} of {tried} noticed ({share:.1%}), {time.monotonic() - began:.0f} s")
    if tried < len(rows):
        print(f"{len(rows) - tried} more were not tried: --minutes 60 tries all, --only TEXT some of them")
    for row in survivors:
        print(f"  not noticed: {row.file}: {row.what}")
    if share < LEAST_NOTICED:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
