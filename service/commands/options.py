"""Settings as options of commands."""

from __future__ import annotations

import os
from typing import Any

import typer
from pydantic import ValidationError
from rich.markup import escape

from models.checkpoints.catalogue import Catalogue
from service.commands.console import fail, print_left_out
from service.config.settings import Settings, misspelt


def setting(name: str, *flags: str) -> Any:
    """An option of ``serve`` that overrides a setting; its text and default are the setting's own."""
    field = Settings.model_fields[name]
    default = "the user's cache folder" if field.default_factory else str(field.default) or "none"
    # Settings reads the variable, and says in one line what is wrong with it.
    text = f"{field.description} [env var: TOPFIVE_{name.upper()}]"
    return typer.Option(*flags, help=escape(text), show_default=default)


def read_settings(**options: Any) -> Settings:
    """The settings, over which options win; a bad value ends the command, and so does a variable whose name is a
    setting's with a slip."""
    if slip := misspelt(os.environ):
        fail(f"there is no setting {slip[0]}; did you mean {slip[1]}?", 2)
    try:
        return Settings(**{name: value for name, value in options.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0])
        fail(f"TOPFIVE_{name.upper()} (--{name.replace('_', '-')}) = {first['input']!r}: {first['msg']}", 2)


def open_catalogue(untrained: bool = False) -> Catalogue:
    return Catalogue(read_settings().cache_dir, untrained=untrained, left_out=print_left_out)
