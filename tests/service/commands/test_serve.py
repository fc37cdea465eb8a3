"""``topfive serve``: its options, and what it refuses before it starts anything."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from service.access.keys import add_key, revoke_key
from service.commands.main import app
from service.config.settings import Settings
from service.lifecycle import record as record_file

runner = CliRunner()


def test_a_taken_port_is_named_before_anything_starts() -> None:
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        port = stranger.getsockname()[1]
        result = runner.invoke(app, ["serve", "--port", str(port)])
    assert result.exit_code == 1
    assert f"port {port} is held by" in result.output
    assert f"(pid {os.getpid()})" in result.output


def one_line(arguments: list[str]) -> str:
    result = runner.invoke(app, arguments)
    assert result.exit_code == 1
    (line,) = result.output.strip().splitlines()
    return line


@pytest.fixture
def galactic(tmp_path: Path) -> Callable[[bool], list[str]]:
    """Arguments with a fleet, with or without Ray, that fits no machine: whatever is asked before passes, if this is
    said."""

    def arguments(ray: bool) -> list[str]:
        file = tmp_path / "galactic.toml"
        file.write_text(f'ray = {str(ray).lower()}\n[[deployment]]\nvariants = ["lenet5"]\nnum_gpus = 10000\n')
        return ["serve", "--fleet", str(file)]

    return arguments


TOO_LARGE = "the fleet needs 10000 GPUs"


@pytest.mark.parametrize("mode", ["disabled", "Disabled", "none", ""])
def test_nothing_is_served_where_ray_would_obey_anybody(
    mode: str, galactic: Callable[[bool], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", mode)
    assert f"RAY_AUTH_MODE={mode} would let anybody" in one_line(galactic(True))
    # Where there is no Ray, nobody obeys.
    assert TOO_LARGE in one_line(galactic(False))


@pytest.mark.parametrize("mode", ["token", "TOKEN"])
def test_rays_own_default_may_be_said(
    mode: str, galactic: Callable[[bool], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", mode)
    assert TOO_LARGE in one_line(galactic(True))


def test_too_few_open_files_are_said_before_anything_starts(
    galactic: Callable[[bool], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (100, 200))
    assert "limit on open files is too low" in one_line(galactic(True))
    # It is HAProxy that needs so many.
    assert TOO_LARGE in one_line(galactic(False))


def test_a_fleet_that_does_not_exist_is_one_line_with_those_that_do() -> None:
    assert "there is no fleet 'galactic'; shipped: cluster-cpu, local, solo" in one_line(
        ["serve", "--fleet", "galactic"]
    )


@pytest.mark.parametrize("command", [["serve"], ["status"]])
def test_a_folder_that_is_not_ours_is_one_line(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_file, "_LONGEST_BASE", 4096)
    monkeypatch.setattr(record_file.tempfile, "gettempdir", lambda: str(tmp_path))
    (tmp_path / f"topfive-{os.getuid()}").symlink_to(tmp_path)
    assert "is a link, which is not followed" in one_line(command)


def test_serve_help_lists_every_setting() -> None:
    text = runner.invoke(app, ["serve", "--help"], env={"COLUMNS": "250"}).output
    for name in Settings.model_fields:
        assert f"TOPFIVE_{name.upper()}" in text


def test_options_win_over_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[Settings] = []
    monkeypatch.setattr("service.lifecycle.supervisor.serve", lambda settings, _console: seen.append(settings))
    monkeypatch.setenv("TOPFIVE_PORT", "9001")
    monkeypatch.setenv("TOPFIVE_MAX_BATCH_SIZE", "4")
    assert runner.invoke(app, ["serve", "--port", "9002"]).exit_code == 0
    assert (seen[0].port, seen[0].max_batch_size) == (9002, 4)


def test_a_file_of_keys_that_cannot_be_used_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "keys.json"
    assert "topfive keys add NAME" in one_line(["serve", "--api-keys", str(file)])
    file.write_text("{")
    file.chmod(0o600)
    assert "is damaged" in one_line(["serve", "--api-keys", str(file)])
    file.chmod(0o644)
    monkeypatch.setenv("TOPFIVE_API_KEYS", str(file))
    assert "chmod 600" in one_line(["serve"])


def test_metrics_that_only_seem_to_ask_for_keys_are_not_served() -> None:
    assert "TOPFIVE_API_KEYS names no file" in one_line(["serve", "--metrics-key"])


def test_a_service_that_lets_nobody_in_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.lifecycle.supervisor.serve", lambda *_: None)
    file = tmp_path / "keys.json"
    add_key(file, "alice", "classify", None, None)
    assert runner.invoke(app, ["serve", "--api-keys", str(file)]).output == ""
    revoke_key(file, "alice")
    assert "nobody may come in yet" in runner.invoke(app, ["serve", "--api-keys", str(file)]).output


def test_the_variable_of_clients_is_told_from_that_of_services(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("service.lifecycle.supervisor.serve", lambda *_: None)
    monkeypatch.delenv("TOPFIVE_API_KEY", raising=False)
    assert runner.invoke(app, ["serve"]).output == ""
    monkeypatch.setenv("TOPFIVE_API_KEY", "topfive_x")
    output = runner.invoke(app, ["serve"]).output
    assert "TOPFIVE_API_KEYS names a file" in output
    assert "topfive_x" not in output
    file = tmp_path / "keys.json"
    add_key(file, "alice", "classify", None, None)
    assert runner.invoke(app, ["serve", "--api-keys", str(file)]).output == ""
