"""Engine loops of one network: ``python -m bench.gpu.engines NETWORK``.

Prints a line of JSON with the device's name, then one for each precision and batch size as soon as it is measured, so
that a run which is cut off keeps what it has. A loop has two batches under way wherever the engine takes them, as the
service does; ``ms`` is of one batch alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.checkpoints.catalogue import Catalogue, Checkpoint
from service.engines import Engine, OverlappingEngine

PRECISIONS = ("float32", "bfloat16")
BATCHES = (16, 64, 128)
#: Passes before a loop, and passes of which the time of one alone is the median.
_WARM, _ALONE = 3, 9


def loops(engine: Engine, crops: npt.NDArray[np.uint8], seconds: float) -> dict[str, float]:
    """Pictures a second of a loop over one batch, and milliseconds of one alone."""
    for _ in range(_WARM):
        engine.run(crops)
    alone = []
    for _ in range(_ALONE):
        began = time.perf_counter()
        engine.run(crops)
        alone.append(time.perf_counter() - began)
    began = time.perf_counter()
    passes = sum(1 for _ in _passes(engine, crops, began + seconds))
    per_second = passes * len(crops) / (time.perf_counter() - began)
    return {"per_second": per_second, "ms": 1000 * statistics.median(alone)}


def _passes(engine: Engine, crops: npt.NDArray[np.uint8], until: float) -> Iterator[None]:
    """Runs passes until a time, and yields after each."""
    if not isinstance(engine, OverlappingEngine):
        while time.perf_counter() < until:
            engine.run(crops)
            yield
        return
    running = engine.submit(crops)
    while time.perf_counter() < until:
        following = engine.submit(crops)
        engine.collect(running)
        running = following
        yield
    engine.collect(running)
    yield


def measured(
    checkpoint: Checkpoint, precisions: Sequence[str], batches: Sequence[int], seconds: float, *, pretend: bool
) -> Iterator[dict[str, Any]]:
    """The device, then a row for each loop."""
    side, channels = checkpoint.preprocess.side, checkpoint.preprocess.channels
    crops = np.random.default_rng(0).integers(0, 256, (max(batches), side, side, channels), dtype=np.uint8)
    if pretend:
        yield {"device": "pretended device", "torch": "not used"}
    else:
        import torch

        yield {"device": torch.cuda.get_device_name(0), "torch": torch.__version__}
    for precision in precisions:
        engine = _loaded(checkpoint, precision, max(batches), pretend)
        engine.warm_up(max(batches))
        for batch in batches:
            row = {"network": checkpoint.variant.name, "precision": precision, "batch": batch}
            yield {**row, **loops(engine, crops[:batch], seconds)}
        engine.close()


def _loaded(checkpoint: Checkpoint, precision: str, largest: int, pretend: bool) -> Engine:
    if pretend:
        from service.engines.pretend import PretendEngine

        return PretendEngine(checkpoint)
    from service.engines.loader import engine_loader

    with tempfile.TemporaryDirectory() as cache:
        load = engine_loader(
            device="cuda",
            engine=None,
            precision=precision,
            threads=1,
            cache_dir=Path(cache),
            max_batch_size=largest,
        )
        return load(checkpoint)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("network")
    parser.add_argument("--precisions", nargs="+", default=PRECISIONS)
    parser.add_argument("--batches", nargs="+", type=int, default=BATCHES)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each loop")
    parser.add_argument("--pretend", action="store_true")
    options = parser.parse_args(arguments)
    checkpoint = Catalogue(untrained=True).find(options.network)
    rows = measured(checkpoint, options.precisions, options.batches, options.seconds, pretend=options.pretend)
    for row in rows:
        sys.stdout.write(json.dumps(row) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
