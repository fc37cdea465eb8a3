"""The zoo's graphs read into our networks: ONNX Runtime must give the same answers on the same file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch

from models import get_model
from models.checkpoints import Catalogue, Checkpoint
from models.importing import import_file
from models.layers import LRN_CAFFE, LRN_PAPER
from models.preprocess import PRESETS, picture_to_crop
from models.reading import read_weights
from models.variants import VARIANTS
from tests import graphs

Array = npt.NDArray[np.float32]
GOOGLENET = VARIANTS["googlenet"]
CAFFE = {"size": 5, "alpha": 1e-4, "beta": 0.75, "k": 1.0}


def probabilities(network: torch.nn.Module, pictures: Array) -> Array:
    with torch.inference_mode():
        found: Array = torch.softmax(network(torch.from_numpy(pictures)), 1).numpy()
    return found


# The weights that BVLC released, in the zoo's layout.


@pytest.fixture(scope="module")
def bvlc(test_data: Path) -> Path:
    path = test_data / "googlenet-bvlc.onnx"
    if not path.is_file():
        pytest.skip(f"{path} is not there: no real GoogLeNet weights")
    return path


@pytest.fixture(scope="module")
def imported(bvlc: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkpoint]:
    stored = import_file(GOOGLENET, bvlc, Catalogue(tmp_path_factory.mktemp("zoo")))
    yield stored
    assert stored.path is not None
    stored.path.unlink()


@pytest.fixture(scope="module")
def photographs(test_data: Path) -> Array:
    """Three photographs as Caffe's networks want them: BGR, the mean colour taken off."""
    preprocess, crops = PRESETS["caffe-224"], []
    for path in sorted((test_data / "photos").glob("*.jpg"))[::16]:
        bgr = picture_to_crop(path.read_bytes(), preprocess, max_pixels=10**8)[..., ::-1]
        crops.append((bgr - np.asarray(preprocess.mean)).transpose(2, 0, 1))
    if not crops:
        pytest.skip(f"{test_data / 'photos'} has no photographs")
    return np.stack(crops).astype(np.float32)


def test_imported_weights_answer_as_caffes_own_network(bvlc: Path, imported: Checkpoint, photographs: Array) -> None:
    expected = graphs.answers(graphs.caffe_geometry(onnx.load(bvlc)), photographs)
    found = probabilities(get_model("googlenet", weights=imported.path), photographs)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    assert expected.max(axis=1).min() > 0.1


def test_as_graph_answers_as_the_file_is(bvlc: Path, photographs: Array) -> None:
    expected = graphs.answers(onnx.load(bvlc), photographs)
    found = probabilities(get_model("googlenet", weights=bvlc, as_graph=True), photographs)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    original = probabilities(get_model("googlenet", weights=bvlc), photographs)
    assert np.abs(original - expected).max() > 1e-2


def test_the_constants_of_normalisation_are_read_off_the_graph(bvlc: Path, imported: Checkpoint) -> None:
    assert read_weights(GOOGLENET, bvlc).network == {"lrn": CAFFE}
    assert imported.network == {"lrn": CAFFE}
    assert "as_graph" not in imported.network


def test_the_preprocessing_that_travels_is_caffes(imported: Checkpoint) -> None:
    preprocess = imported.preprocess
    assert (preprocess.colour, preprocess.scale) == ("bgr", 1.0)
    assert (preprocess.mean, preprocess.std) == ((104.0, 117.0, 123.0), (1.0, 1.0, 1.0))
    assert (preprocess.fit, preprocess.resize, preprocess.crop) == ("warp", 256, 224)


# The same graphs with random weights, for machines without the data.


@pytest.fixture(scope="module")
def inception() -> Any:
    return graphs.zoo_graph("inception_v1")


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    """Where a test writes its graph; removed at once, since each is large and pytest keeps three runs."""
    path = tmp_path / "graph.onnx"
    yield path
    path.unlink(missing_ok=True)


def test_googlenets_graph_as_it_is_and_in_caffes_geometry(inception: Any, file: Path) -> None:
    pictures = graphs.patches(2)
    as_is, caffes = graphs.answers(inception, pictures), graphs.answers(graphs.caffe_geometry(inception), pictures)
    onnx.save(inception, file)
    np.testing.assert_allclose(
        probabilities(get_model("googlenet", weights=file, as_graph=True), pictures), as_is, rtol=0, atol=1e-4
    )
    np.testing.assert_allclose(probabilities(get_model("googlenet", weights=file), pictures), caffes, rtol=0, atol=1e-4)
    # What the comparison can tell apart: the two pictures, and the two geometries.
    assert np.abs(as_is[0] - as_is[1]).max() > 3e-3
    assert np.abs(as_is - caffes).max() > 3e-3


def test_a_graph_imported_as_it_is_stays_so(inception: Any, file: Path, tmp_path: Path) -> None:
    onnx.save(inception, file)
    catalogue = Catalogue(tmp_path / "cache")
    stored = import_file(GOOGLENET, file, catalogue, as_graph=True)
    assert stored.path is not None
    assert stored.network == {"lrn": CAFFE, "as_graph": True}
    network: Any = get_model("googlenet", weights=stored.path)
    assert not network.pool1.ceil_mode
    stored.path.unlink()


def test_constants_and_classes_are_the_graphs(inception: Any, file: Path) -> None:
    edited = graphs.copied(inception)
    for name in ("n3", "n8"):
        graphs.attribute(graphs.node(edited, name), "alpha").f = 2e-4
        graphs.attribute(graphs.node(edited, name), "bias").f = 3.0
    onnx.save(edited, file)
    weights = read_weights(GOOGLENET, file)
    assert weights.network == {"lrn": {"size": 5, "alpha": 2e-4, "beta": 0.75, "k": 3.0}}
    assert weights.num_classes == 1000
    assert weights.known is None


def test_alexnets_graph(file: Path) -> None:
    model = graphs.without_softmax(graphs.zoo_graph("bvlc_alexnet"))
    pictures = graphs.patches(2)
    expected = graphs.answers(model, pictures)
    onnx.save(model, file)
    del model
    network: Any = get_model("alexnet", weights=file, as_graph=True)
    assert network.norm1.constants == network.norm2.constants == LRN_CAFFE

    def difference() -> float:
        with torch.inference_mode():
            found = network(torch.from_numpy(pictures)).numpy()
        return float(np.abs(found - expected).max() / expected.std())

    assert difference() < 1e-4
    network.norm1.constants = LRN_PAPER
    assert difference() > 1e-2
