"""Reads what Docker would read: docker-compose.yml by Compose's own command line, the Dockerfile, and .dockerignore."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
DOCKERFILE = ROOT / "service" / "deploy" / "Dockerfile"
PROFILES = ("cpu", "gpu")


def tool(name: str) -> str:
    """A program that a package of the virtual environment brings, or one on the PATH."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.is_file() else shutil.which(name)
    assert found is not None, f"{name} is not installed; make install brings it"
    return found


def compose(*arguments: str, **variables: str) -> str:
    """What Compose prints, with no variables of this shell but the given ones. It may have nothing to warn of."""
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ} | variables
    command = [tool("docker-compose"), "--project-directory", str(ROOT), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@cache
def services(profile: str) -> dict[str, dict[str, Any]]:
    """What a profile starts, by name, everything filled in."""
    found: dict[str, dict[str, Any]] = json.loads(compose("--profile", profile, "config", "--format", "json"))[
        "services"
    ]
    return found


def topfive(profile: str) -> dict[str, Any]:
    """The one service of a profile that is built from this tree."""
    (service,) = (service for service in services(profile).values() if "build" in service)
    return service


def on_this_side(service: dict[str, Any], path: str) -> Path:
    """What a path in a container is in this tree, by the service's bind mounts."""
    for volume in service["volumes"]:
        if volume["type"] == "bind" and Path(path).is_relative_to(volume["target"]):
            return Path(volume["source"]) / Path(path).relative_to(volume["target"])
    raise AssertionError(f"nothing of this tree is mounted at {path}")


class Instruction(NamedTuple):
    """One of the Dockerfile's, continued lines put together."""

    name: str
    arguments: str

    @property
    def words(self) -> list[str]:
        """The arguments, of a health check its command alone. Those of the exec form are JSON."""
        text = self.arguments.partition("CMD ")[2] if self.name == "HEALTHCHECK" else self.arguments
        return json.loads(text) if text.startswith("[") else text.split()


def dockerfile() -> list[Instruction]:
    """Its instructions, in order."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.lstrip().startswith("#")]
    whole = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [Instruction(*line.split(maxsplit=1)) for line in whole.splitlines() if line]


def last_words(name: str) -> list[str]:
    """Of the last such instruction, which is the one that counts."""
    return [instruction for instruction in dockerfile() if instruction.name == name][-1].words


def is_ignored(path: str) -> bool:
    """Whether .dockerignore keeps a path, relative to the root, out of the image. The last rule that fits wins, and a
    rule that fits a folder fits all that is in it."""
    ignored = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        is_rule = bool(line) and not line.startswith("#")
        if is_rule and re.fullmatch(_pattern(line.lstrip("!")) + "(/.*)?", path):
            ignored = not line.startswith("!")
    return ignored


def _pattern(rule: str) -> str:
    """Docker's wildcards as a regular expression: ** is any number of folders, * does not cross one."""
    parts = {"**/": "(.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(parts.get(piece) or re.escape(piece) for piece in re.split(r"(\*\*/|\*\*|\*|\?)", rule))
