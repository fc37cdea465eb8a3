"""``topfive pull``: a public checkpoint over the network into the local cache.

A download goes to ``<file>.part``, and is resumed there after a cut, in this run or a later one. When its digest is
right it is imported like any weight file, and removed.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

import httpx

from models.checkpoints.catalogue import Catalogue, Checkpoint, WrongWeightsError
from models.checkpoints.manifest import ManifestRow, manifest
from models.install.import_ import import_file
from models.networks.variants import VARIANTS, UnknownModelError, find_variant

_CHUNK = 1 << 18
#: Attempts in a row without a single byte after which the pull fails.
_ATTEMPTS = 4
_HOPELESS = (httpx.ConnectError, httpx.UnsupportedProtocol, httpx.InvalidURL, httpx.TooManyRedirects)
_TIMEOUT = httpx.Timeout(30.0, connect=10.0)


class PullError(RuntimeError):
    """The checkpoint could not be fetched; the text says why in one line. Nothing was stored."""


class Progress(Protocol):
    """Is called with the progress of a download."""

    def __call__(self, row: ManifestRow, done: int) -> None:
        """``done`` bytes of the row's file have arrived."""


def rows_to_pull(names: Sequence[str], catalogue: Catalogue) -> list[ManifestRow]:
    """The manifest's rows for variants or checkpoints by name; without names, for all that lack weights.

    Raises:
        UnknownModelError: no such variant, or no public checkpoint of it.
    """
    if not names:
        missing = [c for c in catalogue.checkpoints() if c.state != "loadable" and c.url is not None]
        return [_row(c.variant.name, c.labels) for c in missing]
    rows = [_row(find_variant(name.partition("@")[0]).name, name.partition("@")[2]) for name in names]
    return list({row.url: row for row in rows}.values())


def check_space(rows: Sequence[ManifestRow], catalogue: Catalogue) -> None:
    """Checks that the downloads, and the checkpoints made of them, fit on the disk of the cache.

    Raises:
        PullError: they do not.
    """
    folder = catalogue.cache_dir
    folder.mkdir(parents=True, exist_ok=True)
    # Each download and the checkpoint made of it are both there for a moment, and several run at once.
    wanted = sum(2 * row.size - min(row.size, _size(_part(row, catalogue))) for row in rows)
    free = shutil.disk_usage(folder).free
    if wanted > free:
        raise PullError(
            f"{folder} has {free / 1e6:,.0f} MB free; {len(rows)} downloads and the checkpoints made of them "
            f"need {wanted / 1e6:,.0f} MB"
        )


def pull(row: ManifestRow, catalogue: Catalogue, *, mirror: str | None, progress: Progress) -> Checkpoint:
    """Fetches one file, checks it, and stores it as a checkpoint.

    Args:
        row: the checkpoint to fetch.
        catalogue: the cache to store it in.
        mirror: an ``http(s)://`` or ``file://`` folder to take the file from instead of its own host.
        progress: is called from this thread.

    Raises:
        PullError: nothing was stored; a part that can be resumed is kept.
        WrongWeightsError: the file matches the manifest, but does not fit the network.
        OSError: the checkpoint could not be stored; the download is kept.
    """
    url = source(row, mirror)
    part = _part(row, catalogue)
    part.parent.mkdir(parents=True, exist_ok=True)
    whole = part.with_suffix("")
    try:
        if whole.exists():  # a run was killed between the download and the import
            whole.replace(part)
        if not _is_whole(part, row):
            _fetch(url, part, row, lambda done: progress(row, done))
        _check_digest(part, row)
        part.replace(whole)
        try:
            stored = import_file(VARIANTS[row.variant], whole, catalogue, label_set=row.labels, preset=row.preprocess)
        except OSError:
            whole.replace(part)  # the disk is full, perhaps; the download is good
            raise
        whole.unlink()
        return stored
    except WrongWeightsError:
        whole.unlink(missing_ok=True)
        raise
    finally:
        if part.exists() and part.stat().st_size == 0:
            part.unlink()


def source(row: ManifestRow, mirror: str | None) -> str:
    """The URL of a row's file, on its own host or on the mirror."""
    assert row.url is not None
    return row.url if mirror is None else f"{mirror.rstrip('/')}/{_file(row)}"


def _row(variant: str, label_set: str) -> ManifestRow:
    for row in manifest():
        if row.variant == variant and row.url is not None and label_set in ("", row.labels):
            return row
    raise UnknownModelError(
        f"{variant}@{label_set}" if label_set else variant,
        sorted({row.variant for row in manifest() if row.url is not None and row.variant in VARIANTS}),
    )


def _fetch(url: str, part: Path, row: ManifestRow, progress: Callable[[int], None]) -> None:
    """Downloads until the file is whole, and resumes after cuts."""
    failures = 0
    while True:
        before = _size(part)
        try:
            with _opened(url, before) as (resumed, chunks):
                _write(part, chunks, row, progress, append=resumed)
            if row.bytes is None or _size(part) >= row.bytes:
                return
            error: Exception = PullError(f"{_size(part):,} bytes of {row.bytes:,} came")
        except httpx.HTTPStatusError as failed:
            raise PullError(f"{url} answers {failed.response.status_code}") from failed
        except (httpx.RequestError, httpx.InvalidURL, OSError) as failed:
            if isinstance(failed, OSError) and not isinstance(failed, ConnectionError):
                raise PullError(f"{url}: {failed.strerror or failed}") from failed
            error = failed
        failures = 0 if _size(part) > before else failures + 1
        if failures == _ATTEMPTS or isinstance(error, _HOPELESS):
            host = urlsplit(url).netloc or url
            again = f"; {_size(part) / 1e6:,.1f} MB are kept and will be resumed" if _size(part) else ""
            raise PullError(
                f"cannot fetch {_file(row)} from {host}: {str(error) or type(error).__name__}{again}"
            ) from error
        time.sleep(0.1 * 2**failures if failures else 0)


@contextmanager
def _opened(url: str, start: int) -> Iterator[tuple[bool, Iterator[bytes]]]:
    """The bytes of a URL from ``start`` on, and True; or all of its bytes, and False, if the server cannot resume."""
    if url.startswith("file://"):
        with Path(unquote(urlsplit(url).path)).open("rb") as file:
            file.seek(start)
            yield True, iter(lambda: file.read(_CHUNK), b"")
        return
    headers = {"Range": f"bytes={start}-"} if start else {}
    # Bytes of a compressed transfer would not be those of the file.
    headers["Accept-Encoding"] = "identity"
    with httpx.stream("GET", url, headers=headers, timeout=_TIMEOUT, follow_redirects=True) as response:
        if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            # The part is as long as the file, or longer: the digest decides.
            yield True, iter(())
            return
        response.raise_for_status()
        resumed = response.headers.get("content-range", "").startswith(f"bytes {start}-")
        # Raw, as they arrive: with chunks of a fixed size the bytes just before a cut would be lost.
        yield response.status_code == httpx.codes.PARTIAL_CONTENT and resumed, response.iter_raw()


def _write(
    part: Path, chunks: Iterator[bytes], row: ManifestRow, progress: Callable[[int], None], *, append: bool
) -> None:
    with part.open("ab" if append else "wb") as file:
        for chunk in chunks:
            file.write(chunk)
            # torchvision publishes sizes rounded to a thousandth of a MiB.
            if file.tell() > (row.bytes if row.bytes is not None else 1.01 * row.size + 2**20):
                file.truncate(0)
                raise PullError(f"{_file(row)} has more than the {row.size:,} bytes that it should have")
            progress(file.tell())


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_whole(part: Path, row: ManifestRow) -> bool:
    return part.exists() and part.stat().st_size > 0 and _digest(part).startswith(row.sha256)


def _check_digest(part: Path, row: ManifestRow) -> None:
    digest = _digest(part)
    if not digest.startswith(row.sha256):
        part.unlink()
        raise PullError(
            f"{_file(row)} has sha256 {digest[:16]}... where {row.sha256[:16]}... is expected; it was removed"
        )


def _file(row: ManifestRow) -> str:
    assert row.url is not None
    return row.url.rsplit("/", 1)[-1]


def _part(row: ManifestRow, catalogue: Catalogue) -> Path:
    return catalogue.cache_dir / "downloads" / f"{_file(row)}.part"


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
