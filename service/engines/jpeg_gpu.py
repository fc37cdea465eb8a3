"""JPEG files -> crops on a GPU: its JPEG engine decodes a batch, torchvision's functions resize and crop it.

    files ─torchcodec, one call─▶ pixels on the device ─resize, crop─▶ crops ─one copy─▶ host

The crops have the geometry of ``models.images.preprocess``, and nearly its pixels. The JPEG engine repeats the nearest
sample of colour where Pillow interpolates between two, and Pillow decodes a large photograph at a part of its size;
torchvision's antialiased resize rounds otherwise than Pillow's. ``runtime/decode_gate.py`` compares what networks
answer to both.

It needs torchcodec 0.17: before, the decoder wrote its pixels while earlier work of the same stream still used that
memory (meta-pytorch/torchcodec#1634, seen on an H100), and so does torchvision.io's (pytorch/vision#9606).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import metadata
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from models.images.baseline import Baseline
from models.images.preprocess import Preprocess, centre, finished, scaling

#: uint8 tensors with the bytes of a file each -> uint8 (3, height, width) on the device. A file that cannot be decoded
#: fails all of them, with a RuntimeError.
Decode: TypeAlias = Callable[[list[torch.Tensor]], Sequence[torch.Tensor]]
Crop: TypeAlias = npt.NDArray[np.uint8]

#: The most pixels that are on the device at once; a file with more is none for it.
MOST_PIXELS = 16_000_000
#: What decoding may take of the device's memory: ``MOST_PIXELS`` as bytes, stacked, in float32 and half resized (30
#: bytes a pixel: 480 MB), and the decoder itself (below 30 MB, says torchcodec's source).
HELD_BYTES = 512_000_000
_NEEDED = (0, 17)


class DecoderMissingError(RuntimeError):
    """JPEG files cannot be decoded on the device; the text says why, in one line."""


class GpuJpegs:
    """Decodes batches of JPEG files on one device. Any thread may call it; one at a time is served.

    Args:
        decode: decodes files; ``torchcodecs`` makes one for a GPU.
        stream: makes the context in which device work is queued, so that it does not wait for the networks' work.
    """

    def __init__(self, decode: Decode, stream: Callable[[], AbstractContextManager[object]] = nullcontext) -> None:
        self._decode = decode
        self._stream = stream
        self._turn = threading.Lock()

    @classmethod
    def on(cls, device: str) -> GpuJpegs:
        """On a GPU, ``cuda:0``.

        Raises:
            DecoderMissingError: there is no torchcodec here, or none that may be used.
        """
        where = torch.device(device)
        decode = torchcodecs(device)
        # The decoder synchronises its stream twice a call, so it must be nobody else's.
        stream = torch.cuda.Stream(where)  # type: ignore[no-untyped-call]

        @contextmanager
        def queued() -> Iterator[None]:
            with torch.cuda.device(where), torch.cuda.stream(stream):
                yield

        return cls(decode, queued)

    @torch.inference_mode()
    def decode_batch(self, files: Sequence[Baseline], preprocess: Preprocess) -> list[Crop | Exception]:
        """The crop of each file, uint8 (side, side, 3) in RGB, or why it has none. Blocks."""
        with self._turn, self._stream():
            return [answer for part in _parts(files) for answer in self._answers(part, preprocess)]

    def _answers(self, files: Sequence[Baseline], preprocess: Preprocess) -> list[Crop | Exception]:
        """Decodes files that fit on the device together."""
        decoded = self._decoded(files)
        answers = list[Crop | Exception](
            found if isinstance(found, Exception) else RuntimeError("not cropped") for found in decoded
        )
        for numbers in _alike(files, decoded):
            pixels = [found for number in numbers if isinstance(found := decoded[number], torch.Tensor)]
            cut: Iterable[Crop | Exception]
            try:
                turned = upright(torch.stack(pixels), files[numbers[0]].orientation)
                cut = finished(crops(turned, preprocess).cpu().numpy(), preprocess)
            except RuntimeError as error:
                cut = [error] * len(numbers)
            for number, answer in zip(numbers, cut, strict=True):
                answers[number] = answer
        return answers

    def _decoded(self, files: Sequence[Baseline]) -> list[torch.Tensor | Exception]:
        """Each file's pixels. A bad one fails a whole batch, so they are then decoded one by one."""
        try:
            # Copies, since torch warns of memory that must not be written.
            found = self._decode([torch.frombuffer(bytearray(file.data), dtype=torch.uint8) for file in files])
        except RuntimeError as error:
            return [error] if len(files) == 1 else [self._decoded([file])[0] for file in files]
        return [_checked(pixels, file) for pixels, file in zip(found, files, strict=True)]


def torchcodecs(device: str) -> Decode:
    """torchcodec's decoder on a GPU.

    Raises:
        DecoderMissingError: it is not installed, is too old, or cannot be imported.
    """
    try:
        version = metadata.version("torchcodec")
        if tuple(int(part) for part in version.split(".")[:2]) < _NEEDED:
            raise DecoderMissingError(f"torchcodec {version} is older than {'.'.join(map(str, _NEEDED))}")
        from torchcodec.decoders import decode_jpeg
    except metadata.PackageNotFoundError:
        raise DecoderMissingError("torchcodec is not installed: pip install -e '.[gpu-decode]'") from None
    except (ImportError, OSError, RuntimeError) as error:
        if isinstance(error, DecoderMissingError):
            raise
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise DecoderMissingError(f"torchcodec cannot be imported: {first}") from error
    return lambda files: list(decode_jpeg(files, mode="RGB", device=device))


def takes(preprocess: Preprocess) -> bool:
    """Whether crops for a preprocessing can be made here. Digits are not: their files are small and grey, and what is
    done to them depends on their border."""
    plain = preprocess.fit != "contain" and not preprocess.ink_on_light
    return plain and preprocess.colour != "grey" and preprocess.crop <= preprocess.resize


def upright(pixels: torch.Tensor, orientation: int | None) -> torch.Tensor:
    """Pixels (..., height, width), turned as EXIF's orientation says (TIFF 6.0, tag 274)."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(-1, -2)
    mirrored = {2: [-1], 3: [-1, -2], 4: [-2], 6: [-1], 7: [-1, -2], 8: [-2]}.get(orientation or 1, [])
    return pixels.flip(mirrored) if mirrored else pixels


def crops(pixels: torch.Tensor, preprocess: Preprocess) -> torch.Tensor:
    """Pixels uint8 (N, 3, height, width) -> uint8 (N, crop, crop, 3): what ``preprocess.cut`` makes of each."""
    height, width = pixels.shape[-2:]
    box, size = scaling((width, height), preprocess)
    if box is not None:
        left, top, right, bottom = box
        pixels = pixels[..., top:bottom, left:right]
    if size != (width, height):
        pixels = F.resize(pixels, [size[1], size[0]], InterpolationMode.BILINEAR, antialias=True)
    left, top, right, bottom = centre(size, preprocess.crop)
    return pixels[..., top:bottom, left:right].permute(0, 2, 3, 1).contiguous()


def _parts(files: Sequence[Baseline]) -> Iterator[Sequence[Baseline]]:
    """Files that are decoded together: as many as ``MOST_PIXELS`` allow."""
    begin = pixels = 0
    for number, file in enumerate(files):
        size = file.size[0] * file.size[1]
        if number > begin and pixels + size > MOST_PIXELS:
            yield files[begin:number]
            begin, pixels = number, 0
        pixels += size
    if files:
        yield files[begin:]


def _alike(files: Sequence[Baseline], decoded: Sequence[torch.Tensor | Exception]) -> list[list[int]]:
    """Numbers of pictures of one size and orientation. They are resized together: a call takes longer than its
    work."""
    groups: dict[tuple[tuple[int, int], int | None], list[int]] = {}
    for number, (file, pixels) in enumerate(zip(files, decoded, strict=True)):
        if isinstance(pixels, torch.Tensor):
            groups.setdefault((file.size, file.orientation), []).append(number)
    return list(groups.values())


def _checked(pixels: torch.Tensor, file: Baseline) -> torch.Tensor | Exception:
    """Pixels, if they are as many as the file's header says."""
    width, height = file.size
    expected = (3, height, width)
    if tuple(pixels.shape) == expected and pixels.dtype == torch.uint8:
        return pixels
    return RuntimeError(f"the decoder made {tuple(pixels.shape)} of {expected}")
