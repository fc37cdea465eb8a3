"""Scenarios are read from files, and what cannot be simulated is refused in one line."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from models.images.outline import glance
from models.images.rates import photograph
from service.twin.scenario import MIX, PICTURES, Budget, PictureKind, Scenario, ScenarioError, read_scenario

ROOT = Path(__file__).parents[3]


def read(folder: Path, text: str) -> Scenario:
    path = folder / "scenario.toml"
    path.write_text(text)
    return read_scenario(path)


def test_a_file_says_all(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        """
        rate = 5
        arrivals = "gamma"
        cv = 2
        retries = "never"
        [[device]]
        profile = "nvidia-h100-80gb-hbm3"
        count = 2
        memory_mb = 2000
        variants = ["vgg16", "alexnet"]
        [[mix]]
        query = "latency_ms=300"
        weight = 3
        name = "hasty"
        picture = "phone"
        [[mix]]
        query = ""
        picture = {kind = "png", width = 28, height = 28, bytes = 300}
        """,
    )
    assert (found.rate, found.arrivals, found.cv, found.retries) == (5, "gamma", 2, "never")
    assert (found.device[0].count, found.device[0].memory_mb, found.device[0].max_queue) == (2, 2000, 512)
    hasty, other = found.mix
    assert (hasty.label, hasty.weight, hasty.asked.latency_ms) == ("hasty", 3, 300)
    assert hasty.outline.width == 4000
    assert (other.label, other.outline[:5]) == ("no budget", ("png", 28, 28, 300, 28 * 28 * 3))


def test_the_mix_is_that_of_the_open_loop() -> None:
    """``bench`` and ``service`` do not import each other."""
    tree = ast.parse((ROOT / "bench" / "open_loop.py").read_text())
    (value,) = (
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "MIX"
    )
    assert ast.literal_eval(value) == MIX
    assert [budget.query for budget in Scenario().mix] == list(MIX)


def test_the_outline_of_a_photograph_is_that_of_a_file() -> None:
    file = photograph(400)
    assert PictureKind(width=400, height=400, bytes=len(file)).outline == glance(file)


def test_pictures_have_names() -> None:
    assert Budget(query="", picture="thumbnail").outline == PICTURES["thumbnail"].outline


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rate = 0", "rate: "),
        ("speed = 1", "speed: Extra inputs"),
        ('arrivals = "often"', "arrivals: "),
        ('arrivals = "trace"', 'arrivals = "trace" and trace = FILE go together'),
        ('trace = "a.csv"', 'arrivals = "trace" and trace = FILE go together'),
        ("device = []", "device: "),
        ("mix = []", "mix: "),
        ('[[mix]]\nquery = "latency=5"', "mix.0.query.latency: "),
        ('[[mix]]\nquery = "latency_ms=-5"', "mix.0.query.latency_ms: "),
        ('[[mix]]\nquery = "latency_ms"', "mix.0.query: "),
        (
            '[[mix]]\nquery = ""\npicture = "painting"',
            "unknown picture 'painting'; known: photograph, phone, thumbnail",
        ),
        ('[[mix]]\nquery = ""\n[[mix]]\nquery = ""', "two rows of the mix have the same name"),
        ("rate = ", "scenario.toml: "),
    ],
)
def test_what_cannot_be_simulated_is_refused_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ScenarioError) as raised:
        read(tmp_path, text)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="No such file"):
        read_scenario(tmp_path / "none.toml")


def test_a_scenario_can_be_changed_in_part() -> None:
    changed = Scenario(seed=7).but(rate=9)
    assert (changed.rate, changed.seed) == (9, 7)
    with pytest.raises(ScenarioError, match="rate"):
        Scenario().but(rate=-1)
