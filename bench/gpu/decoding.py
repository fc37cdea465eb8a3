"""How many pictures a second the cores decode with Pillow, as the service does: ``python -m bench.gpu.decoding``.

Processes, since threads of one would wait for each other at the interpreter's lock.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection

from bench.gpu.pictures import photograph
from models.images.preprocess import PRESETS, picture_to_crop

#: googlenet's preprocessing, and inception's but for the size.
_PRESET = PRESETS["half-224"]
_LIMIT = 80_000_000


def counts(cores: int) -> list[int]:
    """1, 2, 4 and so on, and all cores."""
    return sorted({cores, *(2**n for n in range(cores.bit_length()) if 2**n <= cores)})


def measured(processes: int, seconds: float, picture: bytes) -> float:
    """Pictures a second of so many processes together."""
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe() for _ in range(processes)]
    children = [context.Process(target=_child, args=(theirs, picture, seconds)) for _, theirs in pipes]
    for child, (_, theirs) in zip(children, pipes, strict=True):
        child.start()
        # The child has its own: once that is closed, reading ends.
        theirs.close()
    try:
        for ours, _ in pipes:
            _received(ours)
        begin = time.monotonic() + 0.05
        for ours, _ in pipes:
            ours.send(begin)
        return sum(float(_received(ours)) for ours, _ in pipes)
    finally:
        for child, (ours, _) in zip(children, pipes, strict=True):
            ours.close()
            child.join(5)
            child.kill()
            child.join()
            child.close()


def _received(pipe: Connection, within_s: float = 60) -> float:
    if not pipe.poll(within_s):
        raise TimeoutError("a process that decodes did not answer")
    found: float = pipe.recv()
    return found


def _child(pipe: Connection, picture: bytes, seconds: float) -> None:
    picture_to_crop(picture, _PRESET, max_pixels=_LIMIT)
    pipe.send(0.0)
    begin = float(pipe.recv())
    time.sleep(max(0.0, begin - time.monotonic()))
    began, done = time.monotonic(), 0
    while time.monotonic() < began + seconds:
        picture_to_crop(picture, _PRESET, max_pixels=_LIMIT)
        done += 1
    pipe.send(done / (time.monotonic() - began))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--processes", nargs="+", type=int, default=counts(len(os.sched_getaffinity(0))))
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args(arguments)
    for processes in options.processes:
        print(f"{processes:3} processes: {measured(processes, options.seconds, photograph()):.0f} pictures/s")


if __name__ == "__main__":
    main()
