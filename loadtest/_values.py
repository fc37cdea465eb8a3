"""Readers of option values: each takes a text and says in one line what is wrong with it."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence

from loadtest._requests import KINDS, Kind

SHARES = "classify=4,budget=2,bulk=1,junk=1"


def number(least: float, *, above: bool = False) -> Callable[[str], float]:
    """A reader of finite numbers that are at least, or with ``above`` greater than, a bound."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or value < least or (above and value == least):
            bound = f"above {least:g}" if above else f"of at least {least:g}"
            raise argparse.ArgumentTypeError(f"{text!r} is not a number {bound}")
        return value

    return read


def read_seed(text: str) -> int:
    """Reads a whole number."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def one_of(choices: Sequence[str]) -> Callable[[str], str]:
    """A reader of one of several words."""

    def read(text: str) -> str:
        if text not in choices:
            raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(choices)}")
        return text

    return read


def read_shares(text: str) -> dict[Kind, int]:
    """Reads ``KIND=N,...``; a kind that is not named keeps its default share."""
    shares = {} if text == SHARES else read_shares(SHARES)
    for part in text.split(","):
        name, _, count = part.strip().partition("=")
        kind = next((kind for kind in KINDS if kind == name), None)
        if kind is None or not count.isdecimal():
            raise argparse.ArgumentTypeError(f"{part.strip()!r} is not KIND=N, KIND one of {', '.join(KINDS)}")
        shares[kind] = int(count)
    if not any(shares.values()):
        raise argparse.ArgumentTypeError("all shares are 0: nobody is left to send requests")
    return shares
