"""``make mutants``: makes small wrong changes to the code, one at a time, and says which no test notices.

The tables beside this file have a row for each change: the file, the text that is searched, the text that replaces it,
and the test files that should notice. Each change is made in a copy of the working tree, never in the tree itself. A
change counts as noticed if one of its test files fails with it; all of them must pass without it.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
#: Seconds for the test files of one change: one that makes a test hang is noticed too.
WITHIN_S = 120.0
#: The share of all changes that must be noticed.
LEAST_NOTICED = 0.95
#: What pytest returns when all tests passed, and when one failed or a file could not be imported.
_PASSED, _FAILED = 0, (1, 2)


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

    def passes(self, tests: tuple[str, ...], within_s: float = WITHIN_S) -> bool:
        """Whether the test files pass as the copy is now."""
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-m", "not slow and not service", "--no-header", *tests]
        try:
            done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=within_s)
        except subprocess.TimeoutExpired:
            return False
        if done.returncode not in (_PASSED, *_FAILED):
            raise SystemExit(f"pytest cannot run {' '.join(tests)}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        return done.returncode == _PASSED


def try_all(rows: list[Mutant], jobs: int) -> list[Mutant]:
    """Tries each change; returns those that no test noticed."""
    survivors: list[Mutant] = []
    copies: SimpleQueue[Copy] = SimpleQueue()
    lock, done = threading.Lock(), itertools.count(1)

    def attempt(row: Mutant) -> None:
        copy = copies.get()
        try:
            copy.write(row.file, row.changed())
            noticed = not copy.passes(row.tests)
        finally:
            copy.write(row.file, (ROOT / row.file).read_text(encoding="utf-8"))
            copies.put(copy)
        with lock:
            if not noticed:
                survivors.append(row)
            word = "noticed" if noticed else "NOT NOTICED"
            print(f"{next(done):4}/{len(rows)} {word:<12} {row.file}: {row.what}", flush=True)

    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(jobs) as pool:
        for number in range(jobs):
            copies.put(Copy(Path(folder) / str(number)))
        files = sorted({test for row in rows for test in row.tests})
        copy = copies.get()
        if not copy.passes(tuple(files), within_s=600):
            raise SystemExit("the test files of the tables do not pass without any change: run make test")
        copies.put(copy)
        list(pool.map(attempt, rows))
    return survivors


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="", metavar="TEXT", help="rows whose table, file or description has the text")
    parser.add_argument("--jobs", type=int, default=2, help="copies of the tree that are tried at once")
    parser.add_argument("--check", action="store_true", help="only say which rows cannot be tried")
    options = parser.parse_args()
    rows = [row for row in read_tables() if options.only in f"{row.table} {row.file} {row.what}"]
    wrong = wrong_rows(rows)
    if wrong:
        raise SystemExit("\n".join(wrong))
    if options.check:
        return
    began = time.monotonic()
    survivors = try_all(rows, options.jobs)
    share = 1 - len(survivors) / max(1, len(rows))
    print(f"{len(rows) - len(survivors)} of {len(rows)} noticed ({share:.1%}), {time.monotonic() - began:.0f} s")
    for row in survivors:
        print(f"  not noticed: {row.file}: {row.what}")
    if share < LEAST_NOTICED:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
