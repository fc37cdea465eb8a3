"""What ``locust -f loadtest/`` executes: four kinds of users. Options: ``locust -f loadtest/ --help-loadtest``."""

from __future__ import annotations

import sys
from pathlib import Path

if (root := str(Path(__file__).parents[1])) not in sys.path:
    # Locust may be installed without TopFive, or started in another folder.
    sys.path.append(root)

from loadtest._listeners import listen
from loadtest._users import BudgetUser, BulkUser, ClassifyUser, JunkUser

__all__ = ["BudgetUser", "BulkUser", "ClassifyUser", "JunkUser"]

listen()
