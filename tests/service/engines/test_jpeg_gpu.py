"""Crops made on a device: their geometry and pixels against Pillow's, and what bad files do to a batch. The decoder is
Pillow's or torchcodec's on a CPU; with torchcodec on a GPU where there is one."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib import metadata
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from models.images import pictures
from models.images import preprocess as preprocessing
from models.images.baseline import Baseline, baseline
from models.images.preprocess import PRESETS, Preprocess
from service.engines import jpeg_gpu
from service.engines.jpeg_gpu import DecoderMissingError, GpuJpegs, crops, takes, torchcodecs, upright
from tests.picture_files import encode, exif

LIMIT = 1 << 28
#: Narrow ones lose their ends before they are scaled; one has the size that it is scaled to.
SIZES = [(500, 375), (375, 500), (301, 300), (256, 256), (20, 900), (900, 20), (333, 221)]
COLOURED = [name for name, preprocess in PRESETS.items() if preprocess.channels == 3]


def scene(width: int, height: int, **options: Any) -> bytes:
    """A JPEG of slopes and a square, so that every shift and turn shows."""
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([255 * x / width, 255 * y / height, 128 + 100 * np.sin(x / 9)], -1)
    pixels[: height // 4, : width // 3] = (250, 20, 20)
    return encode(Image.fromarray(pixels.astype(np.uint8)), "JPEG", quality=95, **options)


def ordinary(file: bytes) -> Baseline:
    found = baseline(file, max_pixels=LIMIT)
    assert found is not None
    return found


class Pillows:
    """A decoder in the place of a GPU's, which fails as a whole as soon as one file is bad."""

    def __init__(self, *bad: bytes) -> None:
        self.bad = bad
        self.calls: list[int] = []

    def __call__(self, files: list[torch.Tensor]) -> Sequence[torch.Tensor]:
        self.calls.append(len(files))
        contents = [file.numpy().tobytes() for file in files]
        if any(content in self.bad for content in contents):
            raise RuntimeError("bad file")
        pictures = [np.array(Image.open(io.BytesIO(content)).convert("RGB")) for content in contents]
        return [torch.from_numpy(pixels).permute(2, 0, 1) for pixels in pictures]


def by_pillow(file: bytes, preprocess: Preprocess) -> npt.NDArray[np.uint8]:
    """Pillow's crop of all pixels; the service has Pillow decode large photographs at a part of their size."""
    return preprocessing.crop(pictures.decode(file, "RGB", max_pixels=LIMIT), preprocess)


def distance(one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> float:
    """Mean difference in levels of 256."""
    assert one.shape == other.shape
    assert one.dtype == other.dtype == np.uint8
    return float(np.abs(one.astype(int) - other).mean())


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", COLOURED)
def test_crops_are_pillows_nearly_to_the_pixel(name: str, size: tuple[int, int]) -> None:
    file, preprocess = scene(*size), PRESETS[name]
    (found,) = GpuJpegs(Pillows()).decode_batch([ordinary(file)], preprocess)
    assert not isinstance(found, Exception)
    assert distance(found, by_pillow(file, preprocess)) < 0.6


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright(orientation: int) -> None:
    file, preprocess = scene(320, 200, exif=b"Exif\0\0" + exif(orientation)), PRESETS["half-224"]
    (found,) = GpuJpegs(Pillows()).decode_batch([ordinary(file)], preprocess)
    assert not isinstance(found, Exception)
    assert distance(found, by_pillow(file, preprocess)) < 0.6


def test_an_orientation_that_exif_does_not_have_turns_nothing() -> None:
    pixels = torch.arange(24).reshape(1, 3, 2, 4)
    assert all(upright(pixels, number) is pixels for number in (None, 0, 1, 9))


def test_pictures_of_different_sizes_and_orientations_keep_their_order() -> None:
    files = [scene(*size) for size in SIZES]
    files += [scene(500, 375, exif=b"Exif\0\0" + exif(3)), files[0]]
    preprocess = PRESETS["torchvision-224"]
    found = GpuJpegs(Pillows()).decode_batch([ordinary(file) for file in files], preprocess)
    assert len(found) == len(files)
    for crop, file in zip(found, files, strict=True):
        assert not isinstance(crop, Exception)
        assert distance(crop, by_pillow(file, preprocess)) < 0.6


def test_a_bad_file_fails_alone() -> None:
    good, bad = scene(300, 200), scene(310, 200)
    decoder = Pillows(bad)
    files = [ordinary(file) for file in (good, bad, good)]
    first, failed, last = GpuJpegs(decoder).decode_batch(files, PRESETS["half-224"])
    assert str(failed) == "bad file"
    assert isinstance(failed, RuntimeError)
    assert isinstance(first, np.ndarray)
    assert isinstance(last, np.ndarray)
    assert (first == last).all()
    assert decoder.calls == [3, 1, 1, 1]


def test_a_batch_without_bad_files_is_one_call() -> None:
    decoder = Pillows()
    GpuJpegs(decoder).decode_batch([ordinary(scene(300, 200))] * 5, PRESETS["half-224"])
    assert decoder.calls == [5]
    assert GpuJpegs(decoder).decode_batch([], PRESETS["half-224"]) == []


def test_no_more_pixels_than_fit_are_decoded_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jpeg_gpu, "MOST_PIXELS", 2 * 300 * 200)
    decoder = Pillows()
    files = [ordinary(scene(width, 200)) for width in (300, 300, 301, 299, 300, 900, 300)]
    found = GpuJpegs(decoder).decode_batch(files, PRESETS["half-224"])
    assert all(isinstance(crop, np.ndarray) for crop in found)
    assert decoder.calls == [2, 2, 1, 1, 1]


def test_pixels_of_another_size_than_the_headers_are_an_error() -> None:
    def cut(files: list[torch.Tensor]) -> Sequence[torch.Tensor]:
        whole, short, floating = Pillows()(files)
        return [whole, short[:, 1:], floating.float()]

    whole, short, floating = GpuJpegs(cut).decode_batch([ordinary(scene(300, 200))] * 3, PRESETS["half-224"])
    assert isinstance(whole, np.ndarray)
    assert str(short) == "the decoder made (3, 199, 300) of (3, 200, 300)"
    assert isinstance(floating, RuntimeError)


def test_a_resize_that_fails_is_the_answer_of_its_pictures_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def scarce(pixels: torch.Tensor, preprocess: Preprocess) -> torch.Tensor:
        if pixels.shape[-1] == 300:
            raise torch.cuda.OutOfMemoryError("out of memory")
        return crops(pixels, preprocess)

    monkeypatch.setattr(jpeg_gpu, "crops", scarce)
    files = [ordinary(scene(width, 200)) for width in (300, 310)]
    failed, found = GpuJpegs(Pillows()).decode_batch(files, PRESETS["half-224"])
    assert str(failed) == "out of memory"
    assert isinstance(found, np.ndarray)


def test_all_device_work_is_done_in_the_stream() -> None:
    inside, events = [False], []

    @contextmanager
    def stream() -> Iterator[None]:
        inside[0] = True
        yield
        inside[0] = False

    def decode(files: list[torch.Tensor]) -> Sequence[torch.Tensor]:
        events.append(inside[0])
        return Pillows()(files)

    GpuJpegs(decode, stream).decode_batch([ordinary(scene(300, 200))], PRESETS["half-224"])
    assert events == [True]
    assert not inside[0]


def test_digits_and_odd_preprocessings_are_left_to_pillow() -> None:
    assert {name for name, preprocess in PRESETS.items() if takes(preprocess)} == set(COLOURED)
    plain = PRESETS["half-224"]
    assert not takes(replace(plain, colour="grey"))
    assert not takes(replace(plain, fit="contain"))
    assert not takes(replace(plain, ink_on_light=True))
    assert not takes(replace(plain, crop=257))
    assert takes(replace(plain, crop=256))


def test_without_torchcodec_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    with pytest.raises(DecoderMissingError, match=r"not installed: pip install -e '\.\[gpu-decode\]'"):
        torchcodecs("cuda:0")


@pytest.mark.parametrize(
    ("version", "fine"), [("0.16.0", False), ("0.17.0+cu130", True), ("0.18.1", True), ("1.0", True)]
)
def test_versions_that_corrupt_memory_are_refused(monkeypatch: pytest.MonkeyPatch, version: str, fine: bool) -> None:
    asked: list[tuple[Any, ...]] = []
    module = ModuleType("torchcodec.decoders")
    module.decode_jpeg = lambda files, mode, device: asked.append((files, mode, device)) or ()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchcodec", ModuleType("torchcodec"))
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", module)
    monkeypatch.setattr(metadata, "version", lambda _name: version)
    if fine:
        assert torchcodecs("cuda:1")([]) == []
        assert asked == [([], "RGB", "cuda:1")]
    else:
        with pytest.raises(DecoderMissingError, match=r"torchcodec 0\.16\.0 is older than 0\.17"):
            torchcodecs("cuda:1")


def test_a_torchcodec_that_cannot_be_imported_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(ModuleType):
        def __getattr__(self, name: str) -> Any:
            raise OSError("libnvjpeg.so.13: cannot open\nand much more")

    monkeypatch.setitem(sys.modules, "torchcodec", ModuleType("torchcodec"))
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", Broken("torchcodec.decoders"))
    monkeypatch.setattr(metadata, "version", lambda _name: "0.17.0")
    with pytest.raises(DecoderMissingError) as told:
        torchcodecs("cuda:0")
    assert str(told.value) == "torchcodec cannot be imported: libnvjpeg.so.13: cannot open"


@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param("cuda:0", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")),
    ],
)
def test_torchcodec_decodes_as_pillow_does(device: str) -> None:
    pytest.importorskip("torchcodec", "0.17")
    decoder = GpuJpegs(torchcodecs(device)) if device == "cpu" else GpuJpegs.on(device)
    files = [scene(*size) for size in SIZES if min(size) > 100]
    cut = scene(400, 300)
    broken = ordinary(cut)._replace(data=cut[:200])
    found = decoder.decode_batch([*map(ordinary, files), broken], PRESETS["half-224"])
    assert isinstance(found.pop(), RuntimeError)
    for crop, file in zip(found, files, strict=True):
        assert not isinstance(crop, Exception)
        # Colours are at half the resolution, and a GPU repeats their nearest sample.
        assert distance(crop, by_pillow(file, PRESETS["half-224"])) < (0.6 if device == "cpu" else 1.5)
