"""The results as a short table, since Locust's own tables list requests, their phases and refusals side by side."""

from __future__ import annotations

from typing import Any


def table(results: dict[str, Any]) -> str:
    """The results as lines for the console."""
    count = {verdict: sum(user[verdict] for user in results["by_user"].values()) for verdict in ("refused", "failed")}
    lines = [
        f"{results['host']}: {results['window_s']:.1f} s measured"
        + (", then interrupted" if results["partial"] else ""),
        f"  requests  {results['sent']} sent, {results['answered']} answered, {count['refused']} refused, "
        f"{count['failed']} failed, {results['unanswered']} unanswered, {results['unsent']} unsent",
        f"  pictures  {results['pictures']}, {results['pictures_per_second']:.1f} a second",
        f"  latency   {_times(results['latency_ms'])}",
    ]
    if results["lag_ms"]["count"]:
        lines.append(f"  lag       {_times(results['lag_ms'])}")
    models, budgets = results["by_model"], results["by_budget"]
    width = max((len(name) for name in (*models, *budgets)), default=0)
    for name, model in models.items():
        batch = f", batches of {model['mean_batch_size']:.1f}"
        lines.append(f"  {name:<{width}}  {model['pictures']} pictures, {_times(model['latency_ms'])}{batch}")
    for name, tally in budgets.items():
        met = f"{tally['met']} of {tally['sent']} met, {tally['refused']} refused"
        lines.append(f"  {name:<{width}}  {met}, {_times(tally['latency_ms'])}")
    counted = {**results["refused"], **results["failures"]}
    lines += [f"  {number:>6} x {reason}" for reason, number in counted.items()]
    if results["generator"]["bottleneck"]:
        lines.append("  the load generator was the bottleneck: these figures are its limits, not the service's")
    return "\n" + "\n".join(lines) + "\n"


def _times(summary: dict[str, Any]) -> str:
    if not summary["count"]:
        return "no times"
    return f"p50 {summary['p50']:.1f} ms, p99 {summary['p99']:.1f} ms of {summary['count']}"
