"""Load test reports for tests: figures near those of two cores."""

from __future__ import annotations

from typing import Any

from loadreport.comparison import compare
from loadreport.gates import DEFAULT, judge, read_gates
from loadreport.pareto import mark_front
from loadreport.report import Budget, BudgetRun, Knee, Network, Report, Step
from loadreport.results import Results

#: name: (pictures/s, footprint MB, top-1, p50 of a lone request in ms)
FIGURES = {
    "alexnet@untrained": (42.0, 389.0, 54.8, 27.0),
    "googlenet@untrained": (34.0, 190.0, 67.78, 29.0),
    "inception_v3@untrained": (9.0, 261.0, 77.294, 104.0),
    "vgg16@untrained": (4.0, 915.0, 71.592, 187.0),
}


def knee(rate: float, **changes: Any) -> Knee:
    figures: dict[str, Any] = {
        "rate": rate,
        "seconds": 30.0,
        "sent": round(30 * rate),
        "failed": 0,
        "pictures_per_second": rate,
        "p50_ms": 300.0,
        "p99_ms": 900.0,
        "samples": round(30 * rate),
        "phases_p50_ms": {"decode": 2.0, "queue": 200.0, "forward": 30.0},
        "mean_batch_size": 1.5,
        "lag_p99_ms": 2.0,
        "ambiguity": 0.08,
    }
    return Knee(**{**figures, **changes})


def network(name: str, **changes: Any) -> Network:
    rate, footprint, top1, alone = FIGURES.get(name, (1000.0, 20.0, 99.4, 1.0))
    figures: dict[str, Any] = {
        "name": name,
        "variant": name.partition("@")[0],
        "labels": "mnist" if name.startswith("lenet5") else "imagenet1k",
        "top1": top1,
        "analytic_mb": 50.0,
        "footprint_mb": footprint,
        "alone_p50_ms": alone,
        "closed_per_second": 1.1 * rate,
        "probes_sent": 100,
        "knee": knee(rate),
        "steps": [
            step(0.9 * rate),
            step(1.1 * rate, why_not="p99 1,700 ms", p99_ms=1700.0),
            step(rate, confirmation=True),
        ],
    }
    return Network(**{**figures, **changes})


def step(rate: float, **changes: Any) -> Step:
    figures: dict[str, Any] = {
        "rate": rate,
        "seconds": 15.0,
        "samples": round(15 * rate),
        "pictures_per_second": rate,
        "p50_ms": 200.0,
        "p99_ms": 800.0,
        "confirmation": False,
        "why_not": None,
    }
    return Step(**{**figures, **changes})


def budget(name: str, budget_ms: float | None, **changes: Any) -> Budget:
    figures: dict[str, Any] = {
        "name": name,
        "budget_ms": budget_ms,
        "sent": 100,
        "accepted": 90,
        "refused": 10,
        "met": 90,
        "p50_ms": 60.0,
        "p99_ms": 140.0,
        "samples": 90,
    }
    return Budget(**{**figures, **changes})


def budget_run(*budgets: Budget, **changes: Any) -> BudgetRun:
    figures: dict[str, Any] = {
        "rate": 10.0,
        "seconds": 40.0,
        "sent": 400,
        "failed": 0,
        "budgets": budgets or [budget("latency_ms=150", 150.0), budget("memory_mb=250", None)],
        "pictures_by_model": {"googlenet": 300, "alexnet": 100},
    }
    return BudgetRun(**{**figures, **changes})


def results(**changes: Any) -> Results:
    """What a run of Locust measured that sent ten requests a second for 20 seconds, and got every answer."""
    figures: dict[str, Any] = {
        "format": 1,
        "partial": False,
        "window_s": 20.0,
        "sent": 200,
        "answered": 200,
        "pictures": 200,
        "pictures_per_second": 10.0,
        "latency_ms": {"count": 200, "p50": 100.0, "p99": 900.0},
        "lag_ms": {"count": 200, "p99": 3.0},
    }
    return Results(**{**figures, **changes})


def report(*networks: Network, **changes: Any) -> Report:
    figures: dict[str, Any] = {
        "created": "2026-11-25T12:00:00+00:00",
        "host": "http://127.0.0.1:8000",
        "same_machine": True,
        "device": "AMD EPYC, 2 cores",
        "generator": {"locust": "2.47.0", "cores": "2"},
        "p99_limit_ms": 1000.0,
        "seconds": 15.0,
        "seed": 8,
        "pictures": None,
        "networks": list(networks) or [network(name) for name in FIGURES],
        "budget_run": budget_run(),
    }
    return Report(**{**figures, **changes})


def full() -> Report:
    """A report with everything that there can be in one."""
    found = report(
        *(network(name) for name in FIGURES),
        network("lenet5@untrained"),
        network("vgg19@untrained", knee=None, steps=[], problem="cannot be <loaded>"),
    )
    mark_front(found.networks)
    found.gates = judge(read_gates(DEFAULT), found, {"googlenet@untrained": 100.0})
    found.comparison = compare(found, report())
    return found
