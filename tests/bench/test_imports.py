"""What the scripts of ``bench/`` and ``docs/`` import from the packages exists: few of them run in a test."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(path for folder in ("bench", "docs") for path in (ROOT / folder).rglob("*.py"))
PACKAGES = ("service", "models", "loadreport", "loadtest", "traffic")


def imported(script: Path) -> list[tuple[str, str]]:
    """The modules and the names that a script takes from them, lazily imported ones among them."""
    found = []
    for node in ast.walk(ast.parse(script.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in PACKAGES:
            found += [(node.module, alias.name) for alias in node.names]
    return found


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_script_imports_exists(script: Path) -> None:
    for module, name in imported(script):
        if not hasattr(importlib.import_module(module), name):
            importlib.import_module(f"{module}.{name}")


def test_some_scripts_import_our_packages() -> None:
    assert sum(bool(imported(script)) for script in SCRIPTS) >= 5
