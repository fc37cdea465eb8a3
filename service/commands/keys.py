"""``topfive keys``: the keys of a service's callers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from service.commands.console import console, errors, fail
from service.commands.options import read_settings

if TYPE_CHECKING:
    from service.access.keys import Key

app = typer.Typer(no_args_is_help=True, help="Make, list and revoke the keys of a service's callers.")
_FILE = typer.Option("--file", help="The file of keys; by default the one that TOPFIVE_API_KEYS names.")


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="What the key is called, in lists and logs.")],
    role: Annotated[
        str, typer.Option(help="classify, or operate, which may load and unload networks too.")
    ] = "classify",
    rate_requests: Annotated[
        str | None,
        typer.Option(help="Pictures that it may send, in the place of TOPFIVE_RATE_REQUESTS.", show_default=False),
    ] = None,
    rate_device_s: Annotated[
        float | None,
        typer.Option(help="Device seconds a minute, in the place of TOPFIVE_RATE_DEVICE_S.", show_default=False),
    ] = None,
    file: Annotated[Path | None, _FILE] = None,
) -> None:
    """Make a key and print it, this one time."""
    from service.access.keys import KeysError, add_key

    path = _path(file)
    try:
        key = add_key(path, name, role, rate_requests, rate_device_s)
    except KeysError as error:
        fail(error)
    # Alone on standard output: KEY=$(topfive keys add ...).
    print(key)  # noqa: T201
    errors.print(
        f"[green]added[/] {escape(name)} ({escape(role)}) to {escape(str(path))}", highlight=False, soft_wrap=True
    )
    errors.print("This is the only time that the key is shown: the file has its hash.", style="dim")


@app.command(name="list")
def list_(
    file: Annotated[Path | None, _FILE] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the keys: names, roles and rates, no secrets."""
    from service.access.keys import KeysError, read_keys

    try:
        keys = read_keys(_path(file))
    except KeysError as error:
        fail(error)
    if as_json:
        print(json.dumps({"keys": [_row(key) for key in keys]}, indent=2))  # noqa: T201
        return
    table = Table(box=None, pad_edge=False)
    for column in ("name", "role", "rate", "device seconds a minute", "made"):
        table.add_column(column)
    for key in keys:
        device = "" if key.rate_device_s is None else f"{key.rate_device_s:g}"
        table.add_row(escape(key.name), key.role, escape(key.rate_requests or ""), device, escape(key.created))
    console.print(table)


@app.command()
def revoke(
    name: Annotated[str, typer.Argument(help="The name of the key.")],
    file: Annotated[Path | None, _FILE] = None,
) -> None:
    """Remove a key. Running services refuse it within two seconds."""
    from service.access.keys import KeysError, revoke_key

    path = _path(file)
    try:
        revoke_key(path, name)
    except KeysError as error:
        fail(error)
    errors.print(f"[green]revoked[/] {escape(name)}", highlight=False)


def _path(file: Path | None) -> Path:
    found = file or read_settings().api_keys
    if found is None:
        fail("which file? Set TOPFIVE_API_KEYS, as the service has it, or give --file", 2)
    return found


def _row(key: Key) -> dict[str, Any]:
    return key.model_dump(exclude={"sha256"})
