"""Downloads from a server, which misbehaves as servers do."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from models import get_model
from models.checkpoints.catalogue import Catalogue, WrongWeightsError
from models.checkpoints.manifest import ManifestRow
from models.install import pull as pulling
from models.install.pull import PullError, check_space, pull, rows_to_pull, source
from models.networks.variants import VARIANTS, UnknownModelError


class Server(ThreadingHTTPServer):
    """Serves one file. ``misbehave`` may answer a request itself; it returns whether it did."""

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content = content
        self.honours_range = True
        self.misbehave: Callable[[_Handler, int], bool] = lambda handler, attempt: False
        self.requests: list[str | None] = []
        """The Range header of each request."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.requests.append(wanted)
        if self.server.misbehave(self, len(self.server.requests)):
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.server.honours_range else 0
        self.send(self.server.content[start:], start)

    def send(self, body: bytes, start: int = 0, *, length: int | None = None) -> None:
        whole = len(self.server.content)
        if start >= whole:
            self.send_response(416)
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{whole - 1}/{whole}")
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A LeNet-5 as torchvision would publish it."""
    file = tmp_path_factory.mktemp("weights") / "lenet5.pth"
    torch.manual_seed(5)
    torch.save(get_model("lenet5").state_dict(), file)
    return file.read_bytes()


@pytest.fixture
def server(content: bytes) -> Iterator[Server]:
    running = Server(content)
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield running
    running.shutdown()
    thread.join()
    running.server_close()


@pytest.fixture
def row(server: Server, content: bytes) -> ManifestRow:
    return ManifestRow(
        variant="lenet5",
        labels="mnist",
        origin="a server of this test",
        preprocess="mnist",
        url=f"{server.url}/lenet5.pth",
        sha256=hashlib.sha256(content).hexdigest(),
        bytes=len(content),
    )


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    return Catalogue(tmp_path / "cache")


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between attempts, in seconds; they are recorded, not waited."""
    pauses: list[float] = []
    monkeypatch.setattr(pulling, "time", SimpleNamespace(sleep=pauses.append))
    return pauses


def part_of(row: ManifestRow, catalogue: Catalogue, data: bytes) -> Path:
    """The part that an earlier run has left."""
    part = catalogue.cache_dir / "downloads" / f"{str(row.url).rsplit('/', 1)[-1]}.part"
    part.parent.mkdir(parents=True, exist_ok=True)
    part.write_bytes(data)
    return part


def fetch(row: ManifestRow, catalogue: Catalogue, mirror: str | None = None) -> list[int]:
    """Pulls, and returns the reported progress."""
    told: list[int] = []
    stored = pull(row, catalogue, mirror=mirror, progress=lambda _, done: told.append(done))
    assert stored.path is not None
    assert stored.path.suffix == ".safetensors"
    assert catalogue.find("lenet5@mnist").path == stored.path
    assert leftovers(catalogue) == []
    return told


def leftovers(catalogue: Catalogue) -> list[str]:
    return sorted(path.name for path in (catalogue.cache_dir / "downloads").glob("*"))


def stored(catalogue: Catalogue) -> list[Path]:
    return list(catalogue.cache_dir.glob("checkpoints/*"))


def test_a_whole_download_is_stored(row: ManifestRow, catalogue: Catalogue, content: bytes) -> None:
    told = fetch(row, catalogue)
    assert told == sorted(told)
    assert told[-1] == len(content)


@pytest.mark.parametrize("exact", [True, False])
def test_a_cut_is_resumed_where_it_happened(
    row: ManifestRow, catalogue: Catalogue, server: Server, content: bytes, exact: bool
) -> None:
    """The same for torchvision's files, whose exact size is not published and whose digest is a prefix."""

    def cut(handler: _Handler, attempt: int) -> bool:
        if attempt <= 2:
            start = 0 if attempt == 1 else 1000
            handler.send(content[start : start + 1000], start, length=len(content) - start)
        return attempt <= 2

    server.misbehave = cut
    fetch(row if exact else replace(row, bytes=None, sha256=row.sha256[:8]), catalogue)
    assert server.requests == [None, "bytes=1000-", "bytes=2000-"]


def test_a_server_that_ignores_range_is_read_from_the_start(
    row: ManifestRow, catalogue: Catalogue, server: Server, content: bytes
) -> None:
    def cut(handler: _Handler, attempt: int) -> bool:
        if attempt == 1:
            handler.send(content[:1000], length=len(content))
        return attempt == 1

    server.misbehave, server.honours_range = cut, False
    fetch(row, catalogue)
    assert server.requests == [None, "bytes=1000-"]


def test_a_later_run_resumes_too(row: ManifestRow, catalogue: Catalogue, server: Server, content: bytes) -> None:
    part_of(row, catalogue, content[:5000])
    fetch(row, catalogue)
    assert server.requests == ["bytes=5000-"]


def test_a_finished_part_needs_no_network(
    row: ManifestRow, catalogue: Catalogue, server: Server, content: bytes
) -> None:
    part_of(row, catalogue, content)
    fetch(row, catalogue)
    assert server.requests == []


@pytest.mark.parametrize("first", [0, 100, 10_000], ids=["the start", "too early", "too late"])
@pytest.mark.parametrize("status", [200, 206])
def test_bytes_from_another_place_than_asked_for_are_not_appended(
    row: ManifestRow, catalogue: Catalogue, server: Server, content: bytes, status: int, first: int
) -> None:
    """A proxy may send another range than was asked for; Content-Range has it."""
    part_of(row, catalogue, content[:1000])

    def answer(handler: _Handler, attempt: int) -> bool:
        handler.send_response(status)
        handler.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        # Appended to the part, these bytes would make another file.
        handler.wfile.write(content)
        return True

    server.misbehave = answer
    fetch(row, catalogue)
    assert server.requests == ["bytes=1000-"]


def test_an_answer_without_a_range_is_the_whole_file(
    row: ManifestRow, catalogue: Catalogue, server: Server, content: bytes
) -> None:
    """A Content-Range does not make status 200 a partial answer."""
    part_of(row, catalogue, content[:1000])

    def answer(handler: _Handler, attempt: int) -> bool:
        handler.send_response(200)
        handler.send_header("Content-Range", f"bytes 1000-{len(content) - 1}/{len(content)}")
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)
        return True

    server.misbehave = answer
    fetch(row, catalogue)


def drop(handler: _Handler) -> None:
    """Closes the connection without a byte."""
    handler.close_connection = True


def test_a_server_that_always_cuts_is_given_up_and_the_part_is_kept(
    row: ManifestRow, catalogue: Catalogue, server: Server, content: bytes, slept: list[float]
) -> None:
    def cut(handler: _Handler, attempt: int) -> bool:
        if attempt == 1:
            handler.send(content[:1000], length=len(content))
        else:
            drop(handler)
        return True

    server.misbehave = cut
    with pytest.raises(PullError, match="will be resumed"):
        fetch(row, catalogue)
    # One attempt that brought bytes, and four in a row that did not.
    assert server.requests == [None, *["bytes=1000-"] * 4]
    assert slept == sorted(slept)
    assert slept[0] == 0 < slept[1]
    assert leftovers(catalogue) == ["lenet5.pth.part"]
    assert stored(catalogue) == []


def test_attempts_are_counted_anew_after_one_that_brought_bytes(
    row: ManifestRow, catalogue: Catalogue, server: Server, content: bytes, slept: list[float]
) -> None:
    """Three attempts without a byte, twice, are not four in a row."""

    def sometimes(handler: _Handler, attempt: int) -> bool:
        if attempt == 4:
            handler.send(content[:1000], length=len(content))
        elif attempt < 8:
            drop(handler)
        return attempt < 8

    server.misbehave = sometimes
    fetch(row, catalogue)
    assert server.requests == [*[None] * 4, *["bytes=1000-"] * 4]
    assert slept[:3] == slept[4:]
    assert slept[3] == 0


def test_redirects_are_followed_and_nothing_is_compressed_on_the_way(
    row: ManifestRow, catalogue: Catalogue, server: Server
) -> None:
    encodings: list[str | None] = []

    def redirect(handler: _Handler, attempt: int) -> bool:
        encodings.append(handler.headers.get("Accept-Encoding"))
        if attempt == 1:
            handler.send_response(302)
            handler.send_header("Location", f"{server.url}/elsewhere")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
        return attempt == 1

    server.misbehave = redirect
    fetch(row, catalogue)
    assert encodings == ["identity"] * 2


# Downloads that an earlier run, or a failed import, has left.


def test_the_download_of_a_run_that_was_killed_before_the_import_is_used(
    row: ManifestRow, catalogue: Catalogue, server: Server, content: bytes
) -> None:
    """Its download is complete and has no ".part" in its name any more."""
    part = part_of(row, catalogue, content)
    part.replace(part.with_suffix(""))
    fetch(row, catalogue)
    assert server.requests == []


def test_a_damaged_download_of_a_killed_run_is_not_imported(
    row: ManifestRow, catalogue: Catalogue, server: Server, content: bytes
) -> None:
    part = part_of(row, catalogue, content[:-7] + b"garbage")
    part.replace(part.with_suffix(""))
    with pytest.raises(PullError, match="sha256"):
        fetch(row, catalogue)
    assert (leftovers(catalogue), stored(catalogue)) == ([], [])
    fetch(row, catalogue)
    # The first request is for the bytes after the part, the second for the whole file.
    assert server.requests == [f"bytes={len(content)}-", None]


def test_a_full_disk_at_the_import_keeps_the_download(
    row: ManifestRow, catalogue: Catalogue, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object, **_options: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(pulling, "import_file", full)
        with pytest.raises(OSError, match="No space left"):
            fetch(row, catalogue)
    assert leftovers(catalogue) == ["lenet5.pth.part"]
    fetch(row, catalogue)
    assert server.requests == [None]


def test_a_file_of_the_manifest_that_is_another_network_is_removed(
    row: ManifestRow, catalogue: Catalogue, content: bytes
) -> None:
    with pytest.raises(WrongWeightsError, match="does not fit vgg16"):
        pull(replace(row, variant="vgg16", labels="imagenet1k"), catalogue, mirror=None, progress=lambda _, done: None)
    assert (leftovers(catalogue), stored(catalogue)) == ([], [])


@pytest.mark.parametrize(
    "lie",
    [
        pytest.param(lambda content: content[:-7] + b"garbage", id="wrong bytes"),
        pytest.param(lambda content: b"<html>please log in</html>".ljust(len(content)), id="a login page"),
    ],
)
def test_wrong_bytes_are_removed(
    row: ManifestRow, catalogue: Catalogue, server: Server, content: bytes, lie: Callable[[bytes], bytes]
) -> None:
    server.content = lie(content)
    with pytest.raises(PullError, match="sha256"):
        fetch(row, catalogue)
    assert (leftovers(catalogue), stored(catalogue)) == ([], [])


def test_a_length_that_is_too_short_is_noticed_and_resumed(
    row: ManifestRow, catalogue: Catalogue, server: Server, content: bytes
) -> None:
    def lie(handler: _Handler, attempt: int) -> bool:
        if attempt == 1:
            handler.send(content[:500], length=500)
        return attempt == 1

    server.misbehave = lie
    fetch(row, catalogue)
    assert server.requests == [None, "bytes=500-"]


@pytest.mark.parametrize("exact", [True, False])
def test_more_than_the_manifest_promises_is_refused(
    row: ManifestRow, catalogue: Catalogue, server: Server, content: bytes, exact: bool
) -> None:
    """More is one byte if the exact size is known, else more than rounding explains."""
    server.content = content + b"x" * (1 if exact else len(content) // 100 + 2**20 + 1)
    with pytest.raises(PullError, match="more than"):
        fetch(row if exact else replace(row, bytes=None, mib=len(content) / 2**20), catalogue)
    assert (leftovers(catalogue), stored(catalogue)) == ([], [])


def test_a_rounded_size_may_be_too_small(
    row: ManifestRow, catalogue: Catalogue, server: Server, content: bytes
) -> None:
    """torchvision rounds sizes to a thousandth of a MiB, by up to 524 bytes."""
    fetch(replace(row, bytes=None, mib=(len(content) - 524) / 2**20), catalogue)


@pytest.mark.parametrize("status", [403, 404, 500, 503])
def test_an_http_error_is_reported_at_once(row: ManifestRow, catalogue: Catalogue, server: Server, status: int) -> None:
    def refuse(handler: _Handler, attempt: int) -> bool:
        handler.send_response(status)
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return True

    server.misbehave = refuse
    with pytest.raises(PullError, match=str(status)):
        fetch(row, catalogue)
    assert len(server.requests) == 1
    assert (leftovers(catalogue), stored(catalogue)) == ([], [])


def test_without_a_network_there_is_one_line_and_no_file(
    row: ManifestRow, catalogue: Catalogue, slept: list[float]
) -> None:
    nobody = replace(row, url="http://127.0.0.1:9/lenet5.pth")
    with pytest.raises(PullError, match=r"cannot fetch lenet5\.pth from 127\.0\.0\.1:9") as error:
        fetch(nobody, catalogue)
    assert "\n" not in str(error.value)
    # Trying again would not help.
    assert slept == []
    assert (leftovers(catalogue), stored(catalogue)) == ([], [])


def test_mirrors_over_http_and_on_disk(row: ManifestRow, catalogue: Catalogue, server: Server, tmp_path: Path) -> None:
    elsewhere = replace(row, url="http://127.0.0.1:9/far/away/lenet5.pth")
    assert source(elsewhere, server.url + "/") == f"{server.url}/lenet5.pth"
    fetch(elsewhere, catalogue, mirror=server.url)
    disk = tmp_path / "a mirror"
    disk.mkdir()
    (disk / "lenet5.pth").write_bytes(server.content)
    fetch(elsewhere, catalogue, mirror=disk.as_uri())
    with pytest.raises(PullError, match="No such file"):
        fetch(elsewhere, catalogue, mirror=(tmp_path / "nowhere").as_uri())
    with pytest.raises(PullError, match="ftp"):
        fetch(elsewhere, catalogue, mirror="ftp://127.0.0.1")


def test_an_older_checkpoint_survives_a_failed_pull(row: ManifestRow, catalogue: Catalogue, server: Server) -> None:
    fetch(row, catalogue)
    before = catalogue.path_for(catalogue.find("lenet5").variant, "mnist").read_bytes()
    server.content = b"x" * len(server.content)
    with pytest.raises(PullError):
        fetch(row, catalogue)
    assert catalogue.path_for(catalogue.find("lenet5").variant, "mnist").read_bytes() == before


def test_downloads_need_room_for_themselves_and_for_the_checkpoints_made_of_them(
    row: ManifestRow, catalogue: Catalogue, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two files of 1000 bytes, of which 300 of one are here already, need 3700 bytes."""
    rows = [replace(row, bytes=1000), replace(row, bytes=1000, url="http://127.0.0.1:9/other.pth")]
    part_of(row, catalogue, bytes(300))
    for free, fits in ((3700, True), (3699, False), (2000, False)):
        monkeypatch.setattr(
            pulling, "shutil", SimpleNamespace(disk_usage=lambda _folder, free=free: SimpleNamespace(free=free))
        )
        if fits:
            check_space(rows, catalogue)
        else:
            with pytest.raises(PullError, match="2 downloads and the checkpoints made of them"):
                check_space(rows, catalogue)


def test_a_part_that_is_too_long_saves_no_room(
    row: ManifestRow, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    part_of(row, catalogue, bytes(5000))
    monkeypatch.setattr(pulling, "shutil", SimpleNamespace(disk_usage=lambda _folder: SimpleNamespace(free=999)))
    with pytest.raises(PullError, match="MB free"):
        check_space([replace(row, bytes=1000)], catalogue)


def test_a_full_disk_is_noticed_before_anything_is_fetched(row: ManifestRow, catalogue: Catalogue) -> None:
    check_space([row], catalogue)
    huge = replace(row, bytes=10**15)
    with pytest.raises(PullError, match="MB free"):
        check_space([row, huge], catalogue)


def test_names_become_rows(catalogue: Catalogue) -> None:
    (vgg,) = rows_to_pull(["vgg"], catalogue)
    assert (vgg.variant, vgg.labels) == ("vgg16", "imagenet1k")
    assert rows_to_pull(["vgg16@imagenet1k"], catalogue) == [vgg]
    assert rows_to_pull(["vgg16", "vgg", "vgg16@imagenet1k"], catalogue) == [vgg]
    everything = rows_to_pull([], catalogue)
    assert {row.variant for row in everything} == set(VARIANTS) - {"lenet5", "zfnet", "nin", "vgg11_lrn", "vgg16_c"}
    for name in ("resnet50", "lenet5", "nin", "vgg16@mnist"):
        with pytest.raises(UnknownModelError):
            rows_to_pull([name], catalogue)
