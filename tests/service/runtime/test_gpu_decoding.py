"""Which pictures a GPU decodes, that those that wait are decoded together, and that Pillow has all others."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from models.checkpoints.catalogue import Catalogue, Checkpoint
from models.images.baseline import Baseline
from models.images.preprocess import Preprocess
from service.domain.prediction import Limits, Prediction
from service.engines import Engine
from service.engines.fake import FakeEngine
from service.inference.decoding import Crop
from service.runtime import gpu_decoding as module
from service.runtime.decode_gate import BatchDecoder, Verdict
from service.runtime.gpu_decoding import GpuDecoding, gpu_decoding
from service.runtime.placement import LocalPlacement
from tests.picture_files import encode

CATALOGUE = Catalogue(untrained=True)
GOOGLENET, INCEPTION, LENET = (CATALOGUE.find(name) for name in ("googlenet", "inception_v3", "lenet5"))
FINE, WRONG = Verdict(64, 0), Verdict(64, 0, 9.0, 0.5)
LIMIT = 80_000_000


def jpeg(width: int = 300, height: int = 200) -> bytes:
    return encode(Image.new("RGB", (width, height), "teal"), "JPEG")


class Held:
    """A decoder that answers with a picture's width in every pixel, when it is let.

    Args:
        bad: a width that fails alone.
    """

    def __init__(self, bad: int = 0) -> None:
        self.bad = bad
        self.batches: list[list[int]] = []
        self.go = threading.Semaphore(0)
        self.error: Exception | None = None
        self.threads: set[str] = set()

    def decode_batch(self, files: Sequence[Baseline], preprocess: Preprocess) -> list[Crop | Exception]:
        self.threads.add(threading.current_thread().name)
        assert self.go.acquire(timeout=30)
        widths = [file.size[0] for file in files]
        self.batches.append(widths)
        if self.error is not None:
            raise self.error
        side = preprocess.side
        return [
            RuntimeError("bad") if width == self.bad else np.full((side, side, 3), width % 256, np.uint8)
            for width in widths
        ]


@asynccontextmanager
async def decoding(
    decoder: Held, verdict: Verdict | Exception = FINE, most_pixels: int = 1 << 24
) -> AsyncIterator[GpuDecoding]:
    """Decoding of googlenet's and inception_v3's pictures; lenet5's are none for the decoder."""

    def gate(engine: Engine, given: BatchDecoder, preprocess: Preprocess) -> Verdict:
        assert given is decoder
        if isinstance(verdict, Exception):
            raise verdict
        return verdict

    found = GpuDecoding(decoder, lambda preprocess: preprocess.colour != "grey", most_pixels, gate=gate)
    for checkpoint in (GOOGLENET, INCEPTION, LENET):
        found.judge(checkpoint, FakeEngine(checkpoint))
    yield found
    decoder.go.release(100)
    await found.close()


def start(found: GpuDecoding, image: bytes, checkpoint: Checkpoint = GOOGLENET) -> asyncio.Task[Crop | None]:
    return asyncio.create_task(found.decode(image, checkpoint, LIMIT))


async def begun(decoder: Held, batches: int) -> None:
    """Waits until so many batches were decoded."""
    for _ in range(3_000):
        if len(decoder.batches) >= batches:
            return
        await asyncio.sleep(0.01)
    raise TimeoutError


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_pictures_that_wait_while_one_is_decoded_are_decoded_together_in_their_order() -> None:
    decoder = Held()
    async with decoding(decoder) as found:
        first = start(found, jpeg(300))
        await settle()
        others = [start(found, jpeg(width)) for width in (301, 302, 303)]
        await settle()
        decoder.go.release(2)
        crops = await asyncio.gather(first, *others)
    assert decoder.batches == [[300], [301, 302, 303]]
    assert [crop is not None and crop[0, 0, 0] for crop in crops] == [44, 45, 46, 47]
    assert decoder.threads == {"gpu-decode_0"}


async def test_a_batch_has_one_preprocessing_and_the_oldest_goes_first() -> None:
    decoder = Held()
    async with decoding(decoder) as found:
        tasks = [start(found, jpeg(300))]
        await settle()
        for width, checkpoint in ((301, INCEPTION), (302, GOOGLENET), (303, INCEPTION)):
            tasks.append(start(found, jpeg(width), checkpoint))
            await settle()
        decoder.go.release(3)
        crops = await asyncio.gather(*tasks)
    assert decoder.batches == [[300], [301, 303], [302]]
    assert [None if crop is None else crop.shape[0] for crop in crops] == [224, 299, 224, 299]


async def test_a_batch_is_no_larger_than_it_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_FILES", 3)
    decoder = Held()
    async with decoding(decoder) as found:
        tasks = [start(found, jpeg(300))]
        await settle()
        tasks += [start(found, jpeg()) for _ in range(7)]
        await settle()
        decoder.go.release(4)
        await asyncio.gather(*tasks)
    assert [len(batch) for batch in decoder.batches] == [1, 3, 3, 1]


async def test_nor_has_it_more_pixels_than_fit() -> None:
    decoder = Held()
    async with decoding(decoder, most_pixels=2 * 300 * 200) as found:
        tasks = [start(found, jpeg(300))]
        await settle()
        tasks += [start(found, jpeg(width)) for width in (300, 300, 301, 300)]
        await settle()
        decoder.go.release(4)
        await asyncio.gather(*tasks)
        assert await found.decode(jpeg(601), GOOGLENET, LIMIT) is None
    assert decoder.batches == [[300], [300, 300], [301], [300]]


async def test_a_picture_that_the_gpu_cannot_decode_is_pillows_and_its_neighbours_are_not() -> None:
    decoder = Held(bad=301)
    async with decoding(decoder) as found:
        tasks = [start(found, jpeg(300))]
        await settle()
        tasks += [start(found, jpeg(width)) for width in (301, 302)]
        await settle()
        decoder.go.release(2)
        crops = await asyncio.gather(*tasks)
    assert [crop is None for crop in crops] == [False, True, False]


async def test_an_error_of_the_decoder_leaves_its_batch_to_pillow_and_the_next_is_tried() -> None:
    decoder = Held()
    async with decoding(decoder) as found:
        decoder.error = ValueError("a defect")
        decoder.go.release()
        assert await start(found, jpeg()) is None
        decoder.error = None
        decoder.go.release()
        assert await start(found, jpeg()) is not None


async def test_pictures_that_nobody_waits_for_are_not_decoded() -> None:
    decoder = Held()
    async with decoding(decoder) as found:
        first = start(found, jpeg(300))
        await settle()
        gone, still = start(found, jpeg(301)), start(found, jpeg(302))
        await settle()
        gone.cancel()
        first.cancel()
        decoder.go.release(2)
        assert await still is not None
    assert decoder.batches == [[300], [302]]


@pytest.mark.parametrize(
    ("image", "checkpoint", "limit"),
    [
        (encode(Image.new("RGB", (300, 200))), GOOGLENET, LIMIT),
        (encode(Image.new("L", (300, 200)), "JPEG"), GOOGLENET, LIMIT),
        (b"text", GOOGLENET, LIMIT),
        (jpeg(), GOOGLENET, 300 * 200 - 1),
        (jpeg(), LENET, LIMIT),
        (jpeg(), CATALOGUE.find("vgg16"), LIMIT),
        (jpeg(), replace(GOOGLENET, modified_ns=1), LIMIT),
    ],
    ids=["PNG", "grey", "text", "pixels", "another preprocessing", "not judged", "another file of weights"],
)
async def test_everything_else_is_pillows_at_once(image: bytes, checkpoint: Checkpoint, limit: int) -> None:
    decoder = Held()
    async with decoding(decoder) as found:
        assert await found.decode(image, checkpoint, limit) is None
    assert decoder.batches == []


@pytest.mark.parametrize(
    ("verdict", "why"), [(WRONG, "50.0 % of 64 pictures"), (RuntimeError("no kernel"), "RuntimeError: no kernel")]
)
async def test_a_checkpoint_that_does_not_pass_is_pillows_and_the_log_says_why_once(
    verdict: Verdict | Exception, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with decoding(Held(), verdict) as found:
        found.judge(GOOGLENET, FakeEngine(GOOGLENET))
        assert await found.decode(jpeg(), GOOGLENET, LIMIT) is None
    lines = [record.getMessage() for record in caplog.records if GOOGLENET.name in record.getMessage()]
    assert len(lines) == 1
    assert lines[0].startswith(
        f"{GOOGLENET.name}: the CPU decodes its pictures, TOPFIVE_DECODE=gpu does not pass: {why}"
    )


async def test_an_imported_file_is_judged_anew() -> None:
    decoder = Held()
    async with decoding(decoder) as found:
        imported = replace(GOOGLENET, modified_ns=1)
        found.judge(imported, FakeEngine(imported))
        decoder.go.release()
        assert await found.decode(jpeg(), imported, LIMIT) is not None
        # The file before it is served on until its last picture is answered.
        assert await found.decode(jpeg(), GOOGLENET, LIMIT) is None


async def test_closing_leaves_what_waits_to_pillow() -> None:
    decoder = Held()
    async with decoding(decoder) as found:
        running = start(found, jpeg(300))
        await settle()
        waiting = start(found, jpeg(301))
        await settle()
        closing = asyncio.create_task(found.close())
        assert await waiting is None
        decoder.go.release()
        await closing
        assert await running is not None
        assert await found.decode(jpeg(), GOOGLENET, LIMIT) is None


async def test_a_predictor_takes_the_gpus_crops_and_pillows_for_the_rest() -> None:
    decoder, judged = Held(), []

    def gate(engine: Engine, given: BatchDecoder, preprocess: Preprocess) -> Verdict:
        judged.append(threading.current_thread().name)
        return FINE

    found = GpuDecoding(decoder, lambda _preprocess: True, 1 << 24, gate=gate)
    placement = LocalPlacement(FakeEngine, Limits(), gpu_decoding=found)
    decoder.go.release(10)
    predictor = placement.predictor(GOOGLENET)
    loop = asyncio.get_running_loop()
    answers = []
    for image in (jpeg(), encode(Image.new("RGB", (300, 200), (7, 7, 7)), "BMP")):
        answer = await predictor.predict(image, loop.time() + 60)
        assert isinstance(answer, Prediction)
        answers.append(answer.indices[0])
    # The width of the JPEG, which the decoder here answers with; the brightness of the other file.
    assert answers == [300 % 256, 7]
    # Where the network runs, and before the first picture.
    assert judged == ["device_0"]
    await placement.close()


def test_networks_on_a_cpu_have_no_gpu_that_decodes(caplog: pytest.LogCaptureFixture) -> None:
    assert gpu_decoding("cpu") is None
    (record,) = caplog.records
    why = "TOPFIVE_DECODE=gpu has no effect, the CPU decodes all pictures: the networks run on a CPU"
    assert (record.getMessage(), record.levelno) == (why, logging.WARNING)


def test_without_a_decoder_the_cpu_decodes_and_the_log_says_so(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from service.engines import jpeg_gpu

    def missing(_device: str) -> None:
        raise jpeg_gpu.DecoderMissingError("torchcodec is not installed: ...")

    monkeypatch.setattr(jpeg_gpu.GpuJpegs, "on", missing)
    assert gpu_decoding("cuda:0") is None
    (record,) = caplog.records
    assert record.getMessage().endswith("the CPU decodes all pictures: torchcodec is not installed: ...")


def test_with_a_decoder_its_memory_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from service.engines import jpeg_gpu

    drawn: list[None] = []
    monkeypatch.setattr(module, "files", lambda: drawn.append(None))
    monkeypatch.setattr(jpeg_gpu.GpuJpegs, "on", lambda device: Held())
    found = gpu_decoding("cuda:0")
    assert found is not None
    # Before anything is loaded, since drawing takes seconds.
    assert drawn == [None]
    assert found.held_bytes == jpeg_gpu.HELD_BYTES
