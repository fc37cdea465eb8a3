"""Fixtures of the service's tests.

Like ``local`` in ``tests/conftest.py``, ``cluster`` is started once for all tests: a test may send it any request, and
must leave it as it was. The last test that needs the two, in ``whole/test_lifecycle.py``, stops them.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from models.checkpoints.catalogue import Catalogue, Checkpoint
from models.install.import_ import import_file
from models.networks.variants import find_variant
from tests.fakes import Fakes
from tests.running import Service, started

#: Like the shipped cluster-cpu, but with the networks in the box in two deployments, and with two ingress replicas.
CLUSTER = """
[ingress]
replicas = 2
num_cpus = 0.1

[[deployment]]
variants = ["lenet5"]
num_cpus = 0.2
threads = 1

[[deployment]]
variants = ["googlenet", "inception_v2"]
num_cpus = 0.2
"""


#: A device owner and two fronts.
FRONTS = """
ray = {ray}
fronts = 2

[[deployment]]
variants = ["*"]
"""


@pytest.fixture
def fakes(tmp_path: Path) -> Fakes:
    return Fakes(tmp_path)


@pytest.fixture
def own_process() -> Iterator[None]:
    """Restores torch's settings after commands that change them: here they run in the process of the tests."""
    threads = torch.get_num_threads()
    with torch.random.fork_rng():
        yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)


@pytest.fixture(scope="session")
def cluster(box_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A fleet of several deployments."""
    folder = tmp_path_factory.mktemp("cluster")
    fleet = folder / "cluster.toml"
    fleet.write_text(CLUSTER)
    yield from started(box_cache, str(fleet), folder / "log.txt")


@pytest.fixture(scope="module")
def solo(box_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A fleet of fronts and an owner without Ray. It starts in seconds, so each file has its own."""
    yield from _with_fronts(box_cache, tmp_path_factory.mktemp("solo"), ray=False)


@pytest.fixture(scope="module")
def fronts(box_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The same behind Ray Serve."""
    yield from _with_fronts(box_cache, tmp_path_factory.mktemp("fronts"), ray=True)


def _with_fronts(cache: Path, folder: Path, *, ray: bool) -> Iterator[Service]:
    fleet = folder / "fronts.toml"
    fleet.write_text(FRONTS.format(ray=str(ray).lower()))
    yield from started(cache, str(fleet), folder / "log.txt")


@pytest.fixture(scope="session")
def bvlc(test_data: Path, box_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkpoint, Path]:
    """GoogLeNet with the weights of BVLC, and the cache folder into which it was imported. That has the graphs of the
    box already, if an earlier test needed them."""
    cache = tmp_path_factory.mktemp("bvlc")
    if (box_cache / "graphs").is_dir():
        shutil.copytree(box_cache / "graphs", cache / "graphs")
    return import_file(find_variant("googlenet"), test_data / "googlenet-bvlc.onnx", Catalogue(cache)), cache


@pytest.fixture(scope="session")
def untrained_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder for all services with seeded weights, so that each graph is exported only once."""
    return tmp_path_factory.mktemp("untrained")
