"""The commands in README, CONTRIBUTING and the pages can be typed: they, their options and their files exist."""

from __future__ import annotations

import importlib
import re
import shlex
import tomllib
from typing import Any

import pytest
import typer
import yaml

from tests.pages import PAGES, ROOT, code, commands, prose

_PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
#: Variables and ``docker compose exec SERVICE`` may stand before it.
_TOPFIVE = re.compile(r"^(?:[A-Z_]+=\S+ )*(?:docker compose exec \w+ )?topfive( .*)?$")


def cli() -> Any:
    """The command line, found as pip finds it."""
    module, _, _ = _PYPROJECT["project"]["scripts"]["topfive"].partition(":")
    return typer.main.get_command(importlib.import_module(module).app)


def parse(words: list[str]) -> None:
    """Parses a command as typed, and runs nothing. A name alone only has to exist."""
    group = cli()
    assert words[0] in group.commands, words[0]
    command = group.commands[words[0]]
    if len(words) > 1:
        command.make_context(words[0], words[1:], parent=group.make_context("topfive", words[:1]))


def typed(name: str) -> list[str]:
    """The ``topfive`` commands of a page, without what stands before them."""
    found = [match[1] or "" for match in map(_TOPFIVE.match, commands(name)) if match]
    return [command for command in dict.fromkeys(found) if command.strip()]


CASES = [(name, command) for name in PAGES for command in typed(name)]


def test_the_pages_show_every_command() -> None:
    assert {shlex.split(command)[0] for _, command in CASES} == set(cli().commands)


@pytest.mark.parametrize(("name", "command"), CASES, ids=[f"{name}:{command[:50]}" for name, command in CASES])
def test_topfive_takes_what_is_shown(name: str, command: str) -> None:
    parse(shlex.split(command))


def test_an_option_that_does_not_exist_is_noticed() -> None:
    with pytest.raises(Exception, match="No such option"):
        parse(["pull", "--al"])


@pytest.mark.parametrize("name", PAGES)
def test_every_option_that_is_named_exists(name: str) -> None:
    """Options between backticks, without their command: of ``topfive``, or of Locust."""
    known = {"--help", "--headless", "--arrivals"}
    for command in cli().commands.values():
        for option in command.params:
            known |= {*option.opts, *option.secondary_opts}
    for word in code(PAGES[name]):
        if re.fullmatch(r"--[a-z0-9-]+( .*)?", word):
            assert word.split()[0] in known, f"{name}: {word}"


@pytest.mark.parametrize("name", PAGES)
def test_every_make_target_exists(name: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for command in commands(name):
        if command.startswith("make "):
            words = shlex.split(command)
            assert words[1] in targets, command
            for options in (word.removeprefix("ARGS=") for word in words[2:] if word.startswith("ARGS=")):
                parse([words[1], *shlex.split(options)])


@pytest.mark.parametrize("name", PAGES)
def test_every_script_and_module_that_is_run_exists(name: str) -> None:
    for command in commands(name):
        for script, options in re.findall(r"\bpython (\S+\.py)\b(.*)", command):
            assert (ROOT / script).is_file(), f"{name}: {command}"
            for option in re.findall(r"--[a-z-]+", options):
                assert f'"{option}"' in (ROOT / script).read_text(), f"{name}: {command}"
        for module in re.findall(r"\bpython -m ([\w.]+)", command):
            path = ROOT.joinpath(*module.split("."))
            assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), f"{name}: {command}"


def test_every_compose_profile_and_service_exists() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    profiles = {profile for service in services.values() for profile in service.get("profiles", [])}
    shown = [command for name in PAGES for command in commands(name) if "docker compose" in command]
    assert {profile for command in shown for profile in re.findall(r"--profile (\w+)", command)} == profiles
    assert {service for command in shown for service in re.findall(r"compose exec (\w+)", command)} <= set(services)


def test_every_variable_of_ours_exists() -> None:
    """A setting, or a name that some file of the project reads."""
    folders = ("service", "models", "loadtest", "tests")
    sources = [path for folder in folders for path in (ROOT / folder).rglob("*.py") if "test_docs" not in path.name]
    text = "\n".join(path.read_text() for path in [*sources, ROOT / ".ci/run"])
    for name, content in PAGES.items():
        for variable in set(re.findall(r"`TOPFIVE_([A-Z][A-Z_]*)", prose(content))):
            read = re.search(rf"TOPFIVE_{variable}\b|^    {variable.lower()}: ", text, re.MULTILINE)
            assert read is not None, f"{name}: TOPFIVE_{variable}"
