"""Where the commands write."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import typer
from rich.console import Console
from rich.markup import escape

#: Unreadable pictures that are listed; the others are counted.
_LISTED = 20
#: Why a network may not run here: UnknownModelError, WrongWeightsError and DeviceError are ValueErrors, missing weights
#: an OSError, a failed export a RuntimeError, an export that does not compute the same an ArithmeticError.
CANNOT_RUN = (ValueError, OSError, RuntimeError, ArithmeticError, MemoryError)
# Piped output has no width of its own, and tables folded at 80 columns are hard to read and to grep.
_WIDTH = None if sys.stdout.isatty() else 160
console = Console(width=_WIDTH)
errors = Console(stderr=True, width=_WIDTH)


def fail(text: object, code: int = 1) -> NoReturn:
    """Ends the command with an error of one line."""
    errors.print(f"[red]error[/]: {escape(str(text))}", highlight=False, soft_wrap=True)
    raise typer.Exit(code)


def list_unreadable(lines: Sequence[str]) -> None:
    """Tells which pictures of a data set are left out, and why."""
    for line in lines[:_LISTED]:
        errors.print(f"[yellow]unreadable[/] {escape(line)}", highlight=False, soft_wrap=True)
    if lines:
        more = " (the first are above)" if len(lines) > _LISTED else ""
        errors.print(f"[yellow]{len(lines):,} unreadable pictures are left out[/]{more}", soft_wrap=True)


def print_left_out(path: Path, why: str) -> None:
    """One line for a file in the cache that counts as no checkpoint."""
    errors.print(f"[yellow]left out[/] {escape(str(path))}: {escape(why)}", highlight=False, soft_wrap=True)
