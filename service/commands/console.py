"""The terminal: where commands print results and errors."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import typer
from rich.console import Console
from rich.markup import escape

#: How many unreadable pictures are listed by name; the others are only counted.
_LISTED = 20
#: What can keep a network from running here: an unknown name, wrong weights or no such device (ValueError), missing
#: weights (OSError), a failed export (RuntimeError), and an exported graph that computes something else
#: (ArithmeticError).
CANNOT_RUN = (ValueError, OSError, RuntimeError, ArithmeticError, MemoryError)

# A pipe has no width. Rich would assume 80 columns and fold tables, which are then hard to read and to grep.
_WIDTH = None if sys.stdout.isatty() else 160
console = Console(width=_WIDTH)
errors = Console(stderr=True, width=_WIDTH)


def fail(text: object, code: int = 1) -> NoReturn:
    """Prints an error of one line and ends the command."""
    errors.print(f"[red]error[/]: {escape(str(text))}", highlight=False, soft_wrap=True)
    raise typer.Exit(code)


def list_unreadable(lines: Sequence[str]) -> None:
    """Prints which pictures of a data set cannot be read, and why."""
    for line in lines[:_LISTED]:
        errors.print(f"[yellow]unreadable[/] {escape(line)}", highlight=False, soft_wrap=True)
    if lines:
        more = " (the first are above)" if len(lines) > _LISTED else ""
        errors.print(f"[yellow]{len(lines):,} unreadable pictures are left out[/]{more}", soft_wrap=True)


def print_left_out(path: Path, why: str) -> None:
    """Prints that the catalogue leaves out a file of the cache folder, and why."""
    errors.print(f"[yellow]left out[/] {escape(str(path))}: {escape(why)}", highlight=False, soft_wrap=True)
