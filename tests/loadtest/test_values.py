"""Readers of option values take what they say, and refuse the rest in one line."""

from __future__ import annotations

from argparse import ArgumentTypeError
from typing import Any

import pytest

from loadtest._values import number, one_of, read_seed, read_shares


def test_numbers_have_a_bound() -> None:
    assert number(0)("0") == 0.0
    assert number(1)("1.5e1") == 15.0
    assert number(0, above=True)("0.001") == 0.001


@pytest.mark.parametrize(
    ("read", "text", "says"),
    [
        (number(0), "-0.001", "'-0.001' is not a number of at least 0"),
        (number(0, above=True), "0", "'0' is not a number above 0"),
        (number(0), "nan", "'nan' is not a number of at least 0"),
        (number(0), "inf", "'inf' is not a number of at least 0"),
        (number(2.5), "", "'' is not a number of at least 2.5"),
        (read_seed, "1.5", "'1.5' is not a whole number"),
        (one_of(["a", "b"]), "c", "'c' is not one of a, b"),
        (read_shares, "classify", "'classify' is not KIND=N, KIND one of classify, budget, bulk, junk"),
        (read_shares, "bulk=1,", "'' is not KIND=N"),
        (read_shares, "junk=1.5", "'junk=1.5' is not KIND=N"),
        (read_shares, "classify=0,budget=0,bulk=0,junk=0", "all shares are 0"),
    ],
)
def test_bad_values_are_refused(read: Any, text: str, says: str) -> None:
    with pytest.raises(ArgumentTypeError) as caught:
        read(text)
    assert str(caught.value).startswith(says)


def test_shares_keep_the_default_of_kinds_that_are_not_named() -> None:
    assert read_shares("classify=4,budget=2,bulk=1,junk=1") == {"classify": 4, "budget": 2, "bulk": 1, "junk": 1}
    assert read_shares(" bulk=7 ,junk=0") == {"classify": 4, "budget": 2, "bulk": 7, "junk": 0}


def test_words_and_seeds_are_read() -> None:
    assert one_of(["a", "b"])("b") == "b"
    assert (read_seed("8"), read_seed("-1")) == (8, -1)
