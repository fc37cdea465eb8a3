"""The real service after a real load: it answers as it did before."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.generating import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.service, pytest.mark.timeout(300)]


def test_five_seconds_after_locust_budgets_are_kept_as_before(untrained_cache: Path) -> None:
    """``bench/after_use.py`` compares, in one run, the answers of a fresh service with those after the load."""
    command = [sys.executable, str(ROOT / "bench" / "after_use.py"), "--seconds", "25", "--loads", "locust"]
    command += ["--budgets-ms", "100", "150"]
    environment = {**os.environ, "TOPFIVE_CACHE_DIR": str(untrained_cache)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| locust | " in done.stdout
