"""Pictures that go to a device owner as files, because its device decodes them."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from models.checkpoints.catalogue import Checkpoint
from models.images.preprocess import picture_to_crop
from service.fronts.owner import Kind
from service.link import messages
from service.runtime.owner import FrontPicture
from service.runtime.placement import LocalPlacement
from tests import fakes as module
from tests.fakes import Fakes
from tests.fronting import front_of, fronted, owner_of
from tests.pictures import photo, picture


class Gpu:
    """Decodes on a pretended GPU: ``runtime.gpu_decoding.GpuDecoding``, as a predictor sees it."""

    def __init__(self) -> None:
        self.files: list[bytes] = []
        self.passes = True
        self.fails = False

    def passed(self, _checkpoint: Checkpoint) -> bool:
        return self.passes

    def judge(self, _checkpoint: Checkpoint, _engine: object) -> None:
        pass

    async def close(self) -> None:
        pass

    async def decode(self, file: bytes, checkpoint: Checkpoint, max_pixels: int) -> npt.NDArray[np.uint8] | None:
        self.files.append(file)
        return None if self.fails else picture_to_crop(file, checkpoint.preprocess, max_pixels=max_pixels)


@pytest.fixture
def wanted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The kinds that the owner asks its front for."""
    asked: list[int] = []
    ask = FrontPicture._wanted

    async def noted(self: FrontPicture, kind: int) -> object:
        if kind not in self._came:
            asked.append(kind)
        return await ask(self, kind)

    monkeypatch.setattr(FrontPicture, "_wanted", noted)
    return asked


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, fakes: Fakes) -> Gpu:
    decoding = Gpu()
    monkeypatch.setattr(module, "LocalPlacement", partial(LocalPlacement, gpu_decoding=decoding))  # type: ignore[arg-type]
    fakes.loadable |= {"googlenet@imagenet1k"}
    return decoding


async def test_the_file_goes_to_the_owner_and_the_next_one_with_its_question(
    fakes: Fakes, tmp_path: Path, gpu: Gpu, wanted: list[int]
) -> None:
    image = photo()
    async with fronted(fakes, tmp_path) as front:
        first = await front.client.post("/classify?model=googlenet", content=image)
        assert wanted == [messages.FILE]
        assert front.classifier.hints == {("googlenet", None): Kind(None, 0)}
        second = await front.client.post("/classify?model=googlenet", content=image)
        assert wanted == [messages.FILE]
        assert front.slots_used == 0
        gpu.passes = False
        by_cpu = await front.client.post("/classify?model=googlenet", content=image)
    assert gpu.files == [image, image]
    assert first.json()["top5"] == second.json()["top5"] == by_cpu.json()["top5"]


async def test_what_the_gpu_leaves_is_decoded_by_the_front(
    fakes: Fakes, tmp_path: Path, gpu: Gpu, wanted: list[int]
) -> None:
    gpu.fails = True
    async with fronted(fakes, tmp_path) as front:
        answer = await front.client.post("/classify?model=googlenet", content=photo())
        assert (answer.status_code, front.slots_used) == (200, 0)
        bad = await front.client.post("/classify?model=googlenet", content=photo()[:4500])
        assert (bad.status_code, bad.json()["type"]) == (422, "/problems/undecodable")
        # The next one comes as a file all the same: another picture may be one that the GPU decodes.
        assert front.classifier.hints == {("googlenet", None): Kind(None, 0)}
    assert wanted == [messages.FILE, 0, 0]


async def test_small_files_and_files_that_fit_no_slot_stay_with_the_front(
    fakes: Fakes, tmp_path: Path, gpu: Gpu, wanted: list[int]
) -> None:
    async with owner_of(fakes, tmp_path / "0.sock", largest_crop=1024), front_of(fakes, tmp_path) as front:
        await front.owners.wait()
        for image in (picture(7), photo()):
            answer = await front.client.post("/classify?model=lenet5", content=image)
            assert answer.status_code == 200
    assert len(photo()) > 4096
    assert messages.FILE not in wanted
    assert gpu.files == []
