"""The keys that a running process accepts follow the file, and survive slips in it."""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.access.keyring import Keyring
from service.access.keys import KeysError, add_key, revoke_key

NEVER = 3600.0


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


@pytest.fixture
def ring(file: Path) -> Iterator[Callable[..., Keyring]]:
    """Makes keyrings that look only when a test says so."""
    made: list[Keyring] = []

    def make(own: str | None = None, look_every_s: float = NEVER) -> Keyring:
        made.append(Keyring(file, own, look_every_s))
        return made[-1]

    yield make
    for keyring in made:
        keyring.close()


def add(file: Path, name: str) -> bytes:
    return add_key(file, name, "classify", None, None).encode()


def test_only_whole_keys_are_found(file: Path, ring: Callable[..., Keyring]) -> None:
    alice, bob = add(file, "alice"), add(file, "bob")
    keyring = ring()
    assert [key.name for key in (keyring.find(alice), keyring.find(bob)) if key is not None] == ["alice", "bob"]
    for wrong in (b"", alice[:-1], alice + b"x", alice.upper(), alice + b" ", b"\xff\x00", bytes.fromhex("00" * 32)):
        assert keyring.find(wrong) is None
    # What the file holds is no key.
    hashes = [key.sha256.encode() for key in (keyring.find(alice), keyring.find(bob)) if key is not None]
    assert [keyring.find(found) for found in hashes] == [None, None]


def test_keys_are_found_by_their_callers(file: Path, ring: Callable[..., Keyring]) -> None:
    alice = add(file, "alice")
    keyring = ring()
    assert keyring.key_of("key:alice") == keyring.find(alice)
    assert keyring.key_of("alice") is None
    assert keyring.key_of("127.0.0.1") is None


def test_a_look_takes_over_what_has_changed(file: Path, ring: Callable[..., Keyring]) -> None:
    alice = add(file, "alice")
    keyring = ring()
    bob = add(file, "bob")
    assert keyring.find(bob) is None
    keyring.look()
    assert keyring.find(bob) is not None
    revoke_key(file, "alice")
    keyring.look()
    assert keyring.find(alice) is None
    assert keyring.key_of("key:alice") is None
    assert keyring.find(bob) is not None


def test_a_thread_looks_by_itself(file: Path, ring: Callable[..., Keyring]) -> None:
    alice = add(file, "alice")
    keyring = ring(look_every_s=0.005)
    revoke_key(file, "alice")
    give_up = time.monotonic() + 20
    while keyring.find(alice) is not None:
        assert time.monotonic() < give_up
        time.sleep(0.005)


def test_the_file_is_read_only_if_it_has_changed(
    file: Path, ring: Callable[..., Keyring], monkeypatch: pytest.MonkeyPatch
) -> None:
    from service.access import keyring as module

    add(file, "alice")
    keyring = ring()
    read: list[Path] = []
    monkeypatch.setattr(module, "read_keys", lambda path: read.append(path) or [])
    keyring.look()
    keyring.look()
    assert read == []
    file.touch()
    keyring.look()
    assert read == [file]


@pytest.mark.parametrize("harm", ["damaged", "removed", "opened to others", "a folder"])
def test_a_file_that_cannot_be_used_any_more_keeps_the_last_keys(
    file: Path, ring: Callable[..., Keyring], caplog: pytest.LogCaptureFixture, harm: str
) -> None:
    alice = add(file, "alice")
    keyring = ring()
    content = file.read_text()
    if harm == "opened to others":
        file.chmod(0o644)
    else:
        file.unlink()
    if harm == "damaged":
        file.write_text(content[:-20])
        file.chmod(0o600)
    elif harm == "a folder":
        file.mkdir(mode=0o700)
    with caplog.at_level(logging.ERROR):
        keyring.look()
        keyring.look()
    # It is logged once, not every second.
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "the keys that were read before stay" in caplog.text
    assert keyring.find(alice) is not None
    if file.is_dir():
        file.rmdir()
    file.unlink(missing_ok=True)
    bob = add(file, "bob")
    keyring.look()
    assert keyring.find(alice) is None
    assert keyring.find(bob) is not None


def test_without_any_keys_nobody_is_told_that_a_key_is_wrong(
    file: Path, ring: Callable[..., Keyring], caplog: pytest.LogCaptureFixture
) -> None:
    keyring = ring(own="secret")
    assert "no key is accepted" in caplog.text
    with pytest.raises(KeysError):
        keyring.find(b"topfive_x")
    assert keyring.find(b"secret") is not None
    alice = add(file, "alice")
    keyring.look()
    assert keyring.find(alice) is not None


def test_a_file_without_keys_lets_nobody_in(file: Path, ring: Callable[..., Keyring]) -> None:
    add(file, "alice")
    revoke_key(file, "alice")
    assert ring().find(b"topfive_x") is None


def test_the_services_own_key_may_only_look(file: Path, ring: Callable[..., Keyring]) -> None:
    add(file, "alice")
    own = ring(own="secret").find(b"secret")
    assert own is not None
    assert own.role == "classify"
    assert ring().find(b"secret") is None


def test_keys_are_in_no_log_and_no_text(
    file: Path, ring: Callable[..., Keyring], caplog: pytest.LogCaptureFixture
) -> None:
    alice = add(file, "alice").decode()
    with caplog.at_level(logging.DEBUG):
        keyring = ring()
        file.write_text(file.read_text().replace('"alice"', f'"{alice}!"'))
        keyring.look()
    assert "damaged" in caplog.text
    assert alice not in caplog.text
    assert alice not in repr(keyring.find(alice.encode()))


def test_the_thread_ends_with_the_keyring(file: Path) -> None:
    add(file, "alice")

    def watching() -> int:
        return sum(thread.name == "keys" and thread.is_alive() for thread in threading.enumerate())

    before = watching()
    keyring = Keyring(file, look_every_s=0.005)
    assert watching() == before + 1
    del keyring
    gc.collect()
    give_up = time.monotonic() + 20
    while watching() > before:
        assert time.monotonic() < give_up
        time.sleep(0.005)
