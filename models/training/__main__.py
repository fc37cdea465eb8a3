"""``python -m models.training lenet5 --data PATH [--out FILE]``"""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from models.checkpoints import Checkpoint
from models.importing import write_checkpoint
from models.lenet import lenet5 as build_lenet5
from models.preprocess import PRESETS
from models.training.lenet import Epoch, Recipe, accuracy, train
from models.training.mnist import DataError, read_mnist
from models.variants import find_variant

app = typer.Typer(add_completion=False, help="Trains the checkpoints in the box.")
console = Console(stderr=True)
_RECIPE = Recipe()


@app.callback()
def _main() -> None:
    """Keeps the network's name a command of its own while there is only one."""


@app.command()
def lenet5(
    data: Annotated[Path, typer.Option(help="MNIST: an .npz file, or the folder of the four IDX files.")],
    out: Annotated[Path, typer.Option(help="Where to write the checkpoint.")] = Path("lenet5-mnist.safetensors"),
    epochs: Annotated[int, typer.Option(min=1)] = _RECIPE.epochs,
    seed: Annotated[int, typer.Option()] = _RECIPE.seed,
    threads: Annotated[int, typer.Option(min=1, help="Threads; the result depends on them.")] = os.cpu_count() or 1,
) -> None:
    """LeNet-5 on MNIST's 60,000 digits; prints the accuracy on the 10,000 test digits."""
    try:
        digits = read_mnist(data)
    except DataError as error:
        console.print(f"[red]error[/]: {error}")
        raise typer.Exit(1) from error
    recipe = replace(_RECIPE, epochs=epochs, seed=seed)
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    network = build_lenet5()
    with _progress() as progress:
        task = progress.add_task("lenet5", total=epochs, state="")
        for epoch in train(network, digits, recipe):
            progress.update(task, advance=1, state=_state(epoch))
    top1 = accuracy(network, digits.test_pictures, digits.test_digits)
    checkpoint = Checkpoint(
        variant=find_variant("lenet5"),
        labels="mnist",
        origin=f"trained in this repository on MNIST's {len(digits.train_digits):,} training digits: {recipe}",
        preprocess=PRESETS["mnist"],
        top1=round(top1, 2),
        top5=None,
        accuracy_source=f"measured on MNIST's {len(digits.test_digits):,} test digits",
    )
    write_checkpoint(out, network, checkpoint)
    console.print(f"{out}: top-1 {top1:.2f} %, sha256 {hashlib.sha256(out.read_bytes()).hexdigest()}")


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, TextColumn("{task.fields[state]}"), console=console)


def _state(epoch: Epoch) -> str:
    return f"loss {epoch.loss:.4f}, top-1 {epoch.top1:.2f} %"


if __name__ == "__main__":
    app()
