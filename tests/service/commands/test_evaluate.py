"""``topfive evaluate``: its figures agree with training and with the engines, and errors are one line."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

from models import get_model
from models.checkpoints.catalogue import Catalogue, Checkpoint, card, read_card
from models.checkpoints.labels import labels
from models.evaluation.answers import Answers
from models.evaluation.evaluate import Result as OneResult
from models.images.preprocess import PRESETS, picture_to_crop
from models.install.import_ import write_checkpoint
from models.networks.variants import find_variant
from service.commands import evaluate as evaluate_command
from service.commands.main import app
from service.engines.onnx_cpu import OnnxCpu
from service.engines.torch_cpu import TorchCpu
from tests.cards import checkpoint
from tests.data_sets import digits, encoded, tree, write_digits, write_tree, write_zip

pytestmark = pytest.mark.usefixtures("own_process")


def evaluate(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments), "--threads", "1", "--device", "cpu"])


def told(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def document(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def refused(result: Result, code: int = 2) -> str:
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    assert len(result.output.strip().splitlines()) == 1
    return result.output.strip()


def some_digits() -> dict[str, bytes]:
    """Six pictures of each digit: blocks, for which the checkpoint in the box gives various answers."""
    pictures, numbers = digits(60, 3)
    numbered = zip(pictures, numbers, strict=True)
    return {f"{n}/{i:03}.png": encoded(Image.fromarray(p)) for i, (p, n) in enumerate(numbered)}


def weights(path: Path, seed: int = 0, variant: str = "lenet5", label_set: str = "mnist", **fields: Any) -> Path:
    """An untrained checkpoint."""
    torch.manual_seed(seed)
    network = get_model(variant, num_classes=10)
    write_checkpoint(path, network, checkpoint(variant, label_set, **fields))
    return path


def test_the_figures_agree_with_the_card_that_training_writes(tmp_path: Path) -> None:
    data = write_digits(tmp_path / "mnist.npz", train=100)
    out = tmp_path / "out.safetensors"
    given = ["--labels", "mnist", "--out", str(out), "--threads", "1", "--device", "cpu"]
    recipe = ["--epochs", "2", "--batch-size", "8", "--peak-rate", "0.1", "--seed", "3"]
    result = CliRunner().invoke(app, ["train", "lenet5", "--data", str(data), *given, *recipe])
    assert result.exit_code == 0, result.output
    card_of = read_card(out)
    assert card_of is not None
    (found,) = document(evaluate(out, "--data", data, "--json"))["results"]
    assert found["name"] == str(out)
    assert (found["top1"]["accuracy"], found["top5"]["accuracy"]) == pytest.approx((card_of.top1, card_of.top5))


def test_the_answers_agree_with_the_services_engines(tmp_path: Path, box_cache: Path) -> None:
    files = {f"test/{name}": content for name, content in some_digits().items()}
    found = document(evaluate("lenet5", "--data", write_zip(tmp_path / "set.zip", files), "--json"))
    box = Catalogue().find("lenet5")
    crops = np.stack([picture_to_crop(content, box.preprocess, max_pixels=10**6) for content in files.values()])
    true = [int(name.split("/")[1]) for name in files]
    for engine in (
        TorchCpu(box, precision="float32", threads=1),
        OnnxCpu(box, threads=1, cache_dir=box_cache),
    ):
        first = engine.run(crops).indices[:, 0].tolist()
        engine.close()
        pairs = sorted(zip(true, first, strict=True))
        ours = [(t, a) for t, a, count in found["results"][0]["confusion"] for _ in range(count)]
        assert ours == pairs
        assert len(set(first)) > 3


def test_the_summary_comes_first_then_classes(tmp_path: Path) -> None:
    files = {name: content for name, content in some_digits().items() if name[0] in "1234"}
    result = evaluate("lenet5", "--data", write_tree(tmp_path / "set", files))
    lines = [line.split() for line in result.stdout.splitlines() if line.strip()]
    row = next(i for i, line in enumerate(lines) if line[0] == "lenet5@mnist")
    assert lines[row][1:3] == ["24", "1"]
    assert lines[row + 1][:2] == ["class", "pictures"]
    assert [line[:2] for line in lines[row + 2 : row + 6]] == [[digit, "6"] for digit in "1234"]
    assert "no pictures of: 0, 5, 6, 7, 8, 9" in told(result)


def test_several_names_are_an_ensemble_too(tmp_path: Path) -> None:
    data = write_zip(tmp_path / "set.zip", some_digits())
    files = [weights(tmp_path / f"{seed}.safetensors", seed) for seed in (1, 2)]
    found = document(evaluate("lenet5", *files, "--data", data, "--json", "--crops", "10", "--limit", "20"))
    names = ["lenet5@mnist", *map(str, files)]
    assert [row["name"] for row in found["results"]] == [*names, "ensemble"]
    assert found["results"][-1]["members"] == names
    assert {row["pictures"] for row in found["results"]} == {20}
    assert [row["crops"] for row in found["results"]] == [5, 5, 5, 15]
    assert (found["labels"], found["crops"], found["device"]) == ("mnist", "10", "cpu")
    assert "ensemble 60 3 " in told(evaluate("lenet5", *files, "--data", data))


def test_for_serving_it_keeps_what_the_catalogue_and_the_router_read(tmp_path: Path, two_label_sets: Path) -> None:
    data = write_zip(tmp_path / "set.zip", ten_things())
    found = document(evaluate("googlenet", "inception_v2", "--data", data, "--json", "--for-serving"))
    told_top1 = {tuple(result["members"]): result["top1"]["accuracy"] for result in found["results"]}
    catalogue = Catalogue(two_label_sets / "cache")
    rows = {row.name: row for row in catalogue.checkpoints()}
    for name in ("googlenet@cifar10", "inception_v2@cifar10"):
        assert rows[name].top1 == pytest.approx(told_top1[name,])
        assert rows[name].accuracy_source == "measured here on 20 pictures"
    assert rows["googlenet@imagenet1k"].top1 == 61.5
    ((members, together),) = catalogue.together()
    assert [member.name for member in members] == ["googlenet@cifar10", "inception_v2@cifar10"]
    assert together.top1 == pytest.approx(told_top1["googlenet@cifar10", "inception_v2@cifar10"])
    assert told(evaluate("googlenet", "--data", data, "--for-serving", "--limit", "10")).endswith("accuracies.json")
    assert catalogue.find("googlenet@cifar10").accuracy_source == "measured here on 10 pictures"
    assert catalogue.find("inception_v2").accuracy_source == "measured here on 20 pictures"
    assert len(catalogue.together()) == 1


def test_without_for_serving_nothing_is_kept(tmp_path: Path) -> None:
    data = write_zip(tmp_path / "set.zip", some_digits())
    evaluate("lenet5", "--data", data, "--limit", "10")
    assert not Catalogue().accuracies_path.exists()


@pytest.mark.parametrize("more", [["--crops", "10"], ["--untrained"], ["own.safetensors"]])
def test_only_what_is_served_as_it_was_measured_is_kept_for_serving(tmp_path: Path, more: list[str]) -> None:
    data = write_zip(tmp_path / "set.zip", some_digits())
    assert "--for-serving takes trained" in refused(evaluate("lenet5", "--data", data, "--for-serving", *more))


def test_the_confusion_is_drawn(tmp_path: Path) -> None:
    data, plot = write_zip(tmp_path / "set.zip", some_digits()), tmp_path / "confusion.png"
    assert f"drawn {plot}" in told(evaluate("lenet5", "--data", data, "--plot", plot))
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert document(evaluate("lenet5", "--data", data, "--plot", plot, "--json"))["results"]
    (tmp_path / "folder.png" / "x").mkdir(parents=True)
    result = evaluate("lenet5", "--data", data, "--plot", tmp_path / "folder.png")
    assert result.exit_code == 1
    assert f"cannot write {tmp_path / 'folder.png'}: Is a directory" in " ".join(result.stderr.split())
    assert "there is no folder" in refused(evaluate("lenet5", "--data", data, "--plot", tmp_path / "no" / "x.png"))


def test_random_weights_for_photographs(tmp_path: Path) -> None:
    data = write_zip(tmp_path / "set.zip", {"test/tench/1.png": tree(1, 1)["test/cat/0003.png"]})
    found = document(evaluate("alexnet_owt", "--data", data, "--untrained", "--json"))
    assert (found["results"][0]["name"], found["labels"]) == ("alexnet_owt@untrained", "imagenet1k")
    assert len(found["absent_classes"]) == 999
    (line,) = [
        line for line in evaluate("alexnet_owt", "--data", data, "--untrained").stdout.splitlines() if "no pic" in line
    ]
    assert line.startswith("no pictures of: goldfish, great white shark, ")
    assert line.endswith(" and 989 more")
    assert line.count(", ") == 9, "ten words"


def test_unreadable_pictures_are_left_out_or_fail_the_command(tmp_path: Path) -> None:
    data = write_tree(tmp_path / "set", some_digits() | {"3/bad.png": b"no picture"})
    result = evaluate("lenet5", "--data", data, "--json")
    assert len(document(result)["unreadable"]) == 1
    assert "unreadable 3/bad.png: the bytes are no picture" in result.stderr
    assert "1 unreadable pictures are left out" in result.stderr
    assert "3/bad.png: the bytes are no picture" in refused(evaluate("lenet5", "--data", data, "--fail-unreadable"))


def test_errors_are_one_line(tmp_path: Path) -> None:
    data, box = write_zip(tmp_path / "set.zip", some_digits()), "lenet5"
    own = weights(tmp_path / "own.safetensors")
    colours = weights(tmp_path / "c.safetensors", 0, "googlenet", "cifar10")
    assert "unknown model 'lenet6'" in refused(evaluate("lenet6", "--data", data))
    assert "unknown model 'lenet5@cifar10'" in refused(evaluate(box, "--data", data, "--labels", "cifar10"))
    assert "unknown label set 'emnist'" in refused(evaluate(box, "--data", data, "--labels", "emnist"))
    assert "unknown --crops '12'; known: single, 10, 144" in refused(evaluate(box, "--data", data, "--crops", "12"))
    assert "there is no" in refused(evaluate(box, "--data", tmp_path / "nothing"))
    assert "lenet5@mnist is named twice" in refused(evaluate(box, "lenet5@mnist", "--data", data))
    assert "there is no x.safetensors" in refused(evaluate("x.safetensors", "--data", data))
    text = refused(evaluate(box, colours, "--data", data))
    assert f"lenet5@mnist has the classes of mnist, {colours} those of cifar10; name checkpoints of one" in text
    assert f"{own} has the classes of mnist, not of cifar10" in refused(
        evaluate(own, "--data", data, "--labels", "cifar10")
    )
    foreign = write_zip(tmp_path / "foreign.zip", {"3/1.png": b"", "x/1.png": b""})
    assert "x is not a class of mnist, which has 0, 1, 2" in refused(evaluate(box, "--data", foreign))
    assert "vgg16@imagenet1k has no weights on this machine: topfive pull vgg16" in refused(
        evaluate("vgg16", "--data", data), 1
    )
    bare = tmp_path / "bare.safetensors"
    save_file({"x": torch.zeros(3)}, bare)
    assert "is damaged, or lacks the card" in refused(evaluate(bare, "--data", data))
    save_file({"x": torch.zeros(3)}, bare, metadata=card(checkpoint("lenet5", "mnist")))
    assert str(bare) in refused(evaluate(bare, "--data", data), 1)
    assert "has 10 classes, imagenet1k has 1,000" in refused(
        evaluate(
            weights(tmp_path / "w.safetensors", 0, "lenet5", "imagenet1k"),
            "--data",
            write_zip(tmp_path / "t.zip", {"tench/1.png": next(iter(some_digits().values()))}),
        ),
        1,
    )
    grey = weights(tmp_path / "g.safetensors", 0, "googlenet", "mnist", preprocess=PRESETS["mnist"])
    assert "channels" in refused(evaluate(grey, "--data", data), 1)
    result = CliRunner().invoke(app, ["evaluate", box, "--data", str(data), "--device", "cuda:99"])
    assert "cuda:99 is not here" in refused(result)


def interrupted(*_: object) -> None:
    signal.raise_signal(signal.SIGINT)


def out_of_memory(*_: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.\nSee the documentation")


@pytest.mark.parametrize(
    ("happening", "code", "words"), [(interrupted, 130, "interrupted"), (out_of_memory, 1, "a smaller --batch-size")]
)
def test_an_interruption_and_a_lack_of_memory_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, happening: object, code: int, words: str
) -> None:
    monkeypatch.setattr("models.evaluation.evaluate.answered", happening)
    result = evaluate("lenet5", "--data", write_zip(tmp_path / "set.zip", some_digits()))
    assert words in refused(result, code)


@pytest.mark.slow
def test_the_checkpoint_in_the_box_has_the_manifests_accuracy(test_data: Path) -> None:
    found = document(evaluate("lenet5", "--data", test_data / "mnist.npz", "--json"))
    # Another build of torch may decide an ambiguous digit differently.
    assert found["results"][0]["top1"]["accuracy"] == pytest.approx(Catalogue().find("lenet5").top1, abs=0.05)
    assert found["results"][0]["pictures"] == 10_000


@pytest.mark.slow
def test_photographs_in_folders_by_wordnet_id(
    test_data: Path, tmp_path: Path, bvlc: tuple[Checkpoint, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real weights answer as the service's engine does, and mostly right."""
    box, cache = bvlc
    monkeypatch.setenv("TOPFIVE_CACHE_DIR", str(cache))
    photographs = {path: path.read_bytes() for path in sorted((test_data / "photos").glob("*.jpg"))}
    files = {f"{path.name.split('_')[0]}/{path.name}": content for path, content in photographs.items()}
    found = document(evaluate("googlenet", "--data", write_tree(tmp_path / "set", files), "--json"))
    crops = np.stack([picture_to_crop(content, box.preprocess, max_pixels=10**8) for content in files.values()])
    ids = [label.wordnet_id for label in labels("imagenet1k")]
    first = TorchCpu(box, precision="float32", threads=1).run(crops).indices[:, 0].tolist()
    pairs = sorted((ids.index(name.split("/")[0]), answer) for name, answer in zip(files, first, strict=True))
    assert [(t, a) for t, a, n in found["results"][0]["confusion"] for _ in range(n)] == pairs
    assert found["results"][0]["top1"]["right"] >= 36


@pytest.fixture
def two_label_sets(tmp_path: Path) -> Path:
    """A cache that has GoogLeNet for ImageNet too."""
    torch.manual_seed(3)
    variant = find_variant("googlenet")
    path = Catalogue(tmp_path / "cache").path_for(variant, "imagenet1k")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_checkpoint(path, get_model("googlenet"), checkpoint("googlenet", "imagenet1k"))
    assert Catalogue(tmp_path / "cache").find("googlenet").labels == "imagenet1k"
    return tmp_path


def ten_things(folder: str = "test/") -> dict[str, bytes]:
    pictures, _ = digits(20, 3)
    words = [label.word for label in labels("cifar10")]
    return {f"{folder}{words[i % 10]}/{i}.png": encoded(Image.fromarray(p)) for i, p in enumerate(pictures)}


def test_the_classes_of_the_pictures_decide_which_label_set_is_meant(two_label_sets: Path) -> None:
    zipped = write_zip(two_label_sets / "cifar10.zip", ten_things())
    arrays = two_label_sets / "cifar10.npz"
    pixels = np.zeros((10, 32, 32, 3), np.uint8)
    np.savez(arrays, test_images=pixels, test_labels=np.arange(10), train_images=pixels, train_labels=np.arange(10))
    for data in (zipped, arrays):
        found = document(evaluate("googlenet", "inception_v2", "--data", data, "--json", "--limit", "10"))
        names = [result["name"] for result in found["results"]]
        assert names == ["googlenet@cifar10", "inception_v2@cifar10", "ensemble"]
    # Ten class numbers could also be ImageNet's first ten, but nobody has such a data set.
    for data in (zipped, arrays):
        found = document(evaluate("inception_v1", "--data", data, "--json", "--limit", "10"))
        assert [result["name"] for result in found["results"]] == ["googlenet@cifar10"]


def test_the_same_network_answers_for_the_other_label_set(two_label_sets: Path) -> None:
    pictures, _ = digits(2, 3)
    words = {0: "tench", 999: "toilet tissue"}
    files = {f"test/{word}/a.png": encoded(Image.fromarray(pictures[0])) for word in words.values()}
    data = write_zip(two_label_sets / "imagenet.zip", files)
    found = document(evaluate("googlenet", "--data", data, "--json"))
    assert [result["name"] for result in found["results"]] == ["googlenet@imagenet1k"]


def test_an_explicit_label_set_wins_over_the_classes_of_the_pictures(two_label_sets: Path) -> None:
    data = write_zip(two_label_sets / "cifar10.zip", ten_things())
    for arguments in (["googlenet@imagenet1k"], ["googlenet", "--labels", "imagenet1k"]):
        assert "imagenet1k" in refused(evaluate(*arguments, "--data", data))
    # If no label set fits, the error is about the one that the network is served with.
    digits_of = write_zip(two_label_sets / "digits.zip", {f"test/x{name}": c for name, c in some_digits().items()})
    assert "imagenet1k" in refused(evaluate("googlenet", "--data", digits_of))
    assert "there is no" in refused(evaluate("googlenet", "--data", two_label_sets / "nothing.zip"))


def test_of_more_than_twenty_classes_the_worst_are_shown() -> None:
    """Of ten pictures of each of 25 classes, those of the first classes are taken for the next class most often."""
    true, number = np.repeat(np.arange(25), 10), np.tile(np.arange(10), 25)
    first = np.where(number < true // 3, true, (true + 1) % 25)
    answers = Answers(true, first, np.ones(250, np.float32), np.ones(250, bool))
    table = evaluate_command._class_table(OneResult("a network", (), 1, answers), labels("imagenet1k")[:25])
    assert len(table.rows) == 20
    assert str(table.columns[0].header) == "class, the 20 worst"
    shown = [float(str(cell)) for cell in table.columns[2].cells]
    assert (shown[0], shown[-1]) == (0.0, 60.0)
    assert shown == sorted(shown)


@pytest.mark.parametrize(
    ("names", "crops"),
    [(["lenet5@mnist"], 256), (["googlenet"], 26), (["vgg16"], 16), (["lenet5@mnist", "googlenet"], 26)],
)
def test_the_largest_network_decides_how_many_crops_a_cpu_takes_at_once(names: list[str], crops: int) -> None:
    """500 MB of activations, of which a crop takes 18,735 KiB in GoogLeNet, by ``topfive describe``. VGG-16 gets the
    least number."""
    checkpoints = [
        next(c for c in Catalogue(untrained=False).checkpoints() if c.name.startswith(name)) for name in names
    ]
    assert evaluate_command._most_at_once(checkpoints) == crops
