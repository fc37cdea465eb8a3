"""``topfive``: the command line."""

from __future__ import annotations

import typer

from service.commands.classify import classify
from service.commands.describe import describe
from service.commands.evaluate import evaluate
from service.commands.export import export
from service.commands.import_ import import_
from service.commands.keys import app as keys
from service.commands.loadtest import loadtest
from service.commands.models import models
from service.commands.profile import profile
from service.commands.pull import pull
from service.commands.serve import serve
from service.commands.simulate import simulate
from service.commands.status import status
from service.commands.train import train

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="The classic image networks as a microservice: five labels a picture.",
)
app.command()(describe)
app.command()(profile)
app.command()(loadtest)
app.command()(simulate)
app.command()(train)
app.command()(evaluate)
app.command()(serve)
app.command()(models)
app.command()(classify)
app.command()(pull)
app.command()(status)
app.command(name="import")(import_)
app.command()(export)
app.add_typer(keys, name="keys")


def main() -> None:
    """The entry point of the ``topfive`` command."""
    app()


if __name__ == "__main__":
    main()
