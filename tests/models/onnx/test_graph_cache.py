"""Graphs on disk are exported once, by one process, for exactly the weights that they have."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from models.checkpoints.catalogue import Catalogue, Checkpoint, WeightsMissingError, WrongWeightsError
from models.onnx import graph_cache
from models.onnx.graph_cache import (
    Damaged,
    ExportError,
    KilledError,
    cached_graph,
    clear_unused_graphs,
    export_apart,
    graph_path,
)

LENET = Catalogue().find("lenet5@mnist")


@pytest.fixture(autouse=True)
def no_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test is a separate run, with its own temporary folder."""
    monkeypatch.setattr(graph_cache, "_own_folders", [])
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.delenv("TOPFIVE_RUN_ID", raising=False)


def imported(cache: Path, data: bytes) -> Checkpoint:
    """A LeNet-5 with this content, in a cache of the test."""
    path = Catalogue(cache).path_for(LENET.variant, "mnist")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return replace(LENET, path=path)


def test_replicas_that_start_together_export_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    def export(_checkpoint: Checkpoint, _cache: Path, path: Path) -> None:
        started.append(path)
        time.sleep(0.1)
        path.write_bytes(b"a graph")

    monkeypatch.setattr(graph_cache, "export_apart", export)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: cached_graph(LENET, tmp_path), range(8)))
    assert len(started) == 1
    assert set(found) == {graph_path(LENET, tmp_path)}


def test_other_weights_cards_and_code_have_other_graphs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert LENET.path is not None
    data = LENET.path.read_bytes()
    same = imported(tmp_path, data)
    paths = {graph_path(LENET, tmp_path), graph_path(same, tmp_path)}
    assert len(paths) == 1
    other = imported(tmp_path, data[:-1] + bytes([data[-1] ^ 1]))
    paths.add(graph_path(other, tmp_path))
    paths.add(graph_path(replace(LENET, network={"lrn": {"size": 5}}), tmp_path))
    untrained = Catalogue(untrained=True)
    paths |= {graph_path(untrained.find(name), tmp_path) for name in ("lenet5", "vgg11", "vgg11_lrn")}
    monkeypatch.setattr(graph_cache, "_code", lambda: "tomorrow's")
    paths.add(graph_path(LENET, tmp_path))
    assert len(paths) == 7


def test_old_unused_graphs_are_removed_when_a_new_one_is_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph_cache, "export_apart", lambda _checkpoint, _cache, path: path.write_bytes(b"new"))
    folder = tmp_path / "graphs"
    folder.mkdir()
    for name, hours in (("lenet5@mnist-old", 48), ("lenet5@mnist-new", 1), ("lenet5@cifar10-old", 48)):
        path = folder / f"{name}.onnx"
        path.write_bytes(b"old")
        os.utime(path, (time.time() - 3600 * hours,) * 2)
    cached_graph(LENET, tmp_path)
    left = {path.name for path in folder.glob("*.onnx")}
    assert left == {"lenet5@mnist-new.onnx", "lenet5@cifar10-old.onnx", graph_path(LENET, tmp_path).name}


def test_a_graph_that_is_used_counts_as_new(tmp_path: Path) -> None:
    """Its time tells when it was last loaded, so that another version's export does not remove it."""
    path = graph_path(LENET, tmp_path)
    path.parent.mkdir()
    path.write_bytes(b"a graph")
    os.utime(path, (1_000_000_000, 1_000_000_000))
    before = time.time()
    assert cached_graph(LENET, tmp_path) == path
    assert path.stat().st_mtime >= before - 5


def test_a_folder_of_another_user_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody may make a folder of that name in the temporary one."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(graph_cache, "export_apart", full)
    somebody = os.getuid() + 1
    monkeypatch.setattr(os, "getuid", lambda: somebody)
    with pytest.raises(OSError, match="No space left"):
        cached_graph(LENET, tmp_path)
    assert graph_cache._own_folders == []


def test_missing_weights_are_reported(tmp_path: Path) -> None:
    for gone in (Catalogue(tmp_path).find("vgg16"), replace(LENET, path=tmp_path / "gone.safetensors")):
        with pytest.raises(WeightsMissingError):
            cached_graph(gone, tmp_path)


def test_an_export_that_fails_for_another_reason_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="exporting lenet5@mnist failed"):
        cached_graph(LENET, tmp_path)


def test_a_cache_that_cannot_be_written_to_does_not_prevent_serving(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph_cache, "export_apart", lambda _checkpoint, _cache, path: path.write_bytes(b"a graph"))
    (tmp_path / "graphs").write_text("a file where the folder should be")
    # No folder can be made below a file.
    found = cached_graph(LENET, tmp_path / "graphs")
    assert found.read_bytes() == b"a graph"
    assert found.parent.parent == tmp_path / "temporary"


def test_weights_that_are_replaced_while_they_are_exported_leave_no_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert LENET.path is not None
    data = LENET.path.read_bytes()
    checkpoint = imported(tmp_path, data)

    def export(_checkpoint: Checkpoint, _cache: Path, path: Path) -> None:
        imported(tmp_path, data[:-1] + bytes([data[-1] ^ 1]))
        path.write_bytes(b"of which weights?")

    monkeypatch.setattr(graph_cache, "export_apart", export)
    with pytest.raises(RuntimeError, match="were replaced while they were exported"):
        cached_graph(checkpoint, tmp_path)
    assert not list(tmp_path.glob("graphs/*.onnx"))


def test_leftovers_of_a_killed_export_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_cache, "export_apart", lambda _checkpoint, _cache, path: path.write_bytes(b"new"))
    left = tmp_path / "graphs" / ".lenet5@mnist-0123456789abcdef.onnx.k1.part"
    left.parent.mkdir()
    left.write_bytes(b"half")
    cached_graph(LENET, tmp_path)
    assert not left.exists()


def test_a_graph_in_a_cache_that_is_read_only_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = graph_path(LENET, tmp_path)
    path.parent.mkdir()
    path.write_bytes(b"a graph")
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert cached_graph(LENET, tmp_path) == path


def test_an_export_that_takes_too_long_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_cache, "_EXPORT_WITHIN_S", 0.01)
    with pytest.raises(RuntimeError, match="took more than 0 s"):
        cached_graph(LENET, tmp_path)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES])
def test_graphs_go_to_a_folder_of_this_run_if_the_cache_fails_with_one_log_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    tried = []

    def export(_checkpoint: Checkpoint, _cache: Path, path: Path) -> None:
        tried.append(path.parent)
        if path.parent == tmp_path / "graphs":
            raise OSError(number, os.strerror(number))
        path.write_bytes(b"a graph")

    monkeypatch.setattr(graph_cache, "export_apart", export)
    googlenet = Catalogue().find("googlenet@cifar10")
    found = [cached_graph(checkpoint, tmp_path) for checkpoint in (LENET, googlenet, LENET)]
    own = found[0].parent
    assert own.parent == tmp_path / "temporary"
    assert [path.parent for path in found] == [own] * 3
    # The cache is tried once, not once for each network.
    assert tried == [tmp_path / "graphs", own, own]
    (record,) = caplog.records
    assert os.strerror(number) in record.getMessage()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM, errno.EAGAIN])
def test_an_error_that_another_folder_would_not_mend_is_raised_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    tried = []

    def export(_checkpoint: Checkpoint, _cache: Path, path: Path) -> None:
        tried.append(path)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(graph_cache, "export_apart", export)
    with pytest.raises(OSError, match=os.strerror(number)):
        cached_graph(LENET, tmp_path)
    assert len(tried) == 1


def test_if_no_folder_works_the_first_error_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def export(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(graph_cache, "export_apart", export)
    with pytest.raises(OSError, match="No space left"):
        cached_graph(LENET, tmp_path)
    monkeypatch.setattr(graph_cache, "_own_folders", [])
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(OSError, match="No space left"):
        cached_graph(LENET, tmp_path)


def test_unreadable_weights_do_not_lead_to_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(graph_cache, "graph_path", denied)
    with pytest.raises(PermissionError):
        cached_graph(LENET, tmp_path)
    assert not graph_cache._own_folders


def test_the_processes_of_a_service_share_a_folder_and_it_goes_with_the_last(tmp_path: Path) -> None:
    code = (
        "import sys, tempfile; from pathlib import Path; from models.onnx import graph_cache;"
        "tempfile.tempdir = sys.argv[1];"
        "graph_cache._make_own_folder(Path('cache'), OSError(28, 'full'));"
        "(graph_cache._own_folders[0] / 'graph').touch(); print(graph_cache._own_folders[0], flush=True);"
        "sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "temporary")]
    environment = {**os.environ, "TOPFIVE_RUN_ID": "a-run"}
    with (
        subprocess.Popen(command, stdin=-1, stdout=-1, stderr=-3, text=True, env=environment) as first,
        subprocess.Popen(command, stdin=-1, stdout=-1, stderr=-3, text=True, env=environment) as second,
    ):
        assert first.stdout is not None
        assert second.stdout is not None
        folder = Path(first.stdout.readline().strip())
        assert Path(second.stdout.readline().strip()) == folder
        assert folder.stat().st_mode & 0o777 == 0o700
        for process in (first, second):
            # Ray ends replicas by a signal too, without letting Python clean up.
            assert clear_unused_graphs() == 0
            assert (folder / "graph").exists()
            process.send_signal(signal.SIGKILL)
            process.wait(30)
    assert clear_unused_graphs() == 1
    assert not folder.exists()


def test_only_graph_folders_of_this_user_are_removed(tmp_path: Path) -> None:
    temporary, precious = tmp_path / "temporary", tmp_path / "precious"
    precious.mkdir()
    (precious / "file").touch()
    (temporary / "topfive-graphs-link").symlink_to(precious)
    (temporary / "topfive-graphs-file").touch()
    (temporary / "something-else").mkdir()
    (temporary / "topfive-graphs-0-old").mkdir()
    assert clear_unused_graphs() == 1
    assert (precious / "file").exists()
    assert {path.name for path in temporary.iterdir()} == {
        "topfive-graphs-link",
        "topfive-graphs-file",
        "something-else",
    }


def test_a_process_outside_a_service_leaves_nothing_behind(tmp_path: Path) -> None:
    code = (
        "import sys, tempfile; from pathlib import Path; from models.onnx import graph_cache;"
        "tempfile.tempdir = sys.argv[1]; graph_cache._make_own_folder(Path('cache'), OSError(28, 'full'));"
        "assert graph_cache._own_folders[0].is_dir()"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "temporary")], check=True, capture_output=True)
    assert not list((tmp_path / "temporary").iterdir())


def test_a_damaged_graph_is_replaced_whole_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exported = []

    def export(_checkpoint: Checkpoint, _cache: Path, path: Path) -> None:
        # The damaged graph stays until there is a new one.
        assert not exported
        assert path.exists()
        exported.append(path)
        part = path.with_suffix(".part")
        part.write_bytes(b"new")
        part.replace(path)

    path = graph_path(LENET, tmp_path)
    path.parent.mkdir()
    path.write_bytes(b"damaged")
    found = Damaged.at(path)
    monkeypatch.setattr(graph_cache, "export_apart", export)
    assert cached_graph(LENET, tmp_path) == path
    assert not exported
    for _ in range(2):  # as two replicas that found the same
        assert cached_graph(LENET, tmp_path, damaged=found).read_bytes() == b"new"
    assert len(exported) == 1


def test_a_damaged_graph_in_a_full_cache_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = graph_path(LENET, tmp_path)
    path.parent.mkdir()
    path.write_bytes(b"damaged")

    def export(_checkpoint: Checkpoint, _cache: Path, to: Path) -> None:
        if to == path:
            raise OSError(errno.ENOSPC, "No space left on device")
        to.write_bytes(b"new")

    monkeypatch.setattr(graph_cache, "export_apart", export)
    assert cached_graph(LENET, tmp_path, damaged=Damaged.at(path)).read_bytes() == b"new"


def test_an_exporter_that_is_killed_and_one_that_finds_the_disk_full_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "python"
    cases: list[tuple[str, type[Exception], str]] = [
        ("kill -9 $$", KilledError, "SIGKILL"),
        ("echo '28 No space left on device: /x' >&2; exit 5", OSError, "No space left"),
        ("echo 'std::bad_alloc' >&2; exit 6", MemoryError, "bad_alloc"),
        ("echo 'ValueError: what' >&2; exit 1", ExportError, "ValueError: what"),
        ("exit 0", ExportError, "no reason given"),
    ]
    monkeypatch.setattr(sys, "executable", str(script))
    for text, kind, says in cases:
        script.write_text(f"#!/bin/sh\n{text}\n")
        script.chmod(0o755)
        with pytest.raises(kind, match=says) as caught:
            export_apart(LENET, tmp_path, tmp_path / "graph.onnx")
        assert type(caught.value) is kind


def test_a_real_exporter_says_that_it_cannot_write(tmp_path: Path) -> None:
    """A limit on the size of files stands in for a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            export_apart(LENET, tmp_path, tmp_path / "graph.onnx")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.errno == errno.EFBIG
    assert not list(tmp_path.glob("*.part"))


def test_a_graph_is_made_once_and_without_torch(tmp_path: Path) -> None:
    """In another process, since this one has imported torch."""
    code = (
        "import sys; from pathlib import Path; from models.checkpoints.catalogue import Catalogue;"
        "from service.engines.loader import engine_loader;"
        "load = engine_loader(device='cpu', engine=None, precision='float32', threads=1, cache_dir=Path(sys.argv[1]));"
        "engine = load(Catalogue().find('lenet5@mnist')); engine.warm_up(4); print('torch' in sys.modules)"
    )
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "False"
    (path,) = tmp_path.glob("graphs/*.onnx")
    assert path == graph_path(LENET, tmp_path)
    first = path.stat().st_ino
    assert cached_graph(LENET, tmp_path) == path
    assert path.stat().st_ino == first


def test_damaged_weights_are_reported(tmp_path: Path) -> None:
    assert LENET.path is not None
    damaged = imported(tmp_path, LENET.path.read_bytes().replace(b"output.weight", b"output.weigth"))
    with pytest.raises(WrongWeightsError, match=r"output\.weight is missing"):
        cached_graph(damaged, tmp_path)
    assert not list(tmp_path.glob("graphs/*.onnx"))
