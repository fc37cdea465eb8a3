"""The command line of the processes that measure a checkpoint: how it is written, and how it is read."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from models.checkpoints.catalogue import Catalogue, Checkpoint
from service.engines.loader import ENGINES, Loader, engine_loader


def command(module: str, checkpoint: Checkpoint, loader: Loader) -> list[str]:
    """The command that runs a module on a checkpoint, which the loader loads there too."""
    words = [sys.executable, "-m", module, checkpoint.variant.name]
    words += ["--device", loader.device, "--engine", loader.engine, "--precision", loader.precision]
    words += ["--threads", str(loader.threads), "--max-batch-size", str(loader.max_batch_size)]
    words += ["--cache-dir", str(loader.cache_dir)]
    return words + (["--labels", checkpoint.labels] if checkpoint.trained else ["--untrained"])


def parser(module: str) -> argparse.ArgumentParser:
    """A parser of such commands, to which a module adds options of its own."""
    found = argparse.ArgumentParser(prog=f"python -m {module}")
    found.add_argument("model")
    found.add_argument("--labels")
    found.add_argument("--untrained", action="store_true")
    found.add_argument("--cache-dir", type=Path, required=True)
    found.add_argument("--device", required=True)
    found.add_argument("--engine", choices=ENGINES, required=True)
    found.add_argument("--precision", required=True)
    found.add_argument("--threads", type=int, required=True)
    found.add_argument("--max-batch-size", type=int, required=True)
    return found


def parsed(
    reader: argparse.ArgumentParser, arguments: list[str] | None
) -> tuple[Checkpoint, Loader, argparse.Namespace]:
    """Reads a command line, or this process's own; returns the module's own options too.

    Raises:
        DeviceError, UnknownModelError: what it names does not exist here.
    """
    options = reader.parse_args(arguments)
    loader = engine_loader(
        device=options.device,
        engine=options.engine,
        precision=options.precision,
        threads=options.threads,
        cache_dir=options.cache_dir,
        max_batch_size=options.max_batch_size,
    )
    checkpoint = Catalogue(options.cache_dir, untrained=options.untrained).find(options.model, options.labels)
    return checkpoint, loader, options
