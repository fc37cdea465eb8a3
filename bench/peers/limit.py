"""The bare limit: TopFive's decode and engine in a loop, without HTTP. ``limit.py NETWORK --picture FILE``.

A batch is decoded in as many threads as there are cores, then run; ``--engine-only`` leaves the decode out. Prints one
line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from models.checkpoints.catalogue import Catalogue, cache_dir
from models.images.preprocess import picture_to_crop
from service.engines import blank
from service.engines.loader import engine_loader

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("network")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--picture", type=Path)
    what.add_argument("--engine-only", action="store_true")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    checkpoint = Catalogue(untrained=True).find(options.network)
    load = engine_loader(device="cpu", engine=None, precision="float32", threads=options.threads, cache_dir=cache_dir())
    engine, times = load(checkpoint), list[float]()
    decode = partial(picture_to_crop, preprocess=checkpoint.preprocess, max_pixels=80_000_000)
    pictures = [] if options.engine_only else [options.picture.read_bytes()] * options.batch
    crops = blank(checkpoint.preprocess, options.batch)
    engine.warm_up(options.batch)
    for _ in range(3):
        engine.run(crops)
    with ThreadPoolExecutor(options.threads) as pool:
        cpu_before, ended = time.process_time(), (started := time.perf_counter())
        while ended < started + options.seconds:
            if pictures:  # a lone one has nobody to share with
                crops = np.stack(list(map(decode, pictures) if len(pictures) == 1 else pool.map(decode, pictures)))
            engine.run(crops)
            before, ended = ended, time.perf_counter()
            times.append(ended - before)
        cpu_s = time.process_time() - cpu_before
    figures = {
        "per_second": len(times) * options.batch / (ended - started),
        "p50_ms": float(np.quantile(times, 0.5)) * 1000,
        "p99_ms": float(np.quantile(times, 0.99)) * 1000,
        "cpu_s_per_picture": cpu_s / (len(times) * options.batch),
        "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps(figures))
