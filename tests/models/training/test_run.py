"""Training runs on tiny data: they learn, repeat with their seed, resume after a kill, and stop on bad numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models import get_model
from models.images.preprocess import PRESETS
from models.networks.variants import VARIANTS
from models.training.accuracy import Accuracy, measure
from models.training.curves import Epoch
from models.training.dataset import DataSet, Split, read_data
from models.training.errors import RecipeError, TrainingError
from models.training.recipes import Recipe, recipe_for
from models.training.run import Run, Step
from tests.data_sets import tree, write_digits, write_zip

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
#: A rate for a few steps, and distortions that are not too large for so few pictures.
TINY = replace(
    recipe_for(VARIANTS["lenet5"], "mnist"),
    epochs=3,
    batch_size=8,
    peak_rate=0.1,
    rotation=5.0,
    scaling=0.05,
    translation=1.0,
)
PHOTOGRAPHS = replace(recipe_for(VARIANTS["googlenet"], "cifar10"), epochs=1, batch_size=8, peak_rate=0.001)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    path = write_digits(tmp_path_factory.mktemp("digits") / "mnist.npz")
    return read_data(path, "mnist", PRESETS["mnist"], keep=True)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    path = write_zip(tmp_path_factory.mktemp("pictures") / "set.zip", tree(train=2, test=1))
    return read_data(path, "cifar10", PRESETS["cifar10"], keep=True)


def quiet(_step: Step) -> None:
    pass


def start(data: DataSet, state: Path, recipe: Recipe = TINY, variant: str = "lenet5") -> Run:
    run = Run(VARIANTS[variant], "mnist" if variant == "lenet5" else "cifar10", recipe, data, CPU, state)
    if variant == "lenet5" and not run.history:
        # From the paper's weights, the first few hundred steps change little; from three times those they do.
        with torch.no_grad():
            for parameter in run.network.parameters():
                parameter.mul_(3 if parameter.ndim > 1 else 1)
    return run


def weights(run: Run) -> bytes:
    tensors = run.finish().network.state_dict().values()
    return b"".join(tensor.numpy().tobytes() for tensor in tensors)


def trained(data: DataSet, state: Path, recipe: Recipe = TINY) -> tuple[bytes, list[Epoch]]:
    run = start(data, state, recipe)
    epochs = list(run.epochs(quiet))
    return weights(run), epochs


def test_a_run_learns_and_repeats_with_its_seed(digits: DataSet, tmp_path: Path) -> None:
    first, epochs = trained(digits, tmp_path / "a")
    assert [epoch.number for epoch in epochs] == [1, 2, 3]
    assert epochs[2].loss < epochs[0].loss / 2
    assert epochs[2].test_top1 > 90
    assert epochs[2].test_top5 >= epochs[2].test_top1
    assert trained(digits, tmp_path / "b") == (first, epochs)
    assert trained(digits, tmp_path / "c", replace(TINY, seed=5))[0] != first


def test_an_interrupted_run_ends_as_one_that_was_not(digits: DataSet, tmp_path: Path) -> None:
    whole, epochs = trained(digits, tmp_path / "a")

    class CutOffError(Exception):
        pass

    def cut_off(step: Step) -> None:
        if step.step == 70:  # in the middle of the second epoch
            raise CutOffError

    run = start(digits, tmp_path / "b")
    assert run.steps == 50
    with pytest.raises(CutOffError):
        list(run.epochs(cut_off))
    again = start(digits, tmp_path / "b")
    assert again.history == epochs[:1]
    assert [epoch.number for epoch in again.epochs(quiet)] == [2, 3]
    assert again.history == epochs
    assert weights(again) == whole


@pytest.mark.parametrize("variant", ["googlenet", "inception_v2"])
def test_dropout_momentum_and_batch_norm_resume_too(pictures: DataSet, tmp_path: Path, variant: str) -> None:
    recipe = replace(recipe_for(VARIANTS[variant], "cifar10"), epochs=2, batch_size=10, peak_rate=0.001)
    whole = start(pictures, tmp_path / "a", recipe, variant)
    list(whole.epochs(quiet))
    next(start(pictures, tmp_path / "b", recipe, variant).epochs(quiet))
    torch.rand(5)  # another process would have drawn other numbers meanwhile
    rest = start(pictures, tmp_path / "b", recipe, variant)
    assert [epoch.number for epoch in rest.epochs(quiet)] == [2]
    assert rest.history == whole.history
    assert weights(rest) == weights(whole)


def test_dropout_has_a_seed_of_its_own_in_each_epoch_and_run(digits: DataSet, tmp_path: Path) -> None:
    def seeds(name: str, seed: int) -> list[int]:
        """What torch's generator was seeded with last, at each step."""
        found: list[int] = []
        recipe = replace(TINY, epochs=3, batch_size=200, seed=seed)
        list(start(digits, tmp_path / name, recipe).epochs(lambda _step: found.append(torch.initial_seed())))
        return found

    first = seeds("a", 1)
    assert len(first) == 6
    assert len(set(first)) == 3
    assert seeds("b", 1) == first
    assert not set(seeds("c", 2)) & set(first)


def test_accuracy_is_measured_on_two_thousand_pictures_after_each_epoch_and_on_all_at_the_end(
    digits: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int | None] = []

    def spy(network: torch.nn.Module, split: Split, device: torch.device, most: int | None = None) -> Accuracy:
        asked.append(most)
        return measure(network, split, device, most)

    monkeypatch.setattr("models.training.run.measure", spy)
    run = start(digits, tmp_path / "state", replace(TINY, epochs=2, batch_size=200))
    list(run.epochs(quiet))
    assert asked == [2000, 2000]
    run.finish()
    assert asked[2:] == [None]


def test_steps_are_counted_over_the_whole_run(digits: DataSet, tmp_path: Path) -> None:
    seen: list[Step] = []
    run = start(digits, tmp_path / "a", replace(TINY, epochs=2))
    list(run.epochs(seen.append))
    assert [step.step for step in seen] == list(range(1, 2 * run.steps + 1))
    assert seen[-1].epoch == 2
    assert seen[-1].loss == pytest.approx(run.history[-1].loss)
    assert seen[-1].top1 == pytest.approx(run.history[-1].training_top1)


def test_the_rate_follows_the_recipe(digits: DataSet, tmp_path: Path) -> None:
    decaying = replace(TINY, epochs=4, batch_size=400, peak_rate=0.08, decay=(0.5, 2))
    rates = [epoch.rate for epoch in trained(digits, tmp_path / "a", decaying)[1]]
    assert rates == pytest.approx([0.08, 0.04, 0.04, 0.02])
    cycle = [epoch.rate for epoch in trained(digits, tmp_path / "b", replace(TINY, epochs=4, batch_size=100))[1]]
    assert max(cycle) < 0.1 < 1.2 * max(cycle)
    assert cycle[-1] < 0.01 < cycle[2]


def test_a_state_of_another_run_is_refused(digits: DataSet, pictures: DataSet, tmp_path: Path) -> None:
    state = tmp_path / "state"
    trained(digits, state, replace(TINY, epochs=1))
    for recipe, told in (
        (replace(TINY, epochs=2), "epochs 1 there, 2 here"),
        (replace(TINY, epochs=1, peak_rate=0.2), "peak rate 0.1 there, 0.2 here"),
    ):
        with pytest.raises(RecipeError, match=f"state is of another run .{told}.: delete it, or name another"):
            start(digits, state, recipe)
    with pytest.raises(RecipeError, match=f"data {digits.digest} there, abc here"):
        start(replace(digits, digest="abc"), state, replace(TINY, epochs=1))
    for damaged in (b"", state.read_bytes()[:-100], b"text"):
        state.write_bytes(damaged)
        with pytest.raises(RecipeError, match="is damaged, or not the state of a training run"):
            start(digits, state)


def test_a_loss_that_is_not_a_number_ends_the_run(digits: DataSet, tmp_path: Path) -> None:
    state = tmp_path / "state"
    run = start(digits, state)
    epochs = run.epochs(quiet)
    next(epochs)
    good = state.read_bytes()
    with torch.no_grad():
        next(run.network.parameters())[0] = float("nan")
    with pytest.raises(TrainingError, match="not a number any more in epoch 2; the last good state, of epoch 1, is in"):
        next(epochs)
    assert state.read_bytes() == good
    assert [epoch.number for epoch in start(digits, state).epochs(quiet)] == [2, 3]


def test_weights_that_are_not_numbers_are_not_saved(digits: DataSet, tmp_path: Path) -> None:
    run = start(digits, tmp_path / "state")

    def spoil(step: Step) -> None:
        if step.step == run.steps:
            with torch.no_grad():
                next(run.network.parameters())[0] = float("inf")

    with pytest.raises(TrainingError, match="no epoch was finished"):
        list(run.epochs(spoil))
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("variant", ["googlenet", "inception_v2"])
def test_the_networks_of_the_box_are_trained_at_64_pixels(pictures: DataSet, tmp_path: Path, variant: str) -> None:
    recipe = replace(recipe_for(VARIANTS[variant], "cifar10"), epochs=1, batch_size=20, peak_rate=0.001)
    run = start(pictures, tmp_path / "state", recipe, variant)
    before = {name: tensor.clone() for name, tensor in run.network.state_dict().items()}
    assert len(list(run.epochs(quiet))) == 1
    after = run.network.state_dict()
    moved = {name.split(".")[0] for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert moved == {name.split(".")[0] for name in before}  # the auxiliary heads too
    finished = run.finish()
    network = get_model(variant, num_classes=10)
    assert finished.network.state_dict().keys() == network.state_dict().keys()
    assert finished.accuracy == measure(finished.network, pictures.test, CPU)
    for name, tensor in finished.network.state_dict().items():
        # Biases, and what batch norm has counted, are not rounded.
        assert torch.equal(tensor, after[name].half().float() if tensor.ndim > 1 else after[name])


def test_random_regions_are_cut_out_of_the_original_files(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "set.zip", tree(train=2, test=1, size=(90, 70)))
    data = read_data(path, "cifar10", PRESETS["cifar10"], keep=False)
    assert data.train.crops is None
    recipe = replace(PHOTOGRAPHS, region=(0.3, 1.0), shift=0, aux_heads=False)
    run = start(data, tmp_path / "a", recipe, "googlenet")
    list(run.epochs(quiet))
    again = start(data, tmp_path / "b", recipe, "googlenet")
    assert list(again.epochs(quiet)) == run.history
    assert weights(again) == weights(run)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("variant", ["googlenet", "inception_v2"])
def test_a_gpu_trains_too(pictures: DataSet, tmp_path: Path, variant: str) -> None:
    recipe = replace(recipe_for(VARIANTS[variant], "cifar10"), epochs=20, batch_size=20, peak_rate=0.02)
    run = Run(VARIANTS[variant], "cifar10", recipe, pictures, torch.device("cuda"), tmp_path / "state")
    epochs = list(run.epochs(quiet))
    assert epochs[-1].loss < epochs[0].loss
    finished = run.finish()
    assert finished.accuracy == measure(finished.network, pictures.test, CPU)


def test_labels_are_smoothed_and_gradients_clipped_as_the_recipe_says(digits: DataSet, tmp_path: Path) -> None:
    """In the first of two steps the loss alone differs by the smoothing; in the second, clipped steps show."""
    plain = replace(TINY, epochs=1, batch_size=200)
    losses = {}
    for name, recipe in {
        "plain": plain,
        "smoothed": replace(plain, label_smoothing=0.1),
        "clipped": replace(plain, clip_norm=1e-6),
    }.items():
        steps: list[Step] = []
        list(start(digits, tmp_path / name, recipe).epochs(steps.append))
        losses[name] = [step.loss for step in steps]
    assert losses["smoothed"][0] != pytest.approx(losses["plain"][0], rel=1e-4)
    assert losses["clipped"][0] == losses["plain"][0]
    assert losses["clipped"][1] != losses["plain"][1]


def test_auxiliary_heads_are_the_recipes_choice(pictures: DataSet, tmp_path: Path) -> None:
    with_heads = start(pictures, tmp_path / "a", PHOTOGRAPHS, "googlenet")
    without = start(pictures, tmp_path / "b", replace(PHOTOGRAPHS, aux_heads=False), "googlenet")
    heads = {"aux1", "aux2"}
    assert heads <= dict(with_heads.network.named_children()).keys()
    assert not heads & dict(without.network.named_children()).keys()
    assert "no auxiliary heads" in str(without.recipe)
