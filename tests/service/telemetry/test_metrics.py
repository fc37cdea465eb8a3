"""Names and labels are the contract of dashboards and alerts; ``docs/metrics.md`` has all of them."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from prometheus_client import Gauge

from service.telemetry import metrics
from service.telemetry.series import Counter, Histogram

DOCS = Path(__file__).parents[3] / "docs" / "metrics.md"
#: Names and labels that operators' dashboards and alerts rely on.
FIXED = {
    "topfive_requests_total": {"model", "status", "reason"},
    "topfive_request_seconds": None,
    "topfive_decode_seconds": None,
    "topfive_queue_seconds": None,
    "topfive_forward_seconds": None,
    "topfive_load_seconds": None,
    "topfive_batch_size": None,
    "topfive_batches_total": {"model", "cut"},
    "topfive_queue_length": None,
    "topfive_queue_oldest_seconds": None,
    "topfive_in_flight": None,
    "topfive_resident_bytes": {"model"},
    "topfive_footprint_bytes": {"model"},
    "topfive_memory_limit_bytes": None,
    "topfive_loads_total": None,
    "topfive_evictions_total": None,
    "topfive_routed_total": {"model", "reason"},
    "topfive_predicted_ratio": None,
    "topfive_accuracy_debt": None,
    "topfive_shed_total": {"reason"},
    "topfive_oom_splits_total": None,
    "topfive_build_info": None,
    "topfive_checkpoint_info": None,
}


def declared() -> dict[str, tuple[str, list[str], str]]:
    """Kind, labels and text of every metric, by its name in Prometheus."""
    found = {}
    for metric in vars(metrics).values():
        if isinstance(metric, Counter | Gauge | Histogram):
            (family,) = metric.describe()
            name = f"{family.name}_total" if family.type == "counter" else family.name
            labels = metric._labelnames if isinstance(metric, Gauge) else metric.label_names
            found[name] = family.type, list(labels), family.documentation
    for name, (text, labels) in metrics.LIVE.items():
        found[name] = "counter" if name.endswith("_total") else "gauge", labels, text
    return found


def test_the_fixed_names_are_there_with_their_labels() -> None:
    found = declared()
    assert FIXED.keys() <= found.keys()
    for name, labels in FIXED.items():
        if labels is not None:
            assert set(found[name][1]) == labels, name


def test_everything_that_is_declared_is_served() -> None:
    served = {family.name for family in metrics.REGISTRY.collect()}
    assert {name.removesuffix("_total") for name in declared()} <= served


def test_buckets_of_times_go_from_half_a_millisecond_to_half_a_minute() -> None:
    for metric in (metrics.REQUEST_SECONDS, metrics.QUEUE_SECONDS, metrics.FORWARD_SECONDS, metrics.LOAD_SECONDS):
        *bounds, last = metric.bounds
        assert (bounds[0], bounds[-1], last) == (0.0005, 30, float("inf"))
        # A quantile is interpolated between two bounds, which must not be further apart than this.
        assert all(high <= 3 * low for low, high in pairwise(bounds))


def test_the_documentation_lists_every_metric() -> None:
    rows = [
        f"| `{name}` | {kind} | {', '.join(f'`{label}`' for label in labels)} | {text} |"
        for name, (kind, labels, text) in declared().items()
    ]
    listed = [line for line in DOCS.read_text().splitlines() if line.startswith("| `topfive_")]
    assert sorted(listed) == sorted(rows)
