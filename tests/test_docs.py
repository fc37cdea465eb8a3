"""README says what is true: its examples answer as shown, its tables are whole."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from models.checkpoints.catalogue import Catalogue
from models.networks.variants import VARIANTS, Variant
from service.config.settings import Settings
from service.domain.errors import PROBLEMS
from service.domain.query import Query
from tests.running import uvicorn_service

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
EXAMPLES = re.findall(r"^\$ (curl .*)\n(\{.*\})$", README, re.MULTILINE)


@pytest.fixture(scope="module")
def client(box_cache: Path) -> Iterator[httpx.Client]:
    with uvicorn_service(box_cache) as url, httpx.Client(base_url=url, timeout=60) as client:
        yield client


def run_curl(client: httpx.Client, command: str) -> Any:
    """As much of curl as README uses."""
    words = shlex.split(command)[1:]
    files, content, path = [], b"", ""
    while words:
        word = words.pop(0)
        if word == "--data-binary":
            content = (ROOT / words.pop(0).removeprefix("@")).read_bytes()
        elif word == "-F":
            name, _, file = words.pop(0).partition("=@")
            files.append((name, (file, (ROOT / file).read_bytes())))
        else:
            path = word.removeprefix("localhost:8000")
    return client.post(path, files=files).json() if files else client.post(path, content=content).json()


def comparable(value: Any) -> Any:
    """Without times, and with probabilities to six places."""
    if isinstance(value, dict):
        return {key: comparable(item) for key, item in value.items() if key != "timings_ms"}
    if isinstance(value, list):
        return [comparable(item) for item in value]
    return round(value, 6) if isinstance(value, float) else value


def test_there_are_three_examples() -> None:
    assert len(EXAMPLES) >= 3


@pytest.mark.parametrize(("command", "shown"), EXAMPLES, ids=[command[-30:] for command, _ in EXAMPLES])
def test_examples_answer_as_shown(client: httpx.Client, command: str, shown: str) -> None:
    assert comparable(run_curl(client, command)) == comparable(json.loads(shown))


def test_every_problem_type_is_listed() -> None:
    rows = re.findall(r"^\| `(/problems/[a-z-]+)` \| (\d+) \| (.*) \|$", README, re.MULTILINE)
    assert set(rows) == {(row.type, str(row.status), row.title) for row in PROBLEMS.values()}


def test_every_setting_is_listed_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `TOPFIVE_([A-Z0-9_]+)` \| (.*?) \|", README, re.MULTILINE))
    assert set(rows) == {name.upper() for name in Settings.model_fields}
    for name, field in Settings.model_fields.items():
        if field.default_factory is None:
            assert rows[name.upper()].lower() == (str(field.default).lower() or "none"), name


def test_every_query_parameter_is_listed() -> None:
    rows = re.findall(r"^\| `([a-z0-9_]+)` \|", README.split("## Networks")[0], re.MULTILINE)
    assert set(rows) == set(Query.model_fields)


def test_every_variant_is_listed_with_its_numbers() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| .*? \| (.*?) \| (.*?) \| (.*?) \| (.*?) \|$", README, re.MULTILINE)
    assert {name: tuple(cells) for name, *cells in rows} == {
        row.name: (
            ", ".join(f"`{alias}`" for alias in row.aliases),
            f"{row.params:,}",
            f"{row.multiply_adds / 1e6:,.1f} M",
            f"{row.costs.analytic_bytes / 1e6:.1f}",
            _accuracy(row),
        )
        for row in VARIANTS.values()
    }


def _accuracy(row: Variant) -> str:
    if row.labels == "mnist":
        return f"{Catalogue().find(row.name).top1:g} (MNIST)"
    return "" if row.published[0] is None else f"{row.published[0]:g} / {row.published[1]:g}"


def test_what_pip_is_told_to_install_exists() -> None:
    """The project is on no index: its extras are installed from its folder."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    sources = [ROOT / "README.md", *ROOT.glob("docs/*.md")]
    sources += [path for folder in ("service", "loadtest", "models") for path in (ROOT / folder).rglob("*.py")]
    lines = [line for path in sources for line in re.findall(r"pip install [^`\"\n)]+", path.read_text())]
    assert len(lines) >= 4
    for line in lines:
        own = re.search(r"topfive|\.\[", line)
        assert own is None or re.match(r"pip install -e '\.\[(\w+)\]'", line), line
    assert {name for line in lines for name in re.findall(r"'\.\[(\w+)\]'", line)} <= set(extras)


def test_the_pictures_and_files_that_are_linked_exist() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (ROOT / target).exists(), target


@pytest.mark.parametrize("name", ["digit", "airplane"])
def test_the_pictures_are_what_the_scripts_draw(name: str) -> None:
    import importlib.util

    from PIL import Image, ImageChops

    spec = importlib.util.spec_from_file_location(f"draw_{name}", ROOT / "docs" / f"draw_{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with Image.open(ROOT / "docs" / "images" / f"{name}.png") as committed:
        # Another Pillow may round a blurred pixel the other way.
        extrema = ImageChops.difference(module.draw(), committed).getextrema()
        most = max(high for _, high in extrema) if isinstance(extrema[0], tuple) else extrema[1]
        assert most <= 2
