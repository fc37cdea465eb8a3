"""The scripts of ``bench/`` import each other by their bare names, which Python finds for a script that it runs."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))
