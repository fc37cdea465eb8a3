"""The documentation as tests read it: its pages, the commands they show, and the code and paths that they name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
#: What people write and read. Generated reports are left out.
FILES = ("README.md", "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))
PAGES = {name: (ROOT / name).read_text() for name in FILES}

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`([^`\n]+)`")


class Shown(NamedTuple):
    """A command in a page, and what the page shows that it answers."""

    page: str
    command: str
    answer: str
    """As printed, without the command; empty if the page shows none."""


def page(name: str) -> str:
    """The text of a page below ``docs/``."""
    return PAGES[f"docs/{name}.md"]


def blocks(text: str, language: str) -> list[str]:
    """The contents of the fenced blocks of one language."""
    return [content for found, content in _FENCE.findall(text) if found == language]


def prose(text: str) -> str:
    """A page without its fenced blocks."""
    return _FENCE.sub("", text)


def code(text: str) -> list[str]:
    """What stands between backticks, outside fenced blocks."""
    return _CODE.findall(prose(text))


def shown(name: str) -> list[Shown]:
    """The commands in the console blocks of a page: lines that begin with ``$``."""
    found = []
    for block in blocks(PAGES[name], "console"):
        for entry in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, answer = entry.partition("\n")
            found.append(Shown(name, command, answer.strip()))
    return found


def commands(name: str) -> list[str]:
    """Every command of a page, in console blocks and between backticks."""
    return [entry.command for entry in shown(name)] + code(PAGES[name])


def table(text: str, first: str) -> list[list[str]]:
    """The rows of the table whose first heading is ``first``."""
    found = re.search(rf"^\|[ ]{re.escape(first)}[ ]\|.*\n\|[-| :]+\|\n((?:\|.*\n?)+)", text, re.MULTILINE)
    assert found is not None, f"there is no table with the first heading {first!r}"
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in found[1].splitlines()]
