"""The checkpoints for photographs in the box: the running service is right about test pictures as often as
``topfive evaluate`` says."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from models.checkpoints.labels import labels
from service.commands.main import app
from tests.data_sets import write_zip
from tests.running import Service

#: They ask the service that runs under Ray.
pytestmark = pytest.mark.service

WORDS = [label.word for label in labels("cifar10")]
#: The number of pictures of each class.
EACH = 20


@pytest.fixture(scope="module")
def pictures(test_data: Path) -> dict[str, bytes]:
    """The first pictures of each class, by their path in the test set, ``test/<class>/NNNN.jpg``."""
    path = test_data / "cifar10.zip"
    if not path.is_file():
        pytest.skip(f"{path} is not there: no CIFAR-10")
    with zipfile.ZipFile(path) as archive:
        names = [f"test/{word}/{number:04}.jpg" for word in WORDS for number in range(EACH)]
        return {name: archive.read(name) for name in names}


@pytest.fixture(scope="module")
def client(local: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=local.url, timeout=60) as client:
        yield client


def test_at_least_eight_of_ten_pictures_one_of_each_class_are_right(
    client: httpx.Client, pictures: dict[str, bytes]
) -> None:
    first = {word: pictures[f"test/{word}/0000.jpg"] for word in WORDS}
    answers = {
        word: client.post("/classify?model=googlenet", content=content).json() for word, content in first.items()
    }
    assert {answer["checkpoint"]["name"] for answer in answers.values()} == {"googlenet@cifar10"}
    assert all(len(answer["top5"]) == 5 for answer in answers.values())
    assert sum(answer["top5"][0]["label"] == word for word, answer in answers.items()) >= 8


@pytest.mark.usefixtures("own_process")
@pytest.mark.parametrize("names", [["googlenet"], ["inception_v2"], ["googlenet", "inception_v2"]], ids="+".join)
def test_the_service_is_right_as_often_as_evaluation_says(
    client: httpx.Client, pictures: dict[str, bytes], names: list[str], tmp_path: Path
) -> None:
    model = names[0] if len(names) == 1 else f"ensemble:{','.join(names)}"
    right, listed = 0, list(pictures.items())
    for start in range(0, len(listed), 50):
        some = listed[start : start + 50]
        files = [("file", (name, content)) for name, content in some]
        answers = client.post(f"/classify?model={model}", files=files).json()["results"]
        right += sum(
            answer["top5"][0]["label"] == name.split("/")[1] for (name, _), answer in zip(some, answers, strict=True)
        )
    data = write_zip(tmp_path / "some.zip", pictures)
    found = CliRunner().invoke(app, ["evaluate", *names, "--data", str(data), "--json", "--device", "cpu"])
    assert found.exit_code == 0, found.output
    evaluated = json.loads(found.stdout)["results"][-1]
    assert evaluated["pictures"] == len(pictures)
    assert 100 * right / len(pictures) == pytest.approx(evaluated["top1"]["accuracy"], abs=1.0)
