"""The record of a service: claims, locks, and what a dead run leaves behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from service.lifecycle import record as record_file
from service.lifecycle.haproxy import STOPPING, STOPPING_LINE
from service.lifecycle.processes import RUN_ID, Run
from service.lifecycle.record import (
    AlreadyServingError,
    Claim,
    FolderError,
    Record,
    base,
    end_leftovers,
    is_stopping,
    note_ray_session,
    ray_folder,
    read_record,
    running,
)

SLEEP = [sys.executable, "-c", "import time; time.sleep(120)"]


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(record_file.tempfile, "gettempdir", lambda: str(tmp_path))
    # No socket is made here, whose path would be too long.
    monkeypatch.setattr(record_file, "_LONGEST_BASE", 4096)
    return tmp_path


@pytest.fixture
def orphans() -> Iterator[list[subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.kill()
        process.wait()


def abandon(port: int) -> Claim:
    """A claim whose holder was killed: the lock is free, the folder is still there."""
    claimed = Claim.take("127.0.0.1", port, "local")
    claimed._lock.close()
    return claimed


def test_a_port_is_claimed_once() -> None:
    first = Claim.take("127.0.0.1", 8000, "local")
    with pytest.raises(AlreadyServingError, match=f"pid {os.getpid()}.*port 8000"):
        Claim.take("127.0.0.1", 8000, "local")
    second = Claim.take("127.0.0.1", 8001, "cluster-cpu")
    assert {(record.port, record.fleet) for record in running()} == {(8000, "local"), (8001, "cluster-cpu")}
    first.release()
    assert not first.folder.exists()
    assert [record.port for record in running()] == [8001]
    Claim.take("127.0.0.1", 8000, "local").release()
    second.release()


def test_the_folder_is_its_owners_alone() -> None:
    claimed = Claim.take("127.0.0.1", 8000, "local")
    assert (claimed.folder.stat().st_mode & 0o077, claimed.folder.parent.stat().st_mode & 0o077) == (0, 0)
    claimed.release()


def test_stopping_is_a_mark_that_other_processes_see() -> None:
    claimed = Claim.take("127.0.0.1", 8000, "local")
    assert not is_stopping(claimed.folder)
    assert (claimed.folder / STOPPING).read_bytes() == b"", "HAProxy does not start without the file"
    claimed.mark_stopping()
    assert is_stopping(claimed.folder)
    assert (claimed.folder / STOPPING).read_text().splitlines() == [STOPPING_LINE], "HAProxy reads it too"
    claimed.release()
    assert not is_stopping(claimed.folder)


def test_leftovers_of_a_dead_run_are_ended_and_strangers_are_not(orphans: list[subprocess.Popen[bytes]]) -> None:
    dead = abandon(8000)
    living = Claim.take("127.0.0.1", 8001, "local")
    assert [record.port for record in running()] == [8001]
    for run_id in (dead.record.run_id, dead.record.run_id, living.record.run_id, "somebody-elses"):
        orphans.append(subprocess.Popen(SLEEP, env={**os.environ, RUN_ID: run_id}))
    assert end_leftovers() == 2
    assert [process.poll() is None for process in orphans] == [False, False, True, True]
    assert not dead.folder.exists()
    assert living.folder.exists()
    assert end_leftovers() == 0
    living.release()


def test_a_new_claim_cleans_up_by_itself(orphans: list[subprocess.Popen[bytes]]) -> None:
    dead = abandon(8000)
    orphans.append(subprocess.Popen(SLEEP, env={**os.environ, RUN_ID: dead.record.run_id}))
    claimed = Claim.take("127.0.0.1", 8000, "local")
    orphans[0].wait(10)
    assert claimed.record.run_id != dead.record.run_id
    claimed.release()


def test_a_damaged_record_is_no_obstacle() -> None:
    dead = abandon(8000)
    (dead.folder / "service.json").write_text("{half")
    claimed = Claim.take("127.0.0.1", 8000, "local")
    assert claimed.record.port == 8000
    claimed.release()


@pytest.mark.parametrize(
    "wrong",
    [
        {"pid": "1"},
        {"pid": 0},
        {"pid": -1},
        {"pid": 2**80},
        {"pid": None},
        {"pid": True},
        {"driver": "x"},
        {"driver": 0},
        {"run_id": 5},
        {"run_id": ""},
        {"run_id": "a=b"},
        {"port": "8000"},
        {"port": 70_000},
        {"host": None},
        {"started_at": "yesterday"},
    ],
    ids=str,
)
def test_a_record_of_wrong_values_is_no_record(wrong: dict[str, object]) -> None:
    """Neither a start nor whoever looks at the services ends with an error, and no stranger's process is ended."""
    dead = abandon(8000)
    file = dead.folder / "service.json"
    right = json.loads(file.read_text())
    assert read_record(dead.folder) == dead.record
    file.write_text(json.dumps(right | wrong))
    assert read_record(dead.folder) is None
    assert running() == []
    assert end_leftovers() == 0
    assert not dead.folder.exists()


@pytest.mark.parametrize("text", ["[]", "5", "null", "[" * 100_000, "\xff", '{"run_id": "a"}'])
def test_what_is_no_record_is_no_record(text: str) -> None:
    dead = abandon(8000)
    (dead.folder / "service.json").write_bytes(text.encode("latin-1"))
    assert read_record(dead.folder) is None
    assert end_leftovers() == 0


@pytest.fixture
def somebodys(tmp_path: Path) -> Path:
    """A folder that is not a service's, with two folders that are named like ports, and a file."""
    folder = tmp_path / "somebodys"
    for year in ("2023", "2024"):
        (folder / year).mkdir(parents=True)
        (folder / year / "photo.jpg").write_text("precious")
    (folder / "notes.txt").write_text("precious")
    return folder


def intact(folder: Path) -> bool:
    files = [folder / "2023" / "photo.jpg", folder / "2024" / "photo.jpg", folder / "notes.txt"]
    return all(file.read_text() == "precious" for file in files)


EVERYTHING: list[Callable[[], object]] = [
    end_leftovers,
    running,
    lambda: Claim.take("127.0.0.1", 2023, "local"),
]


@pytest.mark.parametrize("act", EVERYTHING)
def test_a_link_in_the_place_of_our_folder_is_refused(
    own_folder: Path, somebodys: Path, act: Callable[[], object]
) -> None:
    before = sorted(somebodys.iterdir()), somebodys.stat().st_mode
    (own_folder / f"topfive-{os.getuid()}").symlink_to(somebodys)
    with pytest.raises(FolderError, match="is a link"):
        act()
    assert intact(somebodys)
    assert (sorted(somebodys.iterdir()), somebodys.stat().st_mode) == before


@pytest.mark.parametrize("kind", ["dangling", "file", "pipe"])
def test_whatever_else_is_in_the_place_of_our_folder_is_refused(own_folder: Path, kind: str) -> None:
    place = own_folder / f"topfive-{os.getuid()}"
    match kind:
        case "dangling":
            place.symlink_to(own_folder / "nowhere")
        case "file":
            place.write_text("")
        case "pipe":
            os.mkfifo(place)
    with pytest.raises(FolderError, match=r"is a link|is not a folder"):
        base()
    assert not (own_folder / "nowhere").exists()


def test_a_folder_of_somebody_elses_is_refused(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uid = os.getuid()
    (own_folder / f"topfive-{uid + 1}").mkdir()
    monkeypatch.setattr(os, "getuid", lambda: uid + 1)
    with pytest.raises(FolderError, match=f"belongs to somebody else .user {uid}."):
        base()


@pytest.mark.parametrize("mode", [0o777, 0o750, 0o701])
def test_a_folder_of_ours_that_is_open_to_others_is_closed(own_folder: Path, mode: int) -> None:
    place = own_folder / f"topfive-{os.getuid()}"
    place.mkdir()
    place.chmod(mode)
    assert base() == place
    assert place.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("with_lock", [True, False])
def test_links_and_strange_folders_below_are_not_followed_or_removed(
    somebodys: Path, with_lock: bool, orphans: list[subprocess.Popen[bytes]]
) -> None:
    """A record behind a link is not believed either: it would name processes to end."""
    here = base()
    orphans.append(subprocess.Popen(SLEEP, env={**os.environ, RUN_ID: "somebodys-run"}))
    record = Record("somebodys-run", 1, None, "127.0.0.1", 2023, "local", 0.0)
    (somebodys / "2023" / "service.json").write_text(json.dumps(asdict(record)))
    for name in ("2023", "2024"):
        (here / name).symlink_to(somebodys / name)
        if with_lock:
            (here / f"{name}.lock").touch()
    kept = ["70000", "0", "\u0668\u0660", "notes"] + ([] if with_lock else ["8000"])
    for name in kept:
        (here / name).mkdir()
        (here / name / "file").touch()
    assert end_leftovers() == 0
    assert running() == []
    with pytest.raises(FolderError, match="in the way"):
        Claim.take("127.0.0.1", 2023, "local")
    assert orphans[0].poll() is None
    assert intact(somebodys)
    assert [name for name in kept if not (here / name / "file").exists()] == []


def test_links_within_a_folder_of_ours_are_removed_and_not_followed(somebodys: Path) -> None:
    dead = abandon(8000)
    (dead.folder / "link").symlink_to(somebodys)
    (dead.folder / "node").mkdir()
    (dead.folder / "node" / "link").symlink_to(somebodys / "2023")
    (dead.folder / "node" / "file").symlink_to(somebodys / "notes.txt")
    end_leftovers()
    assert not dead.folder.exists()
    assert intact(somebodys)


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_lock_or_record_that_is_a_link_is_not_written_or_read(
    somebodys: Path, link: Callable[[Path, Path], None]
) -> None:
    link(somebodys / "notes.txt", base() / "8000.lock")
    with pytest.raises(FolderError, match=r"8000\.lock cannot be opened"):
        Claim.take("127.0.0.1", 8000, "local")
    assert intact(somebodys)
    other, ours = Claim.take("127.0.0.1", 8001, "local"), Claim.take("127.0.0.1", 8002, "local")
    (ours.folder / "service.json").unlink()
    link(other.folder / "service.json", ours.folder / "service.json")
    assert read_record(ours.folder) is None
    other.release()
    ours.release()


def test_a_pipe_in_the_place_of_a_lock_holds_nobody_up() -> None:
    os.mkfifo(base() / "8000.lock")
    with pytest.raises(FolderError, match=r"8000\.lock cannot be opened"):
        Claim.take("127.0.0.1", 8000, "local")


def test_what_a_living_service_needs_is_marked_as_used(own_folder: Path) -> None:
    """That is everything that a cleaner of /tmp would remove, and nothing behind a link."""
    claimed = Claim.take("127.0.0.1", 8000, "local")
    session, outside = own_folder / "ray" / "session_1", own_folder / "outside"
    (session / "sockets").mkdir(parents=True)
    (session / "sockets" / "file").touch()
    outside.touch()
    (claimed.folder / "node").mkdir()
    (claimed.folder / "node" / "haproxy.cfg").touch()
    (claimed.folder / "link").symlink_to(outside)
    note_ray_session(claimed.folder, session)
    needed = [base(), base() / "8000.lock", claimed.folder, *claimed.folder.rglob("*"), session, *session.rglob("*")]
    for path in (*needed, outside):
        os.utime(path, (0, 0), follow_symlinks=False)
    claimed.touch()
    assert [path for path in needed if path.lstat().st_mtime == 0 or path.lstat().st_atime == 0] == []
    assert outside.stat().st_mtime == 0
    claimed.release()
    claimed.touch()  # no error, although the folder is gone


def test_a_long_temporary_folder_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """The paths of sockets below it have at most 107 bytes. This test makes no folder."""
    monkeypatch.setattr(record_file, "_LONGEST_BASE", 30)
    monkeypatch.setattr(record_file.os, "getuid", lambda: 1)
    made: list[Path] = []
    monkeypatch.setattr(Path, "mkdir", lambda self, **_: made.append(self))
    for folder in ("/" + "x" * 19, "/" + "x" * 20):  # with /topfive-1: 30 and 31 bytes
        monkeypatch.setattr(record_file.tempfile, "gettempdir", lambda folder=folder: folder)
        with pytest.raises(FolderError):
            base()
    assert made == [Path("/" + "x" * 19 + "/topfive-1"), Path("/tmp/topfive-1")]


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, "/tmp/ray"),
        ({"TMPDIR": "/scratch"}, "/scratch/ray"),
        ({"TMPDIR": "/scratch", "RAY_TMPDIR": "/fast"}, "/fast/ray"),
        ({"TMPDIR": "/" + "x" * 38}, "/" + "x" * 38 + "/ray"),
        ({"TMPDIR": "/" + "x" * 39}, "/tmp/ray"),
    ],
)
def test_ray_has_its_folder_where_it_would_itself_if_that_is_short(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str
) -> None:
    for name in ("TMPDIR", "RAY_TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert ray_folder() == Path(expected)


def test_a_write_that_fails_midway_leaves_the_old_record(monkeypatch: pytest.MonkeyPatch) -> None:
    claimed = Claim.take("127.0.0.1", 8000, "local")

    def full_disk(path: Path, _text: str) -> None:
        path.write_bytes(b'{"run_id": "ha')
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", full_disk)
        with pytest.raises(OSError, match="No space left"):
            claimed.set_driver(4711)
    found = read_record(claimed.folder)
    assert found is not None
    assert (found.run_id, found.driver) == (claimed.record.run_id, None)
    claimed.set_driver(4711)
    assert read_record(claimed.folder) == claimed.record
    claimed.release()


def test_folders_and_files_of_another_user_are_neither_read_nor_removed(
    orphans: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """This user's own, seen by somebody with another id."""
    dead = abandon(8000)
    orphans.append(subprocess.Popen(SLEEP, env={**os.environ, RUN_ID: dead.record.run_id}))
    here, uid = base(), os.getuid()
    monkeypatch.setattr(record_file, "base", lambda: here)
    monkeypatch.setattr(os, "getuid", lambda: uid + 1)
    assert read_record(dead.folder) is None
    assert running() == []
    assert end_leftovers() == 0
    with pytest.raises(FolderError, match=r"8000\.lock cannot be opened"):
        Claim.take("127.0.0.1", 8000, "local")
    dead.release()
    assert dead.folder.exists()
    assert orphans[0].poll() is None


def test_a_claim_waits_for_another_start_that_cleans_up() -> None:
    """That one holds the lock, and the record still names a process that has died."""
    dead = Claim.take("127.0.0.1", 8000, "local")
    record = replace(dead.record, pid=2**22 + 1)
    (dead.folder / "service.json").write_text(json.dumps(asdict(record)))
    cleaning = threading.Timer(0.3, dead._lock.close)
    cleaning.start()
    claimed = Claim.take("127.0.0.1", 8000, "local")
    cleaning.join()
    assert claimed.record.run_id != dead.record.run_id
    claimed.release()


def test_a_claim_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_file, "_CLEARED_WITHIN_S", 0.2)
    first = Claim.take("127.0.0.1", 8000, "local")
    (first.folder / "service.json").unlink()
    with pytest.raises(AlreadyServingError, match="a TopFive service is on port 8000"):
        Claim.take("127.0.0.1", 8000, "local")
    first.release()


def test_the_record_says_where_the_service_answers_and_what_runs_it() -> None:
    claimed = Claim.take("0.0.0.0", 8000, "local")
    claimed.set_driver(4711)
    (found,) = running()
    assert found.url == "http://127.0.0.1:8000"
    assert found.run == Run(claimed.record.run_id, 4711)
    assert found.pid == os.getpid()
    claimed.release()


def test_a_mark_on_a_folder_that_is_gone_is_no_error() -> None:
    claimed = Claim.take("127.0.0.1", 8000, "local")
    claimed.release()
    claimed.mark_stopping()
    assert not claimed.folder.exists()


def test_a_folder_whose_lock_is_a_link_is_not_a_services(somebodys: Path) -> None:
    dead = abandon(8000)
    Path(dead._lock.name).unlink()
    Path(dead._lock.name).symlink_to(somebodys / "notes.txt")
    assert end_leftovers() == 0
    assert running() == []
    assert dead.folder.exists()
    assert intact(somebodys)
