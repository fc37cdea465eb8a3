"""The same picture under six budgets: ``python bench/six_budgets.py [PICTURE]`` prints README's table.

Every network is served, with seeded random weights (``--untrained``), so that only the choice says anything.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import httpx
from load import photograph
from running import Service

BUDGETS = (
    "",
    "latency_ms=60",
    "memory_mb=120",
    "latency_ms=1000&memory_mb=500&min_top1=70",
    "memory_mb=10",
    "latency_ms=10",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("picture", type=Path, nargs="?", help="any picture file; by default one is drawn")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        picture = (options.picture or photograph(Path(folder)).path).read_bytes()
    service = Service("--untrained")
    service.start(within_s=900)
    print("| budget | answer | top-1 | predicted | took | in the way of others |")
    print("|---|---|---|---|---|---|")
    try:
        with httpx.Client(base_url=service.url, timeout=60, trust_env=False) as client:
            for budget in BUDGETS:
                print(row(budget, client.post(f"/classify?{budget}", content=picture)))
    finally:
        service.stop()


def row(budget: str, answer: httpx.Response) -> str:
    """One line of the table."""
    body, shown = answer.json(), f"`{budget}`" if budget else "none"
    if answer.status_code != 200:
        return f"| {shown} | {answer.status_code} `{body['type']}` | | | | {body['detail']} |"
    by_reason: dict[str, list[str]] = {}
    for other in body["routing"]["considered"]:
        by_reason.setdefault(other["rejected"], []).append(other["model"])
    others = "; ".join(f"{reason}: {', '.join(names)}" for reason, names in by_reason.items())
    predicted, took = body["routing"]["predicted_ms"], body["timings_ms"]["total"]
    top1 = body["checkpoint"]["top1"]
    return f"| {shown} | `{body['model']}` | {top1:g} % | {predicted:.0f} ms | {took:.0f} ms | {others} |"


if __name__ == "__main__":
    main()
