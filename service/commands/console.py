"""Where the commands write."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape

from service.config.settings import Settings, misspelt

#: Unreadable pictures that are listed; the others are counted.
_LISTED = 20
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


def read_settings(**options: Any) -> Settings:
    """The settings, over which options win; a bad value ends the command, and so does a variable whose name is a
    setting's with a slip."""
    if slip := misspelt(os.environ):
        fail(f"there is no setting {slip[0]}; did you mean {slip[1]}?", 2)
    try:
        return Settings(**{name: value for name, value in options.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0])
        fail(f"TOPFIVE_{name.upper()} (--{name.replace('_', '-')}) = {first['input']!r}: {first['msg']}", 2)


def print_left_out(path: Path, why: str) -> None:
    """One line for a file in the cache that counts as no checkpoint."""
    errors.print(f"[yellow]left out[/] {escape(str(path))}: {escape(why)}", highlight=False, soft_wrap=True)
