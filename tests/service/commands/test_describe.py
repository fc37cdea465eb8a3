"""``topfive describe`` on the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from models import list_models
from models.analysis import description
from models.analysis.description import Description
from models.analysis.history import ILSVRC
from models.checkpoints.catalogue import Checkpoint
from models.images.preprocess import PRESETS
from models.networks.variants import VARIANTS
from service.commands import console as terminal
from service.commands.main import app
from tests.cards import put

runner = CliRunner()
ALIASES = [alias for variant in VARIANTS.values() for alias in variant.aliases]


@pytest.fixture(scope="module", autouse=True)
def analysed_once() -> Iterator[None]:
    """Analyses each network once, for the first test that asks for it."""
    known: dict[tuple[str, bool], Description] = {}
    describe = description.describe

    def remembering(checkpoint: Checkpoint, *, as_graph: bool = False) -> Description:
        if checkpoint.modified_ns is not None:
            return describe(checkpoint, as_graph=as_graph)
        key = (checkpoint.name, as_graph)
        if key not in known:
            known[key] = describe(checkpoint, as_graph=as_graph)
        return known[key]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(description, "describe", remembering)
        yield


@pytest.fixture(autouse=True)
def piped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives consoles the width of a pipe, even if the tests run on a terminal."""
    for console in (terminal.console, terminal.errors):
        monkeypatch.setattr(console, "width", 160)


def told(*arguments: str) -> str:
    """What a successful command prints."""
    result = runner.invoke(app, ["describe", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_network_as_a_table() -> None:
    text = told("googlenet")
    cells = {line.split()[0]: line.split() for line in text.splitlines() if line.strip()}
    modules = [f"inception{name}" for name in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")]
    assert [name for name in cells if name.startswith("inception")] == modules
    assert cells["inception3a"] == [
        *("inception3a", "inception", "28x28x256", "2", "64", "96", "128", "16", "32", "32"),
        *("163,696", "128.0", "1,715", "59x59", "8"),
    ]
    assert cells["total"] == ["total", "22", "6,998,552", "1,582.7", "18,735"]
    assert cells["checkpoint"] == ["checkpoint", "googlenet@imagenet1k:", "weights", "missing"]
    assert "geometry: the original; in the ONNX Model Zoo's graph pools round down (--as-graph)" in text
    assert "the auxiliary heads' 6,379,728 parameters" in text
    assert ["batch", "1", "batch", "16"] in [line.split() for line in text.splitlines()]


def test_a_network_as_json() -> None:
    document = json.loads(told("googlenet", "--json", "--batch", "8", "--memory", "3GiB"))
    assert (document["name"], document["params"], document["depth"]) == ("googlenet", 6_998_552, 22)
    assert document["memory_limit"] == 3 * 2**30
    assert set(document["memory"]["float32"]["training"]) == {"1", "8"}
    assert set(document["largest_batch"]) == {"float32", "float16"}


def test_the_largest_batches_for_a_limit() -> None:
    lines = told("vgg16", "--memory", "3GiB", "--batch", "2").splitlines()
    assert next(line for line in lines if "largest batch" in line).split()[-4:] == ["largest", "batch", "in", "3.0GiB"]
    last = {line.split("  ")[0]: line.split()[-1] for line in lines if line.startswith(("inference", "training, "))}
    assert last["training, float32"] == "12"
    assert list(last) == [
        f"{purpose}, {dtype}" for purpose in ("inference", "training") for dtype in ("float32", "float16")
    ]
    assert "none fits" in told("vgg16", "--memory", "1GiB")


def test_vgg16_takes_586_mib_for_a_picture_and_not_megabytes() -> None:
    """614.4 MB, which is known as 600 MB a picture: 527.8 MiB of parameters and 58.1 of activations."""
    (line,) = [line.split() for line in told("vgg16").splitlines() if line.startswith("inference, float32")]
    assert line[2] == "585.9"


def test_in_the_zoos_geometry() -> None:
    text = told("alexnet", "--as-graph")
    assert "geometry: the ONNX Model Zoo's graph: pictures have 224 pixels" in text
    assert "54x54x96" in text
    assert "55x55x96" in told("alexnet")
    assert "55x55x64" in told("googlenet", "--as-graph")


def test_a_checkpoint_is_described_as_it_is_served(own_cache: Path) -> None:
    put(own_cache, "alexnet", "cifar10", network={"pool_first": True})
    document = json.loads(told("alexnet@cifar10", "--json"))
    assert (document["checkpoint"], document["state"]) == ("alexnet@cifar10", "loadable")
    assert document["layers"][-1]["output"] == [10]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        *(
            (["googlenet", "--memory", bad], 2, f"--memory {bad}: give bytes, or a number and a unit, as in 3GiB")
            for bad in ("three", "-1", "0", "")
        ),
        (["googlenet", "--batch", "0"], 2, "greater than or equal to 1"),
        (["resnet50"], 1, f"unknown model 'resnet50'; known: {', '.join(sorted([*VARIANTS, *ALIASES]))}"),
        (["--compare", "vgg16", "resnet50"], 1, "unknown model 'resnet50'; known: alexnet,"),
        (["googlenet@mnist"], 1, "unknown model 'googlenet@mnist'"),
        ([], 2, "name one network, or several with --compare; topfive models lists them"),
        (["alexnet", "vgg16"], 2, "name one network, or several with --compare; topfive models lists them"),
        (["--history", "alexnet"], 2, "--history stands alone"),
        (["--history", "--compare"], 2, "--history stands alone"),
        (["--history", "--compare", "alexnet"], 2, "--history stands alone"),
    ],
)
def test_bad_input_is_one_line_and_no_traceback(arguments: list[str], code: int, says: str) -> None:
    result = runner.invoke(app, ["describe", *arguments])
    assert result.exit_code == code
    assert result.stdout == ""
    assert says in " ".join(result.stderr.split())
    assert "Traceback" not in result.output
    assert isinstance(result.exception, SystemExit)
    if says != "greater than or equal to 1":  # typer's own, in a frame
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("bad", ["1,5GiB", "3GiB-1", "3GiB or so"])
def test_a_size_with_trailing_text_is_refused(bad: str) -> None:
    assert runner.invoke(app, ["describe", "lenet5", "--memory", bad]).exit_code == 2


def test_a_card_with_an_unknown_network_option_is_one_line(own_cache: Path) -> None:
    """The file is left out, and the checkpoint in the box is described."""
    put(own_cache, "googlenet", "imagenet1k", network={"nonsense": 1})
    result = runner.invoke(app, ["describe", "googlenet"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0
    assert result.stderr.startswith("left out ")
    assert "nonsense" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_card_whose_pictures_the_network_does_not_take_is_one_line(own_cache: Path) -> None:
    put(own_cache, "lenet5", "cifar10", preprocess=PRESETS["half-224"])
    result = runner.invoke(app, ["describe", "lenet5@cifar10"])
    assert isinstance(result.exception, SystemExit)
    assert result.exit_code == 1
    assert "lenet5 cannot be built as its card asks" in result.stderr


def test_the_comparison_has_every_network() -> None:
    lines = told("--compare").splitlines()
    names = [line.split()[0] for line in lines[1:] if line and not line.startswith(" ")]
    assert names == list_models()
    assert len(names) == 16
    vgg16 = next(line for line in lines if line.startswith("vgg16 ")).split()
    assert vgg16[:10] == ["vgg16", "2014", "16", "138,357,544", "1", "15,470.3", "M", "1", "614.4", "1"]
    assert "(mnist)" in next(line for line in lines if line.startswith("lenet5"))


def test_the_comparison_of_a_few_keeps_their_order() -> None:
    document = json.loads(told("--compare", "googlenet", "vgg", "alexnet", "--json"))
    assert [row["name"] for row in document["networks"]] == ["googlenet", "vgg16", "alexnet"]
    assert document["networks"][1]["params_ratio"] == 1.0
    assert len(json.loads(told("--compare", "--json"))["networks"]) == 16


def test_history() -> None:
    lines = told("--history").splitlines()[1:]
    assert [line.split()[:3] for line in lines] == [
        [str(entry.year), entry.name, f"{entry.top5_error:.1f}"] for entry in ILSVRC
    ]
    entries = json.loads(told("--history", "--json"))["ilsvrc"]
    assert [(entry["year"], entry["variant"]) for entry in entries] == [(e.year, e.variant) for e in ILSVRC]


@pytest.mark.parametrize("arguments", [["googlenet"], ["--compare", "vgg16", "googlenet"], ["--history"]], ids=" ".join)
def test_a_chart_is_drawn_beside_the_table(arguments: list[str], tmp_path: Path) -> None:
    file = tmp_path / "a [bold] name.png"
    text = told(*arguments, "--plot", str(file))
    assert text.splitlines()[-1] == f"drawn {file}"
    with Image.open(file) as picture:
        assert picture.format == "PNG"
    file.unlink()
    json.loads(told(*arguments, "--plot", str(file), "--json"))
    assert file.is_file()
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_a_chart_in_a_missing_folder_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "missing" / "history.png"
    result = runner.invoke(app, ["describe", "--history", "--plot", str(file)])
    assert result.exit_code == 1
    assert result.stderr == f"error: cannot write {file}: No such file or directory\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [*VARIANTS, *ALIASES])
def test_every_name_is_described_and_no_cell_is_cut_short(name: str) -> None:
    text = told(name)
    assert text.split()[0] == next(row.name for row in VARIANTS.values() if name in (row.name, *row.aliases))
    assert "…" not in text
    assert "total" in text


def test_no_cell_of_the_comparison_or_the_history_is_cut_short() -> None:
    assert "…" not in told("--compare") + told("--history")


def test_a_card_with_pictures_that_the_network_does_not_take_is_one_line(own_cache: Path) -> None:
    put(own_cache, "vgg16", "imagenet1k", preprocess=PRESETS["half-299"])
    result = runner.invoke(app, ["describe", "vgg16"])
    assert result.exit_code == 1
    assert "cannot be built as its card asks" in result.stderr
