"""The CPU engine, against plain torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.checkpoints import Catalogue, Checkpoint
from models.graph_cache import cached_graph, graph_path
from models.labels import labels
from service.engines import MAX_K
from service.engines.onnx_cpu import OnnxCpu
from service.engines.torch_cpu import TorchCpu

LENET = Catalogue().find("lenet5@mnist")
GOOGLENET = Catalogue(untrained=True).find("googlenet")


@pytest.mark.parametrize(
    ("checkpoint", "cache"), [(LENET, "box_cache"), (GOOGLENET, "untrained_cache")], ids=["lenet5", "googlenet"]
)
def test_it_answers_like_torch(checkpoint: Checkpoint, cache: str, request: pytest.FixtureRequest) -> None:
    """Every network's graph is compared in tests/models/test_export.py; here the way through the cache is."""
    preprocess = checkpoint.preprocess
    engine, plain = (
        OnnxCpu(checkpoint, threads=1, cache_dir=request.getfixturevalue(cache)),
        TorchCpu(checkpoint, precision="float32", threads=1),
    )
    for count in (1, 3, 16):
        shape = (count, preprocess.side, preprocess.side, preprocess.channels)
        crops = np.random.default_rng(7).integers(0, 256, shape, dtype=np.uint8)
        found, expected = engine.run(crops, True), plain.run(crops, True)
        assert found.probabilities.shape == found.indices.shape == (count, MAX_K)
        assert (found.probabilities.dtype, found.indices.dtype) == (np.float32, np.int64)
        np.testing.assert_allclose(found.probabilities, expected.probabilities, rtol=0, atol=1e-5)
        assert found.distributions is not None
        assert expected.distributions is not None
        assert found.distributions.shape == (count, len(labels(checkpoint.labels)))
        np.testing.assert_allclose(found.distributions, expected.distributions, rtol=0, atol=1e-5)
    assert engine.run(crops).distributions is None


def test_a_clear_digit_is_known(box_cache: Path) -> None:
    crop = np.zeros((1, 32, 32, 1), np.uint8)
    crop[0, 6:26, 15:18] = 255  # a one
    top = OnnxCpu(LENET, threads=1, cache_dir=box_cache).run(crop)
    assert top.indices[0, 0] == 1
    assert top.probabilities[0, 0] > 0.9
    assert (np.diff(top.probabilities[0]) <= 0).all()


def test_it_holds_its_weights_until_it_is_closed(box_cache: Path) -> None:
    engine = OnnxCpu(LENET, threads=1, cache_dir=box_cache)
    assert 60_850 * 4 <= engine.bytes_held < 60_850 * 4 * 1.3
    engine.close()
    with pytest.raises(AssertionError):
        engine.warm_up(1)


def test_a_graph_that_a_crash_cut_short_is_made_anew(box_cache: Path, tmp_path: Path) -> None:
    path = graph_path(LENET, tmp_path)
    path.parent.mkdir()
    path.write_bytes(cached_graph(LENET, box_cache).read_bytes()[:1000])
    engine = OnnxCpu(LENET, threads=1, cache_dir=tmp_path)
    engine.warm_up(1)
    assert path.stat().st_size > 60_850 * 4
