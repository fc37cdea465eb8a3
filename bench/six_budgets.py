"""The same picture under six budgets: ``python bench/six_budgets.py [PICTURE]`` prints the table of docs/budgets.md.

Every network is served, with seeded random weights (``--untrained``), so that only the choice says anything. ``--starts
10`` starts the service ten times instead, each time with a cache that holds no profile, and prints how often each
budget's choice was the most frequent one; with ``--measured`` no shipped profile fits either, and what a network takes
is measured at each start.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from collections import Counter
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
#: What ``--measured`` serves.
SIX = ("alexnet", "googlenet", "googlenet_bn", "inception_v2", "inception_v3", "vgg11")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("picture", type=Path, nargs="?", help="any picture file; by default one is drawn")
    parser.add_argument("--starts", type=int, help="starts to compare")
    parser.add_argument("--measured", action="store_true", help="of six networks, without a shipped profile")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        picture = (options.picture or photograph(Path(folder)).path).read_bytes()
    if options.starts:
        compare_starts(options.starts, picture, measured=options.measured)
        return
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


def compare_starts(starts: int, picture: bytes, *, measured: bool) -> None:
    """Prints how often each budget met its most frequent choice."""
    choices: dict[str, Counter[str]] = {budget: Counter() for budget in BUDGETS}
    with tempfile.TemporaryDirectory() as folder:
        cache, fleet = Path(folder) / "cache", Path(folder) / "six.toml"
        os.environ["TOPFIVE_CACHE_DIR"] = str(cache)
        fleet.write_text(f"[[deployment]]\nvariants = {list(SIX)}\n".replace("'", '"'))
        for start in range(starts):
            # Graphs do not decide anything, and take minutes to export.
            shutil.rmtree(cache / "profiles", ignore_errors=True)
            service = Service("--untrained", *(("--fleet", str(fleet), "--max-batch-size", "8") if measured else ()))
            service.start(within_s=900)
            try:
                with httpx.Client(base_url=service.url, timeout=60, trust_env=False) as client:
                    for budget in BUDGETS:
                        answer = client.post(f"/classify?{budget}", content=picture)
                        if "json" not in answer.headers.get("content-type", ""):
                            raise SystemExit(f"{answer.status_code} {answer.headers} {answer.text!r}")
                        choices[budget][answer.json().get("model") or answer.json()["type"]] += 1
            finally:
                service.stop()
            print(f"start {start + 1}: {[counter.most_common() for counter in choices.values()]}", flush=True)
    for budget, counter in choices.items():
        ((choice, times),) = counter.most_common(1)
        print(f"{budget or 'none'}: {choice} after {times} of {starts} starts")


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
