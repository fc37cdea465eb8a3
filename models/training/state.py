"""The state file, from which an interrupted training run goes on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from models.files import atomic_write
from models.training.errors import RecipeError, TrainingError


def save_state(path: Path, identity: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Writes to a temporary file beside the target that is renamed when whole.

    Raises:
        TrainingError: it could not be written; an older file is still in place.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path, mode=0o600, durable=True) as part, part.open("wb") as file:
            torch.save({"identity": dict(identity), "state": dict(state)}, file)
    except (OSError, RuntimeError) as error:
        # torch wraps what the file raises in a RuntimeError of many lines.
        cause = error.__context__ if isinstance(error.__context__, OSError) else error
        reason = getattr(cause, "strerror", None) or str(cause).splitlines()[0]
        left = "the older file is still whole" if path.exists() else "there was none before"
        raise TrainingError(
            f"{path} could not be written ({reason}); {left}. Make room, then run this again"
        ) from error


def load_state(path: Path, identity: Mapping[str, Any]) -> dict[str, Any] | None:
    """Reads what ``save_state`` wrote; None if the file does not exist.

    Raises:
        RecipeError: the file is damaged, or was written by a run with another identity.
    """
    if not path.exists():
        return None
    instead = "delete it, or name another with --state"
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
        theirs, state = found["identity"], found["state"]
        different = [key for key in {**identity, **theirs} if theirs.get(key) != identity.get(key)]
    except Exception as error:
        # torch.load raises UnpicklingError, RuntimeError, EOFError, KeyError ... on damaged files.
        raise RecipeError(f"{path} is damaged, or not the state of a training run: {instead}") from error
    if different:
        key = different[0]
        told = f"{key.replace('_', ' ')} {theirs.get(key)} there, {identity.get(key)} here"
        raise RecipeError(f"{path} is of another run ({told}): {instead}")
    if not isinstance(state, dict):
        raise RecipeError(f"{path} is damaged, or not the state of a training run: {instead}")
    return state
