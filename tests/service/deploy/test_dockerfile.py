"""Tests of the Dockerfile that need no Docker: what it names exists, and what it leaves out is not needed."""

from __future__ import annotations

import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from service.commands.main import app
from service.config.settings import Settings
from tests.checks import answers_of_check
from tests.composing import DOCKERFILE, PROFILES, ROOT, dockerfile, is_ignored, last_words, tool, topfive

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS = PROJECT["tool"]["setuptools"]


def copied() -> list[str]:
    """The files and folders that the image gets from the repository, not from another stage."""
    sources = []
    for instruction in dockerfile():
        if instruction.name == "COPY" and not instruction.arguments.startswith("--from"):
            sources += instruction.words[:-1]
    return sources


def package_files() -> Iterator[Path]:
    """The files of an installed TopFive, relative to the root."""
    for package in SETUPTOOLS["packages"]:
        folder = ROOT / package.replace(".", "/")
        for pattern in ("*.py", *SETUPTOOLS["package-data"].get(package, [])):
            yield from (file.relative_to(ROOT) for file in folder.glob(pattern))


def environment() -> dict[str, str]:
    """The variables that ENV instructions set."""
    words = [word for instruction in dockerfile() if instruction.name == "ENV" for word in instruction.words]
    return dict(word.split("=", 1) for word in words)


def parse(arguments: list[str]) -> str:
    """The name of the command in the arguments; raises what the real command line would print."""
    group: Any = typer.main.get_command(app)
    context = group.make_context("topfive", list(arguments))
    name, *options = arguments
    command = group.get_command(context, name)
    assert command is not None, f"no command {name}"
    command.make_context(name, options, parent=context)
    return name


def test_hadolint_finds_nothing() -> None:
    done = subprocess.run([tool("hadolint"), "--no-color", str(DOCKERFILE)], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_base_is_pinned_and_one_that_the_project_supports() -> None:
    stages = [instruction.words for instruction in dockerfile() if instruction.name == "FROM"]
    named = {words[2] for words in stages if len(words) == 3}
    (base,) = {words[0] for words in stages} - named
    version = re.fullmatch(r"python:(\d+)\.(\d+)\.\d+-slim-[a-z]+", base)
    assert version is not None, base
    least = PROJECT["project"]["requires-python"].removeprefix(">=").split(".")
    assert [int(part) for part in version.groups()] >= [int(part) for part in least]


def test_what_is_copied_exists_and_is_not_ignored() -> None:
    assert len(copied()) >= 5
    for source in copied():
        assert (ROOT / source).exists(), source
        assert not is_ignored(source), source


def test_every_file_of_the_package_gets_into_the_image() -> None:
    files = [str(file) for file in package_files()]
    assert {"service/commands/main.py", "service/deploy/fleets/local.toml", "weights/manifest.toml"} <= set(files)
    folders = {source for source in copied() if (ROOT / source).is_dir()}
    for file in files:
        assert not is_ignored(file), file
        assert file.partition("/")[0] in folders, file


@pytest.mark.parametrize("file", [PROJECT["project"]["readme"], "LICENSE", "constraints.txt", "pyproject.toml"])
def test_files_that_the_build_needs_get_into_the_image(file: str) -> None:
    assert file in copied()


@pytest.mark.parametrize(
    "path",
    [
        ".venv/bin/python",
        ".venv-peers/torch.py",
        ".git/HEAD",
        ".env",
        ".hypothesis/examples",
        ".mypy_cache/3.11",
        "tests/conftest.py",
        "bench/results/cells.json",
        "docs/images/digit.png",
        "topfive.egg-info/PKG-INFO",
        "service/commands/__pycache__/main.pyc",
        "models/training/__pycache__/train.pyc",
        "weights/profiles/cpu-2-cores.lock",
    ],
)
def test_other_files_stay_out_of_the_image(path: str) -> None:
    assert is_ignored(path)


def test_the_image_does_not_run_as_root_and_has_a_home() -> None:
    last_stage = max(i for i, instruction in enumerate(dockerfile()) if instruction.name == "FROM")
    user = max(i for i, instruction in enumerate(dockerfile()) if instruction.name == "USER")
    assert user > last_stage
    uid, _, gid = last_words("USER")[0].partition(":")
    assert uid == gid
    assert int(uid) > 0
    made = re.search(rf"useradd .*--create-home --uid {uid} --user-group (\w+)", DOCKERFILE.read_text())
    assert made is not None
    assert environment()["HOME"] == f"/home/{made[1]}"
    assert f"--owner={made[1]} --group={made[1]} {environment()['TOPFIVE_CACHE_DIR']}" in DOCKERFILE.read_text()


def test_the_command_of_the_image_exists_and_needs_no_shell() -> None:
    for name in ("ENTRYPOINT", "CMD"):
        assert [instruction for instruction in dockerfile() if instruction.name == name][-1].arguments.startswith("[")
    (program,) = last_words("ENTRYPOINT")
    assert program in PROJECT["project"]["scripts"]
    assert parse(last_words("CMD")) == "serve"


@pytest.mark.parametrize("profile", PROFILES)
def test_compose_runs_that_command(profile: str) -> None:
    assert topfive(profile)["entrypoint"] is None
    assert parse(topfive(profile)["command"] or last_words("CMD")) == "serve"


def test_an_unknown_option_would_be_noticed() -> None:
    with pytest.raises(Exception, match="No such option"):
        parse(["serve", "--hosst", "0.0.0.0"])


def test_commands_in_comments_and_steps_exist() -> None:
    text = DOCKERFILE.read_text()
    commands = re.findall(r"(?:docker run topfive|RUN topfive) ([a-z][^`>\n]*)", text)
    assert len(commands) >= 2
    for command in commands:
        words = command.split()
        if "--help" in words:
            words.remove("--help")
        parse(words)


def test_variables_are_settings_and_the_port_is_exposed(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = {name: value for name, value in environment().items() if name.startswith("TOPFIVE_")}
    assert set(ours) <= {f"TOPFIVE_{name.upper()}" for name in Settings.model_fields}
    for name, value in ours.items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert settings.host == "0.0.0.0"
    assert last_words("EXPOSE") == [str(settings.port)]


def test_the_health_check_asks_for_liveness() -> None:
    assert answers_of_check(last_words("HEALTHCHECK"), "/healthz") == {"200": True, "503": False, "nobody": False}


@pytest.mark.parametrize("profile", PROFILES)
def test_compose_sets_only_build_arguments_of_the_dockerfile(profile: str) -> None:
    known = {instruction.words[0].partition("=")[0] for instruction in dockerfile() if instruction.name == "ARG"}
    assert set(topfive(profile)["build"].get("args", {})) <= known
    if profile == "gpu":
        assert "cpu" not in topfive(profile)["build"]["args"]["TORCH_INDEX"]
