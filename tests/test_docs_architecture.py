"""The map is the building: floors as in the contract, and each place where something is added exists."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest

from tests.pages import PAGES, ROOT, code, page, table

#: What a newcomer may want to add; each has a line in CONTRIBUTING.
ADDED = (
    "a network",
    "an engine",
    "a status (a problem)",
    "a metric",
    "an HTTP path",
    "a command",
    "a fleet key",
    "a protocol",
)


@pytest.fixture(scope="module")
def contract() -> Any:
    """The one contract that puts the rooms of ``service`` on floors."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (found,) = (each for each in contracts if each["type"] == "layers" and each.get("containers") == ["service"])
    return found


def rooms(floor: str) -> set[str]:
    return {room.strip() for room in floor.split("|")}


def test_the_floors_are_those_of_the_contract(contract: Any) -> None:
    drawn = re.findall(r"^floor (\d+)   (.*)$", page("architecture"), re.MULTILINE)
    assert [int(number) for number, _ in drawn] == list(range(len(drawn), 0, -1))
    assert [rooms(floor) for _, floor in drawn] == [rooms(layer) for layer in contract["layers"]]


def test_every_room_has_a_line(contract: Any) -> None:
    listed = {re.fullmatch(r"`service/(\w+)(?:/|\.py)`", row[0])[1] for row in table(page("architecture"), "room")}  # type: ignore[index]
    assert listed == {room for layer in contract["layers"] for room in rooms(layer)} | set(
        contract["exhaustive_ignores"]
    )


def test_a_new_room_must_be_put_on_a_floor(contract: Any) -> None:
    assert contract["exhaustive"] is True


def test_the_path_of_a_request_has_seven_steps() -> None:
    path = page("architecture").split("## The path of one request")[1].split("\n## ")[0]
    assert re.findall(r"^(\d)\. ", path, re.MULTILINE) == list("1234567")


@pytest.mark.parametrize("what", ADDED)
def test_contributing_says_where_to_add(what: str) -> None:
    (row,) = [row for row in table(PAGES["CONTRIBUTING.md"], "to add") if row[0] == what]
    files = re.findall(r"\]\(([^)#]+)\)", row[1])
    assert any(file.endswith(".py") for file in files), row[1]
    for file in files:
        assert (ROOT / file).exists(), file


def test_every_file_has_tests_of_its_name_or_a_line() -> None:
    """``tests/<folder>/test_<file>.py``; a leading underscore, which Locust asks for, does not count."""
    rows = table(PAGES["CONTRIBUTING.md"], "file")
    elsewhere = tuple(file for row in rows for file in code(row[0]))
    for row in rows:
        assert all((ROOT / path).is_file() for path in code(row[1])), row
    missing = []
    for package in ("service", "models", "loadtest", "loadreport", "traffic"):
        for path in sorted((ROOT / package).rglob("*.py")):
            file, name = path.relative_to(ROOT), path.stem.lstrip("_")
            mirrored = ROOT / "tests" / file.parent / f"test_{name}.py"
            if not path.stem.startswith("__") and not mirrored.is_file() and not str(file).startswith(elsewhere):
                missing.append(str(file))
    assert missing == []


def test_the_glossary_has_one_meaning_a_word() -> None:
    words = [row[0] for row in table(PAGES["CONTRIBUTING.md"], "word")]
    assert len(words) == len(set(words))
    assert all(re.fullmatch(r"[a-z][a-z -]+", word) for word in words)
