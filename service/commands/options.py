"""The settings and the catalogue that commands work with."""

from __future__ import annotations

import os
from typing import Any

import typer
from pydantic import ValidationError
from rich.markup import escape

from models.checkpoints.catalogue import Catalogue
from models.validation import first_error
from service.commands.console import fail, print_left_out
from service.config.settings import Settings, misspelt


def setting(name: str, *flags: str) -> Any:
    """A command-line option that overrides a setting, with the setting's own description and default."""
    field = Settings.model_fields[name]
    default = "the user's cache folder" if field.default_factory else str(field.default) or "none"
    # Typer must not read the variable itself: Settings does, and reports a bad value in one line.
    text = f"{field.description} [env var: TOPFIVE_{name.upper()}]"
    return typer.Option(*flags, help=escape(text), show_default=default)


def read_settings(**options: Any) -> Settings:
    """Reads the settings from the environment; options that are not None win. Ends the command if a value is invalid or
    the name of a TOPFIVE_* variable looks like a misspelt setting."""
    if slip := misspelt(os.environ):
        fail(f"there is no setting {slip[0]}; did you mean {slip[1]}?", 2)
    try:
        return Settings(**{name: value for name, value in options.items() if value is not None})
    except ValidationError as error:
        name, value, reason, _ = first_error(error)
        fail(f"TOPFIVE_{name.upper()} (--{name.replace('_', '-')}) = {value!r}: {reason}", 2)


def open_catalogue(untrained: bool = False) -> Catalogue:
    """The catalogue of the cache folder that the settings name; files that it leaves out are reported."""
    return Catalogue(read_settings().cache_dir, untrained=untrained, left_out=print_left_out)
