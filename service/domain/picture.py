"""A picture whose encoded bytes another process has, as a predictor sees it."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from models.images.outline import Outline
from models.images.preprocess import Preprocess


class Decoded(NamedTuple):
    """A decoded picture."""

    crop: npt.NDArray[np.uint8]
    """(side, side, channels), as ``preprocess.crop`` makes it."""
    decode_s: float


class Picture(Protocol):
    """A picture of another process, which decodes it when it is asked to."""

    @property
    def outline(self) -> Outline | None:
        """What the other process has said of the work of decoding it."""
        ...

    def __len__(self) -> int:
        """Encoded bytes."""
        ...

    def here(self, preprocess: Preprocess) -> Decoded | None:
        """The crop, if the other process has sent it."""
        ...

    async def file(self) -> bytes | None:
        """Asks for the encoded bytes, and waits for them; None if the other process does not give them."""
        ...

    async def decoded(self, preprocess: Preprocess, max_pixels: int) -> Decoded:
        """Asks for the crop, and waits for it.

        Raises:
            FailedElsewhereError: the other process could not decode the picture.
        """
        ...
