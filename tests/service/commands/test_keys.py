"""``topfive keys``: makes, lists and revokes keys."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from service.access.keys import hash_of, read_keys
from service.commands.main import app

runner = CliRunner()


def keys(*words: str) -> Result:
    return runner.invoke(app, ["keys", *words])


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TOPFIVE_API_KEYS", str(tmp_path / "keys.json"))
    return tmp_path / "keys.json"


def test_a_key_is_shown_once_and_alone_on_standard_output(file: Path) -> None:
    made = keys("add", "alice", "--role", "operate", "--rate-requests", "20/second", "--rate-device-s", "1.5")
    assert made.exit_code == 0, made.output
    key = made.stdout.removesuffix("\n")
    assert key.startswith("topfive_")
    assert key.split() == [key]
    assert key not in made.stderr
    assert "alice (operate)" in made.stderr
    (found,) = read_keys(file)
    assert (found.name, found.role, found.sha256) == ("alice", "operate", hash_of(key))
    assert (found.rate_requests, found.rate_device_s) == ("20/second", 1.5)
    for listing in (keys("list"), keys("list", "--json")):
        assert listing.exit_code == 0
        assert key not in listing.output
        assert hash_of(key) not in listing.output


def test_keys_are_listed_and_revoked(file: Path) -> None:
    for name in ("alice", "bob"):
        assert keys("add", name).exit_code == 0
    lines = keys("list").stdout.splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [["alice", "classify"], ["bob", "classify"]]
    assert keys("revoke", "alice").exit_code == 0
    listed = json.loads(keys("list", "--json").stdout)["keys"]
    assert [(row["name"], row["role"], row["rate_requests"]) for row in listed] == [("bob", "classify", None)]


def test_an_option_names_another_file(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    assert keys("add", "carol", "--file", str(other)).exit_code == 0
    assert not file.exists()
    assert [key.name for key in read_keys(other)] == ["carol"]
    assert "carol" in keys("list", "--file", str(other)).stdout
    assert keys("revoke", "carol", "--file", str(other)).exit_code == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["add", "a b"], "no name of a key"),
        (["add", "alice", "--role", "admin"], "'classify' or 'operate'"),
        (["add", "alice", "--rate-requests", "lots"], "100/second"),
        (["revoke", "alice"], "there is no file of keys"),
        (["list"], "topfive keys add NAME --file"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(file: Path, words: list[str], says: str) -> None:
    result = keys(*words)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert says in result.stderr
    assert result.stderr.count("\n") == 1
    assert not file.exists()


def test_a_name_is_given_once(file: Path) -> None:
    assert keys("add", "alice").exit_code == 0
    again = keys("add", "alice")
    assert again.exit_code == 1
    assert "topfive keys revoke alice" in again.stderr


def test_without_a_file_it_says_how_to_name_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOPFIVE_API_KEYS", raising=False)
    for words in (["add", "alice"], ["list"], ["revoke", "alice"]):
        result = keys(*words)
        assert result.exit_code == 2
        assert "TOPFIVE_API_KEYS" in result.stderr
