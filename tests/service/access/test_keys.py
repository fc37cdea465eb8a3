"""The file of keys: what is in it, who may read it, and what is wrong with a damaged one."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import threading
from pathlib import Path

import pytest

from service.access import keys as module
from service.access.keys import Key, KeysError, add_key, hash_of, new_key, read_keys, revoke_key

RATES = {"rate_requests": "20/second", "rate_device_s": 1.5}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def add(file: Path, name: str, role: str = "classify") -> str:
    return add_key(file, name, role, None, None)


def written(file: Path, content: object, mode: int = 0o600) -> Path:
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    file.chmod(mode)
    return file


def entry(name: str = "a", **fields: object) -> dict[str, object]:
    return {"name": name, "sha256": hashlib.sha256(name.encode()).hexdigest(), **fields}


def test_keys_are_added_listed_and_revoked(file: Path) -> None:
    first = add(file, "alice")
    second = add_key(file, "bob", "operate", "20/second", 1.5)
    assert [(k.name, k.role, k.rate_requests, k.rate_device_s) for k in read_keys(file)] == [
        ("alice", "classify", None, None),
        ("bob", "operate", "20/second", 1.5),
    ]
    assert [k.sha256 for k in read_keys(file)] == [hashlib.sha256(k.encode()).hexdigest() for k in (first, second)]
    assert all(k.created.endswith("+00:00") for k in read_keys(file))
    revoke_key(file, "alice")
    assert [k.name for k in read_keys(file)] == ["bob"]


def test_the_file_never_holds_a_key_and_is_its_users_alone(file: Path) -> None:
    file.parent.chmod(0o755)
    before = os.umask(0)
    try:
        key = add(file, "alice")
    finally:
        os.umask(before)
    for path in file.parent.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
        assert key not in path.read_text()
        assert key.removeprefix("topfive_") not in path.read_text()


def test_a_key_is_random_and_recognisable() -> None:
    found = {new_key() for _ in range(100)}
    assert len(found) == 100
    for key in found:
        assert key.startswith("topfive_")
        # 62 ** 43 > 2 ** 256
        assert len(key) == len("topfive_") + 43
        assert key.removeprefix("topfive_").isalnum()
        assert key.isascii()
    assert len({character for key in found for character in key.removeprefix("topfive_")}) == 62


def test_callers_of_keys_are_no_addresses() -> None:
    assert Key(name="192.0.2.7", sha256="0" * 64).caller == "key:192.0.2.7"


@pytest.mark.parametrize("name", ["", "a b", "-a", ".", "a/b", "ä", "a\n", "a" * 65, "(service)", "a\x1b[31m"])
def test_a_name_that_could_mislead_is_refused(file: Path, name: str) -> None:
    with pytest.raises(KeysError, match="no name of a key"):
        add(file, name)
    assert not file.exists()


@pytest.mark.parametrize(
    ("role", "rate", "device_s", "says"),
    [
        ("admin", None, None, "role = 'admin'.*'classify' or 'operate'"),
        ("classify", "lots", None, "rate_requests = 'lots'.*100/second"),
        ("classify", "0/second", None, "rate_requests"),
        ("classify", None, 0.0, "rate_device_s"),
        ("classify", None, float("inf"), "rate_device_s"),
        ("classify", None, float("nan"), "rate_device_s"),
    ],
)
def test_a_role_or_a_rate_that_is_none_is_refused(
    file: Path, role: str, rate: str | None, device_s: float | None, says: str
) -> None:
    with pytest.raises(KeysError, match=says):
        add_key(file, "alice", role, rate, device_s)
    assert not file.exists()


def test_a_name_is_given_once(file: Path) -> None:
    key = add(file, "alice")
    with pytest.raises(KeysError, match="topfive keys revoke alice"):
        add(file, "alice")
    assert [k.sha256 for k in read_keys(file)] == [hash_of(key)]


def test_only_a_key_that_is_there_can_be_revoked(file: Path) -> None:
    with pytest.raises(KeysError, match="there is no file of keys"):
        revoke_key(file, "alice")
    add(file, "alice")
    with pytest.raises(KeysError, match="no key bob; there are: alice"):
        revoke_key(file, "bob")


def test_a_missing_file_is_told_with_the_command_that_makes_it(file: Path) -> None:
    with pytest.raises(KeysError, match=f"topfive keys add NAME --file {file}"):
        read_keys(file)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "\x00\xff",
        "null",
        {"keys": {}},
        {"keys": [1]},
        {"keys": [{}]},
        {"version": 2, "keys": []},
        {"keys": [entry(sha256="short")]},
        {"keys": [entry(sha256="G" * 64)]},
        {"keys": [entry(role="admin")]},
        {"keys": [entry(secret="topfive_x")]},
        {"keys": [entry(name="a b")]},
        {"keys": [entry(rate_requests="lots")]},
        {"keys": [entry(rate_device_s=-1)]},
        {"keys": [entry(), entry()]},
        {"keys": [entry(), entry(name="a")]},
        {"keys": [entry("a", sha256="0" * 64), entry("b", sha256="0" * 64)]},
    ],
)
def test_a_damaged_file_is_refused_in_one_line(file: Path, content: object) -> None:
    with pytest.raises(KeysError) as raised:
        read_keys(written(file, content))
    text = str(raised.value)
    assert str(file) in text
    assert "damaged" in text
    assert "\n" not in text
    # A person may have written a key where it does not belong.
    assert "topfive_x" not in text
    before = file.read_bytes()
    with pytest.raises(KeysError):
        add(file, "bob")
    with pytest.raises(KeysError):
        revoke_key(file, "a")
    assert file.read_bytes() == before


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o666, 0o610])
def test_a_file_that_others_may_use_is_refused(file: Path, mode: int) -> None:
    add(file, "alice")
    file.chmod(mode)
    with pytest.raises(KeysError, match=f"mode {mode:04o}.*chmod 600"):
        read_keys(file)


@pytest.mark.parametrize(
    ("owner", "user", "mode", "good"),
    [
        (1000, 1000, 0o600, True),
        (1000, 1000, 0o400, True),
        (1000, 1001, 0o600, False),
        (1000, 0, 0o600, False),
        (0, 0, 0o640, False),
        # Kubernetes mounts a secret so.
        (0, 1000, 0o440, True),
        (0, 1000, 0o640, True),
        (0, 1000, 0o660, False),
        (0, 1000, 0o644, False),
    ],
)
def test_it_belongs_to_the_services_user_or_to_root(
    monkeypatch: pytest.MonkeyPatch, owner: int, user: int, mode: int, good: bool
) -> None:
    monkeypatch.setattr(module.os, "geteuid", lambda: user)
    status = os.stat_result((stat.S_IFREG | mode, 1, 1, 1, owner, 0, 10, 0, 0, 0))
    if good:
        module._check(Path("keys"), status)
    else:
        with pytest.raises(KeysError, match=r"another user|other users"):
            module._check(Path("keys"), status)


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(KeysError, match="is not a file"):
            read_keys(path)


def test_a_file_of_another_kind_is_not_read_whole(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LARGEST_BYTES", 1000)
    with pytest.raises(KeysError, match="too large"):
        read_keys(written(file, " " * 1000))


def test_a_folder_that_cannot_be_written_to_is_told(tmp_path: Path) -> None:
    with pytest.raises(KeysError, match="cannot be written"):
        add(tmp_path / "none" / "keys.json", "alice")


def test_a_link_stays_one(file: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    target = tmp_path / "there" / "keys.json"
    file.symlink_to(target)
    add(file, "alice")
    add(file, "bob")
    assert file.is_symlink()
    assert [k.name for k in read_keys(target)] == ["alice", "bob"]


def test_changes_at_the_same_time_are_all_made(file: Path) -> None:
    threads = [threading.Thread(target=add, args=(file, f"k{number}")) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {k.name for k in read_keys(file)} == {f"k{number}" for number in range(12)}


def test_a_write_that_fails_leaves_the_file_as_it_was(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(file, "alice")
    before = file.read_bytes()

    def full(*_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(KeysError, match="cannot be written: No space left"):
        add(file, "bob")
    assert file.read_bytes() == before
