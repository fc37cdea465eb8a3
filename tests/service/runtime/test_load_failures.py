"""Loads that failed: when the next try is due, and what callers are told."""

from __future__ import annotations

import errno
import logging
import math
from dataclasses import replace
from pathlib import Path

import pytest

from models.checkpoints.catalogue import Catalogue, WeightsMissingError, WrongWeightsError
from models.onnx.graph_cache import ExportError, KilledError
from service.domain.errors import LoadFailedError, failure_of, of_a_load
from service.runtime.load_failures import LoadFailures
from tests.clock import Clock

LENET = replace(Catalogue().find("lenet5@mnist"), path=Path("/home/somebody/cache/lenet5@mnist.safetensors"))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def failures(clock: Clock) -> LoadFailures:
    return LoadFailures(LENET, clock)


def test_the_pauses_double_up_to_five_minutes(failures: LoadFailures, clock: Clock) -> None:
    pauses = []
    for _ in range(12):
        failures.failed(OSError("busy"))
        pauses.append(failures.again_in_s)
        clock.now += failures.again_in_s
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]


def test_no_load_is_tried_before_the_pause_is_over(failures: LoadFailures, clock: Clock) -> None:
    failures.check()
    failures.failed(OSError("busy"))
    clock.now += 0.999
    with pytest.raises(LoadFailedError) as caught:
        failures.check()
    assert caught.value.retry_after_s == pytest.approx(0.001)
    clock.now += 0.001
    failures.check()
    # The reason is known until a load succeeds.
    assert failures.last is not None


def test_a_success_forgets_the_failures(failures: LoadFailures, clock: Clock) -> None:
    for _ in range(5):
        failures.failed(OSError("busy"))
    failures.succeeded()
    failures.check()
    assert failures.last is None
    failures.failed(OSError("busy"))
    assert failures.again_in_s == 1


def test_wrong_weights_are_not_tried_again(failures: LoadFailures, clock: Clock) -> None:
    failures.failed(WrongWeightsError("output.weight is missing"))
    clock.now += 1e9
    with pytest.raises(LoadFailedError) as caught:
        failures.check()
    assert (failures.final, caught.value.retry_after_s, failures.again_in_s) == (True, None, math.inf)


def os_error(number: int) -> OSError:
    return OSError(number, f"something about {LENET.path}")


TOLD: dict[str, tuple[Exception, str, str]] = {
    "a full disk": (os_error(errno.ENOSPC), "load-failed", "make room in the cache folder"),
    "a quota": (os_error(errno.EDQUOT), "load-failed", "make room in the cache folder"),
    "a limit on files": (os_error(errno.EFBIG), "load-failed", "make room in the cache folder"),
    "no permission": (os_error(errno.EACCES), "load-failed", "give its user access"),
    "no permission at all": (os_error(errno.EPERM), "load-failed", "give its user access"),
    "too many files of all processes": (os_error(errno.ENFILE), "load-failed", "ulimit -n"),
    "a read-only folder": (os_error(errno.EROFS), "load-failed", "give its user access"),
    "too many files": (os_error(errno.EMFILE), "load-failed", "ulimit -n"),
    "too many threads": (os_error(errno.EAGAIN), "load-failed", "ulimit -u"),
    "a broken disk": (os_error(errno.EIO), "load-failed", "Input/output error"),
    "no memory for a file": (os_error(errno.ENOMEM), "out-of-memory", "TOPFIVE_MEMORY_LIMIT_MB"),
    "no memory": (MemoryError("std::bad_alloc"), "out-of-memory", "TOPFIVE_MEMORY_LIMIT_MB"),
    "a killed exporter": (KilledError(f"SIGKILL {LENET.path}"), "load-failed", "was killed, most likely"),
    "an export that failed": (
        ExportError(f"in {LENET.path}"),
        "load-failed",
        "could not be exported; the service's log",
    ),
    "an error of several lines": (
        RuntimeError(f"in\n  {LENET.path}\n"),
        "load-failed",
        "could not be loaded; the service's log says why",
    ),
    "a defect": (RuntimeError(f"in {LENET.path}"), "load-failed", "could not be loaded; the service's log says why"),
    "an error without a number": (OSError(f"in {LENET.path}"), "load-failed", "the service's log says why"),
    "damage": (
        WrongWeightsError(f"{LENET.path} is not a complete safetensors file"),
        "weights-damaged",
        "lenet5@mnist.safet",
    ),
    "missing weights": (WeightsMissingError(LENET), "weights-missing", "topfive import"),
}


@pytest.mark.parametrize("name", TOLD)
def test_callers_are_told_what_to_do_without_folders_and_the_log_has_everything(
    name: str, failures: LoadFailures, caplog: pytest.LogCaptureFixture
) -> None:
    error, slug, says = TOLD[name]
    with caplog.at_level(logging.INFO):
        failure = failure_of(failures.failed(error))
    assert (failure.slug, failure.status) == (slug, 503)
    assert says in failure.detail
    assert "lenet5" in failure.detail
    assert "somebody" not in failure.detail
    assert failure.extras == ({} if slug == "weights-damaged" else {"retry_after_ms": 1000.0})
    assert of_a_load(failure)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("lenet5@mnist cannot be loaded: ")
    assert "\n" not in line
    assert ("somebody" in line) == ("somebody" in str(error))
    # An operator can tell what kind of error it is: by its text or, where that is unknown, by its type.
    assert ("RuntimeError: in" in line) == (type(error) is RuntimeError)
