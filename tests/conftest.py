"""What every test may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# Torch's threads spin while they wait for one another, which on a shared machine costs three times what is computed.
# Read when torch is loaded, here and in every process that tests start.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from tests.running import Service, started

# Machines are shared: how long an example takes says nothing of the code. Where a change is judged (CI is set, as by
# .ci/run) the examples are the same at each run; elsewhere they are new ones, and TOPFIVE_TEST_EXAMPLES says how many.
settings.register_profile(
    "topfive",
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    max_examples=int(os.environ.get("TOPFIVE_TEST_EXAMPLES", "100")),
)
settings.load_profile("topfive")


@pytest.fixture(scope="session")
def test_data() -> Path:
    """A folder with CIFAR-10, MNIST, photographs and real GoogLeNet weights, which cannot ship with the project."""
    folder = os.environ.get("TOPFIVE_TEST_DATA")
    if not folder:
        pytest.skip("TOPFIVE_TEST_DATA is not set: no folder with the test data")
    return Path(folder)


@pytest.fixture(scope="session")
def box_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache folder for all who serve the weights in the box and no others: who comes first exports and measures
    them, as at any first start; whoever comes later finds that done. Nothing may be imported into it."""
    return tmp_path_factory.mktemp("box")


@pytest.fixture(scope="session")
def local(box_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The service with the fleet that is the default.

    A start of Ray takes a quarter of a minute, so that the first test that wants this one starts it, and it belongs to
    the whole session: a test may ask it anything and must leave it as it was.
    """
    yield from started(box_cache, "local", tmp_path_factory.mktemp("local") / "log.txt")
