"""Every link, anchor and path in the pages leads somewhere."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from tests.pages import PAGES, ROOT, code, prose

_LINK = re.compile(r"\]\(([^)\s]+)\)")
#: A path of this project between backticks. Placeholders (``<room>``, ``NAME``) and patterns are none.
_PATH = re.compile(r"(?:service|models|loadtest|loadreport|bench|tests|weights|docs|\.ci)/[a-z0-9_./-]*")


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them: a repeated heading gets a number."""
    found: set[str] = set()
    times: Counter[str] = Counter()
    for heading in re.findall(r"^#{1,6} (.*)$", prose(text), re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        found.add(f"{slug}-{times[slug]}" if times[slug] else slug)
        times[slug] += 1
    return found


def test_anchors_are_those_of_github() -> None:
    text = "# Where do I add ...?\n## The rooms of service/\n## Add\n```text\n# none\n```\n## Add\n"
    assert anchors(text) == {"where-do-i-add-", "the-rooms-of-service", "add", "add-1"}


@pytest.mark.parametrize("name", PAGES)
def test_every_link_and_anchor_resolves(name: str) -> None:
    folder = (ROOT / name).parent
    for link in _LINK.findall(prose(PAGES[name])):
        if link.startswith(("http://", "https://")):
            continue
        target, _, anchor = link.partition("#")
        path = (folder / target).resolve() if target else ROOT / name
        assert path.exists(), f"{name}: {link}"
        assert path.is_relative_to(ROOT), f"{name}: {link}"
        if anchor:
            assert anchor in anchors(path.read_text()), f"{name}: {link}"


@pytest.mark.parametrize("name", PAGES)
def test_every_path_that_is_named_exists(name: str) -> None:
    for path in filter(_PATH.fullmatch, code(PAGES[name])):
        assert (ROOT / path).exists(), f"{name}: {path}"


def test_readme_leads_to_every_page() -> None:
    linked = {link.partition("#")[0] for link in _LINK.findall(PAGES["README.md"])}
    assert set(PAGES) - {"README.md"} <= linked


def test_readme_shows_every_top_level_folder_and_room() -> None:
    (tree,) = re.findall(r"^```text\n(.*?)^```$", PAGES["README.md"], re.MULTILINE | re.DOTALL)
    named = set(re.findall(r"(\w+)/", tree))
    for folder in (ROOT, ROOT / "service", ROOT / "models"):
        assert _packages(folder) - {"docs"} <= named, folder


def _packages(folder: Path) -> set[str]:
    """The folders that are in the repository, which a built or cached one is not."""
    ignored = {"build", "__pycache__"}
    found = {path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")}
    return {name for name in found - ignored if not name.endswith(".egg-info")}
