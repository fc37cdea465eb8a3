"""Writes the dashboards as JSON files to the folder that Grafana's provisioning reads."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from service.observability.dashboards.batching import batching
from service.observability.dashboards.memory import memory
from service.observability.dashboards.overview import overview

FOLDER: Final = Path(__file__).parent.parent / "grafana" / "dashboards"


def files() -> dict[str, str]:
    """The text of each file, by its name."""
    boards = {"overview.json": overview(), "batching.json": batching(), "memory.json": memory()}
    return {name: as_json(board) for name, board in boards.items()}


def as_json(board: Dashboard) -> str:
    """A dashboard as JSON with sorted keys, so that a change of one panel changes few lines of the file."""
    return JSONEncoder(indent=2, sort_keys=True, ensure_ascii=False).encode(board.build()) + "\n"


def main() -> None:
    """Writes all files."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in files().items():
        path = FOLDER / name
        unfinished = path.with_suffix(".unfinished")
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)


if __name__ == "__main__":
    main()
