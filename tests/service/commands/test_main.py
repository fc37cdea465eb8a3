"""The command line, without a server."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import socket
from pathlib import Path

import onnxruntime
import pytest
import torch
from typer.testing import CliRunner

from models import get_model
from models.checkpoints import catalogue as checkpoints
from models.checkpoints import manifest
from models.checkpoints.manifest import ManifestRow
from models.install import pull as pulling
from models.networks.variants import VARIANTS
from service.commands.main import app
from service.config.settings import Settings
from service.lifecycle import record as state
from tests.pictures import DIGIT, picture

runner = CliRunner()


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TOPFIVE_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def filled_cache(own_cache: Path, box_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the graph of the weights in the box may be on file, for tests that are not about its export."""
    monkeypatch.setenv("TOPFIVE_CACHE_DIR", str(box_cache))


def test_models_as_a_table_and_as_json() -> None:
    table = runner.invoke(app, ["models"])
    assert table.exit_code == 0
    lines = {line.split()[0]: line for line in table.output.splitlines()}
    for words in ("2014", "Simonyan", "138,357,544", "15,470.3 M", "614.4", "71.59", "weights missing", "553 MB"):
        assert words in lines["vgg16@imagenet1k"]
    assert "topfive pull NAME, or offline: topfive import NAME FILE" in table.output
    rows = {row["name"]: row for row in json.loads(runner.invoke(app, ["models", "--json"]).stdout)["models"]}
    assert {row["variant"] for row in rows.values()} == set(VARIANTS)
    assert rows["lenet5@mnist"]["state"] == "loadable"
    assert rows["vgg16@imagenet1k"]["multiply_adds"] == 15_470_264_320
    untrained = json.loads(runner.invoke(app, ["models", "--json", "--untrained"]).stdout)["models"]
    assert {row["state"] for row in untrained} == {"loadable"}
    assert all(row["name"].endswith("@untrained") for row in untrained)


@pytest.mark.usefixtures("filled_cache")
def test_classify_prints_labels_and_json() -> None:
    words = runner.invoke(app, ["classify", "lenet5", str(DIGIT), "-k", "1"])
    assert words.exit_code == 0
    assert words.output.split()[-1] == "3"
    answer = json.loads(runner.invoke(app, ["classify", "lenet5", str(DIGIT), "--json"]).stdout)
    assert answer["top5"][0]["label"] == "3"
    assert set(answer) == {"model", "checkpoint", "top5", "timings_ms", "batch_size"}


@pytest.mark.usefixtures("filled_cache")
def test_classify_several_files_of_which_one_is_bad(tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"text")
    result = runner.invoke(app, ["classify", "lenet5", str(DIGIT), str(bad), "--json"])
    assert result.exit_code == 1
    assert [entry["status"] for entry in json.loads(result.stdout)["results"]] == [200, 422]
    assert "no picture" in result.stderr


@pytest.mark.usefixtures("filled_cache")
def test_classify_reads_standard_input() -> None:
    result = runner.invoke(app, ["classify", "lenet5", "-", "--json"], input=DIGIT.read_bytes())
    assert json.loads(result.stdout)["top5"][0]["label"] == "3"


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


def test_a_taken_port_is_named_before_anything_starts() -> None:
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        port = stranger.getsockname()[1]
        result = runner.invoke(app, ["serve", "--port", str(port)])
    assert result.exit_code == 1
    assert f"port {port} is held by" in result.output
    assert f"(pid {os.getpid()})" in result.output


def one_line(arguments: list[str]) -> str:
    result = runner.invoke(app, arguments)
    assert result.exit_code == 1
    (line,) = result.output.strip().splitlines()
    return line


@pytest.mark.parametrize("mode", ["disabled", "Disabled", "none", ""])
def test_nothing_is_served_where_ray_would_obey_anybody(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", mode)
    assert f"RAY_AUTH_MODE={mode} would let anybody" in one_line(["serve", "--fleet", "galactic"])


@pytest.mark.parametrize("mode", ["token", "TOKEN"])
def test_rays_own_default_may_be_said(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", mode)
    assert "galactic" in one_line(["serve", "--fleet", "galactic"])


def test_too_few_open_files_are_said_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (100, 200))
    assert "limit on open files is too low" in one_line(["serve", "--fleet", "galactic"])


@pytest.mark.parametrize("command", [["serve"], ["status"]])
def test_a_folder_that_is_not_ours_is_one_line(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "_LONGEST_BASE", 4096)
    monkeypatch.setattr(state.tempfile, "gettempdir", lambda: str(tmp_path))
    (tmp_path / f"topfive-{os.getuid()}").symlink_to(tmp_path)
    assert "is a link, which is not followed" in one_line(command)


def test_import_then_classify(tmp_path: Path, own_cache: Path) -> None:
    """A LeNet-5 of one's own takes the place of the one in the box."""
    torch.manual_seed(3)
    file = tmp_path / "mine.pth"
    torch.save(get_model("lenet5").state_dict(), file)
    stored = runner.invoke(app, ["import", "lenet5", str(file)])
    assert stored.exit_code == 0
    assert "lenet5@mnist" in stored.output
    answer = json.loads(runner.invoke(app, ["classify", "lenet5", str(DIGIT), "--json"]).stdout)
    assert answer["checkpoint"]["origin"] == "imported from mine.pth"
    assert list(own_cache.rglob("*.part")) == []


def test_pull_from_a_mirror_on_disk_then_classify(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(4)
    file = tmp_path / "lenet5-of-somebody.pth"
    torch.save(get_model("lenet5").state_dict(), file)
    row = ManifestRow(
        variant="lenet5",
        labels="mnist",
        origin="somebody",
        preprocess="mnist",
        url=f"http://127.0.0.1:9/{file.name}",
        sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
        bytes=file.stat().st_size,
    )
    for module in (manifest, checkpoints, pulling):
        monkeypatch.setattr(module, "manifest", lambda: (row,))
    pulled = runner.invoke(app, ["pull", "--all", "--mirror", tmp_path.as_uri()])
    assert pulled.exit_code == 0, pulled.output
    assert "stored lenet5@mnist" in pulled.output
    answer = json.loads(runner.invoke(app, ["classify", "lenet5", str(DIGIT), "--json"]).stdout)
    assert answer["checkpoint"]["origin"] == "somebody"
    assert [path.name for path in own_cache.glob("checkpoints/*")] == ["lenet5@mnist.safetensors"]
    assert "nothing to pull" in runner.invoke(app, ["pull", "--all"]).output


def test_export_writes_the_graph_that_is_served(tmp_path: Path) -> None:
    file = tmp_path / "lenet5.onnx"
    assert runner.invoke(app, ["export", "lenet5", str(file)]).exit_code == 0
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    assert [(value.name, value.shape) for value in session.get_inputs()] == [("crops", ["n", 32, 32, 1])]
    assert [value.name for value in session.get_outputs()] == ["probabilities", "indices", "distribution"]
    missing = runner.invoke(app, ["export", "vgg16", str(file)])
    assert missing.exit_code == 1
    assert "topfive pull vgg16" in missing.stderr
    nowhere = runner.invoke(app, ["export", "lenet5", str(file / "below.onnx")])
    assert nowhere.exit_code == 1


def test_a_bad_environment_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOPFIVE_MAX_PIXELS", "many")
    result = runner.invoke(app, ["classify", "lenet5", str(DIGIT)])
    assert result.exit_code == 2
    assert "TOPFIVE_MAX_PIXELS" in result.output


def test_serve_help_lists_every_setting() -> None:
    text = runner.invoke(app, ["serve", "--help"], env={"COLUMNS": "250"}).output
    for name in Settings.model_fields:
        assert f"TOPFIVE_{name.upper()}" in text


def test_options_win_over_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[Settings] = []
    monkeypatch.setattr("service.lifecycle.supervisor.serve", lambda settings, _console: seen.append(settings))
    monkeypatch.setenv("TOPFIVE_PORT", "9001")
    monkeypatch.setenv("TOPFIVE_MAX_BATCH_SIZE", "4")
    assert runner.invoke(app, ["serve", "--port", "9002"]).exit_code == 0
    assert (seen[0].port, seen[0].max_batch_size) == (9002, 4)
    assert picture()


def test_damaged_weights_are_one_line_on_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOPFIVE_CACHE_DIR", str(tmp_path))
    lenet = checkpoints.Catalogue(tmp_path).find("lenet5")
    assert lenet.path is not None
    target = checkpoints.Catalogue(tmp_path).path_for(lenet.variant, "mnist")
    target.parent.mkdir()
    target.write_bytes(lenet.path.read_bytes().replace(b"output.weight", b"output.weigth"))
    result = runner.invoke(app, ["classify", "lenet5", str(DIGIT)])
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {target} does not fit lenet5: output.weight is missing")
    assert len(result.stderr.splitlines()) == 1


def test_files_that_are_left_out_are_listed_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOPFIVE_CACHE_DIR", str(tmp_path))
    target = checkpoints.Catalogue(tmp_path).path_for(checkpoints.Catalogue(tmp_path).find("lenet5").variant, "mnist")
    target.parent.mkdir()
    target.write_bytes(b"text")
    result = runner.invoke(app, ["models"])
    assert result.exit_code == 0
    assert f"left out {target}: it is not a complete safetensors file" in result.stderr
