"""Networks with weights from the zoo's graphs give the answers of ONNX Runtime on the same file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from models import get_model
from models.checkpoints.catalogue import Catalogue, Checkpoint, WrongWeightsError
from models.checkpoints.weights import Weights, read_weights
from models.images.preprocess import PRESETS, picture_to_crop
from models.install.import_ import import_file
from models.networks.layers import LRN_CAFFE, LRN_PAPER, LocalResponseNorm, LRNConstants
from models.networks.variants import VARIANTS
from tests import graphs
from tests.graphs import Array, Edit, add, edits, opset, set_numbers

GOOGLENET = VARIANTS["googlenet"]
CAFFE = {"size": 5, "alpha": 1e-4, "beta": 0.75, "k": 1.0}


def probabilities(network: torch.nn.Module, pictures: Array) -> Array:
    with torch.inference_mode():
        found: Array = torch.softmax(network(torch.from_numpy(pictures)), 1).numpy()
    return found


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Torch's threads spin while they wait, so that several are slower than one on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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
    """Three photographs as Caffe's networks want them: BGR, minus the mean colour."""
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


def test_with_as_graph_the_answers_are_those_of_the_file(bvlc: Path, photographs: Array) -> None:
    expected = graphs.answers(onnx.load(bvlc), photographs)
    found = probabilities(get_model("googlenet", weights=bvlc, as_graph=True), photographs)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    original = probabilities(get_model("googlenet", weights=bvlc), photographs)
    assert np.abs(original - expected).max() > 1e-2


def test_the_constants_of_normalisation_come_from_the_graph(bvlc: Path, imported: Checkpoint) -> None:
    assert read_weights(GOOGLENET, bvlc).network == {"lrn": CAFFE}
    assert imported.network == {"lrn": CAFFE}
    assert "as_graph" not in imported.network


def test_an_imported_checkpoint_has_caffes_preprocessing(imported: Checkpoint) -> None:
    preprocess = imported.preprocess
    assert (preprocess.colour, preprocess.scale) == ("bgr", 1.0)
    assert (preprocess.mean, preprocess.std) == ((104.0, 117.0, 123.0), (1.0, 1.0, 1.0))
    assert (preprocess.fit, preprocess.resize, preprocess.crop) == ("warp", 256, 224)


# The same graphs with random weights, for machines without the data.


@pytest.fixture(scope="module")
def inception() -> Any:
    return graphs.zoo_graph("inception_v1")


@pytest.fixture(scope="module")
def weights(inception: Any, tmp_path_factory: pytest.TempPathFactory) -> Weights:
    """The weights of GoogLeNet's graph."""
    path = tmp_path_factory.mktemp("graphs") / "graph.onnx"
    onnx.save(inception, path)
    read = read_weights(GOOGLENET, path)
    path.unlink()
    return read


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    """The file for a test's graph. It is large, and pytest would keep those of three runs, so it is removed at once."""
    path = tmp_path / "graph.onnx"
    yield path
    path.unlink(missing_ok=True)


#: A variant, the zoo's name for it, and the normalisation that its graph states.
ZOO: list[Any] = [
    ("alexnet", "bvlc_alexnet", LRN_CAFFE),
    ("zfnet512", "zfnet512", LRN_PAPER),
    ("googlenet", "inception_v1", LRN_CAFFE),
    ("inception_v2", "inception_v2", None),
    pytest.param("vgg16", "vgg16", None, marks=pytest.mark.slow),
    pytest.param("vgg19", "vgg19", None, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("variant", "name", "lrn"), ZOO)
def test_with_as_graph_a_network_gives_the_logits_of_onnx_runtime(
    file: Path, variant: str, name: str, lrn: LRNConstants | None
) -> None:
    onnx.save(graphs.cut_softmax(graphs.zoo_graph(name)), file)
    pictures = graphs.patches(2)
    expected = graphs.answers(file, pictures)
    network = get_model(variant, weights=file, as_graph=True)
    assert graphs.distance(graphs.logits(network, pictures), expected) < 1e-4
    # The comparison is sensitive to the picture, and to the constants of normalisation.
    assert graphs.distance(expected[0], expected[1]) > 0.1
    norms = [layer for layer in network.modules() if isinstance(layer, LocalResponseNorm)]
    assert {norm.constants for norm in norms} == ({lrn} if lrn is not None else set())
    if norms:
        for norm in norms:
            norm.constants = LRN_PAPER if lrn == LRN_CAFFE else LRN_CAFFE
        assert graphs.distance(graphs.logits(network, pictures[:1]), expected[:1]) > 1e-2


def test_googlenets_graph_is_read_in_caffes_geometry(inception: Any, file: Path) -> None:
    """It does not matter whether the file still has it."""
    pictures, caffes = graphs.patches(2), graphs.caffe_geometry(inception)
    expected = graphs.answers(graphs.without_softmax(caffes), pictures)
    assert graphs.distance(graphs.answers(graphs.without_softmax(inception), pictures), expected) > 0.1
    for model in (inception, caffes):
        onnx.save(model, file)
        found = graphs.logits(get_model("googlenet", weights=file), pictures)
        assert graphs.distance(found, expected) < 1e-4


def test_as_graph_is_kept_in_the_stored_checkpoint(inception: Any, file: Path, tmp_path: Path) -> None:
    onnx.save(inception, file)
    catalogue = Catalogue(tmp_path / "cache")
    stored = import_file(GOOGLENET, file, catalogue, as_graph=True)
    assert stored.path is not None
    assert stored.network == {"lrn": CAFFE, "as_graph": True}
    network: Any = get_model("googlenet", weights=stored.path)
    assert not network.pool1.ceil_mode
    stored.path.unlink()


def test_constants_and_classes_come_from_the_graph(inception: Any, file: Path) -> None:
    edited = graphs.copied(inception)
    for name in ("n3", "n8"):
        graphs.attribute(graphs.node(edited, name), "alpha").f = 2e-4
        graphs.attribute(graphs.node(edited, name), "bias").f = 3.0
    onnx.save(edited, file)
    found = read_weights(GOOGLENET, file)
    assert found.network == {"lrn": {"size": 5, "alpha": 2e-4, "beta": 0.75, "k": 3.0}}
    assert found.num_classes == 1000
    assert found.known is None


#: Attributes that describe the same windows.
SAME_GEOMETRY: dict[str, Edit] = {
    "rounding up where nothing is left": edits(opset(10), add("n9", ceil_mode=1)),
    "padding that no window reaches": set_numbers("n9", "pads", [0, 0, 1, 1]),
    "the map's own size": edits(set_numbers("n138", "kernel_shape", [6, 6]), set_numbers("n138", "pads", [0, 0, 0, 0])),
}


@pytest.mark.parametrize("name", SAME_GEOMETRY)
def test_equal_geometry_by_other_attributes_is_taken(inception: Any, weights: Weights, file: Path, name: str) -> None:
    model = graphs.copied(inception)
    SAME_GEOMETRY[name](model)
    onnx.save(model, file)
    assert graphs.same_weights(read_weights(GOOGLENET, file, as_graph=True), weights)


def test_external_weights_are_read_if_their_file_is_there_and_complete(
    inception: Any, weights: Weights, tmp_path: Path
) -> None:
    """Beside the graph, as ONNX keeps large ones."""
    path, data, catalogue = tmp_path / "graph.onnx", tmp_path / "weights.bin", Catalogue(tmp_path / "cache")
    onnx.save(graphs.copied(inception), path, save_as_external_data=True, location=data.name)
    assert path.stat().st_size < data.stat().st_size / 100
    assert graphs.same_weights(read_weights(GOOGLENET, path), weights)
    os.truncate(data, data.stat().st_size // 2)
    for _ in ("half of it", "none of it"):
        with pytest.raises(WrongWeightsError) as caught:
            import_file(GOOGLENET, path, catalogue)
        assert str(caught.value).startswith(f"{path} is not a complete ONNX file: ")
        assert "tensor" in str(caught.value)
        assert "\n" not in str(caught.value)
        data.unlink(missing_ok=True)
    assert not catalogue.cache_dir.exists()
