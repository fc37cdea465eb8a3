"""``topfive pull``: what is fetched side by side, and what an interruption or a failure leaves."""

from __future__ import annotations

import concurrent.futures
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from models import get_model
from models.checkpoints import catalogue as checkpoints
from models.checkpoints import manifest
from models.checkpoints.manifest import ManifestRow
from models.install import pull as pulling
from models.install.pull import PullError
from service.commands import pull as pull_command
from service.commands.main import app
from tests.pictures import DIGIT

runner = CliRunner()


def test_pull_from_a_mirror_on_disk_then_classify(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(4)
    file = tmp_path / "lenet5-of-somebody.pth"
    torch.save(get_model("lenet5").state_dict(), file)
    row = ManifestRow(
        variant="lenet5",
        labels="mnist",
        origin="somebody",
        preprocess="mnist",
        url=f"http://127.0.0.1:9/{file.name}",
        sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
        bytes=file.stat().st_size,
    )
    for module in (manifest, checkpoints, pulling):
        monkeypatch.setattr(module, "manifest", lambda: (row,))
    pulled = runner.invoke(app, ["pull", "--all", "--mirror", tmp_path.as_uri()])
    assert pulled.exit_code == 0, pulled.output
    assert "stored lenet5@mnist" in pulled.output
    answer = json.loads(runner.invoke(app, ["classify", "lenet5", str(DIGIT), "--json"]).stdout)
    assert answer["checkpoint"]["origin"] == "somebody"
    assert [path.name for path in own_cache.glob("checkpoints/*")] == ["lenet5@mnist.safetensors"]
    assert "nothing to pull" in runner.invoke(app, ["pull", "--all"]).output


def rows(*variants: str) -> list[ManifestRow]:
    return [
        ManifestRow(
            variant=variant,
            labels="imagenet1k",
            origin="somebody",
            preprocess="torchvision-224",
            url=f"http://127.0.0.1:9/{variant}.pth",
            sha256="0" * 64,
            bytes=10,
        )
        for variant in variants
    ]


@pytest.fixture
def pulled(monkeypatch: pytest.MonkeyPatch) -> dict[str, Exception | None]:
    """The rows that are to be pulled, by variant, and what goes wrong with each."""
    outcomes: dict[str, Exception | None] = {}

    def pull(row: ManifestRow, catalogue: checkpoints.Catalogue, **_: object) -> checkpoints.Checkpoint:
        outcome = outcomes[row.variant]
        if outcome is not None:
            raise outcome
        return catalogue.find(row.variant, row.labels)

    monkeypatch.setattr(pulling, "rows_to_pull", lambda *_: rows(*outcomes))
    monkeypatch.setattr(pulling, "check_space", lambda *_: None)
    monkeypatch.setattr(pulling, "pull", pull)
    return outcomes


def test_one_failure_does_not_stop_the_others_and_is_the_exit_status(pulled: dict[str, Exception | None]) -> None:
    pulled |= {
        "vgg16": None,
        "alexnet": PullError("the file is [not] there"),
        "nin": OSError(28, "No space left on device"),
        "googlenet": None,
    }
    result = runner.invoke(app, ["pull", "--all"])
    assert result.exit_code == 1
    assert {line.split()[1] for line in result.stdout.splitlines()} == {"vgg16@imagenet1k:", "googlenet@imagenet1k:"}
    assert "error: alexnet: the file is [not] there" in result.stderr
    assert "error: nin: [Errno 28] No space left on device" in result.stderr
    del pulled["alexnet"], pulled["nin"]
    assert runner.invoke(app, ["pull", "--all"]).exit_code == 0


def test_at_an_interruption_what_waits_is_dropped_and_what_runs_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    stop, began = threading.Event(), threading.Event()

    def download() -> None:
        began.set()
        assert stop.wait(10)
        raise PullError("interrupted")

    def interrupted(_futures: object) -> Iterator[Future[None]]:
        monkeypatch.undo()
        yield done
        assert began.wait(10)
        raise KeyboardInterrupt

    monkeypatch.setattr(pull_command, "as_completed", interrupted)
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(lambda: None)
        running, waiting = pool.submit(download), pool.submit(download)
        futures: Any = dict.fromkeys((done, waiting, running))
        seen: list[Any] = list(pull_command._finished(futures, stop))
    assert stop.is_set()
    assert waiting.cancelled()
    assert seen[0] is done
    assert set(seen[1:]) == {done, running}


def test_a_download_that_runs_stops_at_its_next_bytes(
    pulled: dict[str, Exception | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C, while the main thread waits for a download."""
    began = threading.Event()

    def endless(
        row: ManifestRow, _catalogue: object, *, progress: Callable[[ManifestRow, int], None], **_: object
    ) -> None:
        began.set()
        give_up = time.monotonic() + 30
        while time.monotonic() < give_up:
            progress(row, 1)
            time.sleep(0.01)

    def interrupted(futures: Iterable[Future[str]]) -> Iterator[Future[str]]:
        assert began.wait(10)
        monkeypatch.setattr(pull_command, "as_completed", concurrent.futures.as_completed)
        raise KeyboardInterrupt
        yield

    pulled |= {"vgg16": None}
    monkeypatch.setattr(pulling, "pull", endless)
    monkeypatch.setattr(pull_command, "as_completed", interrupted)
    result = runner.invoke(app, ["pull", "--all"])
    assert result.exit_code == 1
    assert "vgg16: interrupted; the next pull resumes" in " ".join(result.stderr.split())
