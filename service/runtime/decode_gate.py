"""Whether a checkpoint may be given crops that a GPU decoded: only if it answers nearly as it does to Pillow's.

Both decoders get the same files (``decode_gate_pictures.py``). Two things are compared: the crops, of which each must
be close to Pillow's, and the checkpoint's answers, which must be the same class on nearly all. The first says that the
decoder works, for a network with random weights too; the second that this checkpoint does not mind the difference.

The limits come from a decoder that repeats the nearest sample of colour, as NVIDIA's does, and BVLC's GoogLeNet: 62 of
64 answers agreed (on 48 photographs: all), and no crop differed by more than 0.73 of 256 levels in the mean, 1.12 with
the other preprocessings. Of six wrong decoders (colours swapped, without colours, of another matrix or range, shifted
by a pixel, resized without antialiasing), none had fewer than 2.1 levels in its worst crop, nor more than 56 answers
that agreed.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from models.images.baseline import Baseline, baseline
from models.images.pictures import decode
from models.images.preprocess import Preprocess, crop
from service.engines import Engine
from service.inference.decoding import Crop
from service.runtime.decode_gate_pictures import files

#: The share of pictures that must get the class that they get with Pillow's crops.
AGREES = 0.92
#: By how many levels of 256 a crop may differ from Pillow's, in the mean over its pixels.
DIFFERS = 1.5
_LIMIT = 1 << 30


class BatchDecoder(Protocol):
    """What decodes on a GPU: ``engines.jpeg_gpu.GpuJpegs`` is one."""

    def decode_batch(self, files: Sequence[Baseline], preprocess: Preprocess) -> list[Crop | Exception]:
        """The crop of each file, or why it has none. Blocks; any thread may call it."""
        ...


class Verdict(NamedTuple):
    """How a GPU's crops did beside Pillow's."""

    pictures: int
    """How many pictures there were."""
    failed: int
    """How many of them the GPU did not decode."""
    difference: float = 0.0
    """The largest mean difference of a crop, in levels of 256."""
    agreement: float = 1.0
    """The share of answers that were the same class."""

    @property
    def passed(self) -> bool:
        return not self.failed and self.difference <= DIFFERS and self.agreement >= AGREES

    def __str__(self) -> str:
        if self.failed:
            return f"it failed on {self.failed} of {self.pictures} pictures"
        return (
            f"{100 * self.agreement:.1f} % of {self.pictures} pictures get the same class (at least {100 * AGREES:g} %)"
            f" and a crop differs by up to {self.difference:.2f} levels (at most {DIFFERS:g})"
        )


def compare(engine: Engine, decoder: BatchDecoder, preprocess: Preprocess) -> Verdict:
    """Compares what a loaded checkpoint answers to a GPU's crops and to Pillow's. Blocks for a few hundred
    milliseconds, some seconds the first time."""
    exact = _by_pillow(preprocess)
    found = decoder.decode_batch(_ordinary(), preprocess)
    crops = [answer for answer in found if not isinstance(answer, Exception)]
    if len(crops) < len(exact):
        return Verdict(len(exact), len(exact) - len(crops))
    decoded = np.stack(crops)
    difference = np.abs(decoded.astype(np.int16) - exact).mean(axis=(1, 2, 3)).max()
    agreement = np.mean(_classes(engine, decoded) == _classes(engine, exact))
    return Verdict(len(exact), 0, float(difference), float(agreement))


def _classes(engine: Engine, crops: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """The most probable class of each crop."""
    # As the batcher would: an engine need not take more than its largest batch.
    size = 16
    return np.concatenate([engine.run(crops[at : at + size]).indices[:, 0] for at in range(0, len(crops), size)])


@functools.cache
def _ordinary() -> tuple[Baseline, ...]:
    return tuple(found for file in files() if (found := baseline(file, max_pixels=_LIMIT)) is not None)


@functools.lru_cache(maxsize=4)
def _by_pillow(preprocess: Preprocess) -> npt.NDArray[np.uint8]:
    # All pixels, as the GPU decodes them: at a part of its size a photograph's crop for 32 pixels differs by 3 levels.
    return np.stack([crop(decode(file, "RGB", max_pixels=_LIMIT), preprocess) for file in files()])
