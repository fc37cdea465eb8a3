"""The command line of a process that measures: what is written is read again."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from models.checkpoints.catalogue import Catalogue
from service.engines import DeviceError
from service.engines.loader import Loader
from service.profiling.child import command, parsed, parser


@pytest.mark.parametrize("untrained", [False, True])
def test_a_command_is_read_as_it_was_written(tmp_path: Path, untrained: bool) -> None:
    checkpoint = Catalogue(tmp_path, untrained=untrained).find("lenet5")
    loader = Loader("torch_cpu", "cpu", "bfloat16", 3, tmp_path, 5)
    python, flag, module, *arguments = command("some.module", checkpoint, loader)
    assert (python, flag, module) == (sys.executable, "-m", "some.module")
    reader = parser("some.module")
    reader.add_argument("--more", type=int)
    found, read, options = parsed(reader, [*arguments, "--more", "7"])
    assert (found, read, options.more) == (checkpoint, loader, 7)


def test_a_device_that_is_not_here_is_an_error(tmp_path: Path) -> None:
    checkpoint = Catalogue(tmp_path).find("lenet5")
    _, _, _, *arguments = command("some.module", checkpoint, Loader("torch_cuda", "cuda:99", "auto", 1, tmp_path, 5))
    with pytest.raises(DeviceError, match="cuda:99"):
        parsed(parser("some.module"), arguments)
