"""The command line, without a server."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from service.commands.main import app
from tests.pictures import DIGIT

runner = CliRunner()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["classify", "resnet50", str(DIGIT)], "unknown model"),
        (["classify", "vgg16", str(DIGIT)], "topfive import vgg16"),
        (["classify", "lenet5", "no-such-file.png"], "no-such-file.png"),
        (["classify", "lenet5", str(DIGIT), "-k", "0"], "greater than or equal to 1"),
        (["classify", "lenet5", str(DIGIT), "--device", "tpu"], "TOPFIVE_DEVICE"),
        (["import", "resnet50", str(DIGIT)], "unknown model"),
        (["import", "lenet5", str(DIGIT)], "no .safetensors, .pth or .onnx file"),
        (["import", "lenet5", "no-such-file.pth"], "there is no file"),
        (["import", "lenet5", str(DIGIT), "--preprocess", "sideways"], "torchvision-224"),
        (["serve", "--fleet", "galactic"], "galactic"),
        (["pull"], "--all"),
        (["pull", "vgg16", "--all"], "--all"),
        (["pull", "resnet50"], "unknown model"),
        (["pull", "googlenet", "--mirror", "http://127.0.0.1:9"], "cannot fetch googlenet-12.onnx from 127.0.0.1:9"),
        (["pull", "googlenet", "--mirror", "file:///no/such/folder"], "No such file"),
        (["status", "--port", "1"], "no TopFive service"),
        (["serve", "--port", "99999"], "TOPFIVE_PORT"),
        (["serve", "--host", "198.51.100.7"], "'198.51.100.7' is not an address of this machine"),
        (["serve", "--host", "no-such-host.invalid"], "--host 'no-such-host.invalid' cannot be listened on"),
        (["serve", "--precision", "int8"], "TOPFIVE_PRECISION"),
    ],
)
def test_bad_input_is_one_line_and_no_traceback(arguments: list[str], says: str) -> None:
    result = runner.invoke(app, arguments)
    assert result.exit_code in (1, 2)
    assert says in " ".join(result.output.split())
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
