"""The load generator of docker-compose.yml: beside either service, when asked for, with all that it imports."""

from __future__ import annotations

import ast
import re
import sys
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.checks import answers_of_check
from tests.composing import PROFILES, ROOT, Instruction, compose, dockerfile, services

LOADTEST = ROOT / "loadtest"


def stage() -> list[Instruction]:
    """The Dockerfile's stage that it is built from."""
    instructions = dockerfile()
    begin = next(i for i, found in enumerate(instructions) if found.arguments.endswith("AS loadtest"))
    after = [i for i, found in enumerate(instructions) if found.name == "FROM" and i > begin]
    return instructions[begin : after[0]]


def words(name: str) -> list[str]:
    (found,) = (instruction for instruction in stage() if instruction.name == name)
    return found.words


def generator() -> dict[str, Any]:
    return services("loadtest")["loadtest"]


@pytest.mark.parametrize("profile", PROFILES)
def test_it_joins_either_service_when_asked_for(profile: str) -> None:
    alone = compose("--profile", profile, "config", "--services").split()
    beside = compose("--profile", profile, "--profile", "loadtest", "config", "--services").split()
    assert sorted(beside) == sorted([*alone, "loadtest"])


def test_it_is_built_from_a_stage_of_its_own() -> None:
    assert generator()["build"]["target"] == "loadtest"
    assert (ROOT / generator()["build"]["dockerfile"]).is_file()


def test_it_runs_locust_on_the_folder_that_is_copied() -> None:
    assert words("ENTRYPOINT") == ["locust", "-f", "loadtest/"]
    assert generator()["entrypoint"] is None
    assert generator()["command"] is None
    (workdir,) = words("WORKDIR")
    assert workdir.startswith("/")
    assert Instruction("COPY", "loadtest loadtest") in stage()
    # The one package of ours that it imports.
    assert Instruction("COPY", "traffic traffic") in stage()


def test_its_host_is_where_either_service_is_found() -> None:
    host = urlsplit(generator()["environment"]["LOCUST_HOST"])
    assert host.port == services("cpu")["topfive"]["ports"][0]["target"]
    assert host.hostname == "topfive"
    assert "topfive" in services("gpu")["topfive-gpu"]["networks"]["default"]["aliases"]


def test_its_page_is_published_on_this_machine_alone() -> None:
    (port,) = generator()["ports"]
    assert port["host_ip"] == "127.0.0.1"
    assert words("EXPOSE") == [str(port["target"])]
    assert f"LOCUST_WEB_PORT={port['target']}" in words("ENV")


def test_it_does_not_run_as_root() -> None:
    uid, _, gid = words("USER")[0].partition(":")
    assert uid == gid
    assert int(uid) > 0


def test_its_health_check_asks_for_the_page() -> None:
    found = answers_of_check(words("HEALTHCHECK"), "/", variable="LOCUST_WEB_PORT")
    assert found == {"200": True, "503": False, "nobody": False}


def test_what_it_imports_is_installed() -> None:
    """Locust's own dependencies come with it; the stage names the rest."""
    install = next(found.arguments for found in stage() if "pip install" in found.arguments)
    named = set(re.search(r"--constraint \S+ ((?:[a-z]+ )+)&&", install.replace("\n", " "))[1].split())  # type: ignore[index]
    provided = {"pillow": "PIL"}
    brought = {provided.get(name, name) for name in named} | {"gevent", "geventhttpclient", "psutil", "requests"}
    assert imported_by("locustfile") - set(sys.stdlib_module_names) - {"loadtest", "traffic"} <= brought


def imported_by(module: str, seen: set[str] | None = None) -> set[str]:
    """Top-level packages that a module of the folder imports, by way of its neighbours too; not those for the types."""
    seen = set() if seen is None else seen
    seen.add(module)
    found: set[str] = set()
    for node in ast.walk(_without_type_checking(ast.parse((LOADTEST / f"{module}.py").read_text()))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            names = [node.module]
        for name in names:
            package, _, neighbour = name.partition(".")
            found.add(package)
            if package == "loadtest" and neighbour and neighbour not in seen:
                found |= imported_by(neighbour, seen)
    return found


def _without_type_checking(tree: ast.Module) -> ast.Module:
    tree.body = [n for n in tree.body if not (isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")]
    return tree
