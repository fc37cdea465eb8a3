"""A file is written whole or not at all, whatever fails on the way."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from models.files import atomic_write


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A file that is there already, alone in its folder."""
    path = tmp_path / "folder" / "target.bin"
    path.parent.mkdir()
    path.write_bytes(b"older")
    return path


def beside(target: Path) -> list[str]:
    return sorted(path.name for path in target.parent.iterdir())


def test_the_new_file_replaces_the_older_one_only_when_the_block_ends(target: Path) -> None:
    with atomic_write(target) as part:
        assert part.parent == target.parent
        assert part.read_bytes() == b""
        part.write_bytes(b"new")
        assert target.read_bytes() == b"older"
    assert target.read_bytes() == b"new"
    assert beside(target) == [target.name]


def test_a_file_is_written_where_there_was_none(target: Path) -> None:
    fresh = target.with_name("fresh.bin")
    with atomic_write(fresh) as part:
        part.write_bytes(b"new")
        assert not fresh.exists()
    assert fresh.read_bytes() == b"new"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("wrong"), KeyboardInterrupt()])
def test_a_failure_in_the_middle_of_the_write_leaves_the_older_file_and_nothing_else(
    target: Path, error: BaseException
) -> None:
    def fail() -> None:
        with atomic_write(target) as part:
            part.write_bytes(b"half of")
            raise error

    with pytest.raises(type(error)) as caught:
        fail()
    assert caught.value is error
    assert target.read_bytes() == b"older"
    assert beside(target) == [target.name]


def test_a_writer_that_removes_the_temporary_file_fails_and_leaves_the_older_one(target: Path) -> None:
    def vanish() -> None:
        with atomic_write(target) as part:
            part.unlink()

    with pytest.raises(FileNotFoundError):
        vanish()
    assert target.read_bytes() == b"older"
    assert beside(target) == [target.name]


def test_a_folder_in_the_place_of_the_file_is_an_error_and_stays(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"), atomic_write(tmp_path / "folder") as part:
        part.write_bytes(b"new")
    assert [path.name for path in tmp_path.rglob("*")] == ["folder"]


def test_a_missing_folder_is_an_error_and_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "missing" / "file"):
        pytest.fail("there is nothing to write to")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_others_may_read_a_file_unless_the_caller_says_otherwise(target: Path, mask: int) -> None:
    """Whatever the process' mask says: a service that another user reads from may run under any."""
    before = os.umask(mask)
    try:
        with atomic_write(target):
            pass
        assert stat.S_IMODE(target.stat().st_mode) == 0o644
        with atomic_write(target, mode=0o600):
            pass
        assert stat.S_IMODE(target.stat().st_mode) == 0o600
    finally:
        os.umask(before)


def test_nobody_else_can_read_the_file_while_it_is_written(target: Path) -> None:
    with atomic_write(target) as part:
        assert stat.S_IMODE(part.stat().st_mode) == 0o600


def test_writers_at_the_same_time_have_files_of_their_own_and_the_last_one_stays(target: Path) -> None:
    with atomic_write(target) as first, atomic_write(target) as second:
        assert first != second
        first.write_bytes(b"first")
        second.write_bytes(b"second")
    assert target.read_bytes() == b"first"
    assert beside(target) == [target.name]


def test_a_reader_never_sees_a_part(target: Path) -> None:
    contents = [bytes([i]) * 100_000 for i in range(40)]

    def write(content: bytes) -> None:
        with atomic_write(target) as part:
            part.write_bytes(content)

    with ThreadPoolExecutor(4) as threads:
        done = [threads.submit(write, content) for content in contents]
        while not all(one.done() for one in done):
            assert target.read_bytes() in (b"older", *contents)
    assert target.read_bytes() in contents
    assert beside(target) == [target.name]


def test_a_durable_file_is_on_the_disk_before_it_is_renamed(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[tuple[int, bytes]] = []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append((os.fstat(file).st_ino, target.read_bytes())))
    with atomic_write(target) as part:
        part.write_bytes(b"new")
    assert synced == []
    with atomic_write(target, durable=True) as part:
        part.write_bytes(b"newer")
        inode = part.stat().st_ino
        assert synced == []
    assert synced == [(inode, b"new")]
    assert target.stat().st_ino == inode


def test_a_disk_that_cannot_keep_the_file_leaves_the_older_one(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_file: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output error"), atomic_write(target, durable=True) as part:
        part.write_bytes(b"new")
    assert target.read_bytes() == b"older"
    assert beside(target) == [target.name]


def test_a_killed_writer_leaves_the_older_file_and_a_hidden_part(target: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from models.files import atomic_write\n"
        "with atomic_write(Path(sys.argv[1])) as part:\n"
        "    part.write_bytes(b'half of')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(target)], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert target.read_bytes() == b"older"
    (left,) = (name for name in beside(target) if name != target.name)
    assert left.startswith(f".{target.name}.")
    assert left.endswith(".part")


def test_nothing_stays_open(target: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        with atomic_write(target, durable=True):
            pass
    assert len(list(Path("/proc/self/fd").iterdir())) == before
