"""The command line as a whole: it starts quickly, and tells what is wrong in a line."""

from __future__ import annotations

import subprocess
import sys

import pytest
import typer
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
        (["import", "lenet5", str(DIGIT)], "not a .safetensors, .pth or .onnx file"),
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


#: Packages that take long to import, and that no command needs before it runs.
HEAVY = ("torch", "torchvision", "ray", "onnx", "onnxruntime", "fastapi", "matplotlib", "httpx", "prometheus_client")


def test_help_imports_nothing_heavy_and_never_ray() -> None:
    code = "import sys\nfrom service.commands.main import app\n"
    code += f"try: app(['--help'])\nfinally: print('imported:', [name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Classify pictures without a server." in done.stdout
    assert done.stdout.splitlines()[-1] == "imported: []"


@pytest.mark.parametrize("module", ["service.commands", "service.commands.main"])
def test_the_package_runs_as_the_command(module: str) -> None:
    done = subprocess.run([sys.executable, "-m", module, "status", "--port", "1"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: no TopFive service of yours runs on this machine on port 1")


def test_every_command_is_there_and_has_a_help_text() -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    assert set(group.commands) == {
        "serve", "classify", "models", "pull", "import", "export", "status", "describe", "profile", "train", "evaluate",
        "loadtest", "keys", "simulate",
    }  # fmt: skip
    for command in group.commands.values():
        assert command.get_short_help_str()
        for parameter in command.params:
            assert getattr(parameter, "help", ""), f"{command.name} {parameter.name}"
