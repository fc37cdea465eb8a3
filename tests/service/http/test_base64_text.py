"""Base64 in every form that clients write, compared with Python's own encoder."""

from __future__ import annotations

import base64
import random

import pytest

from service.http import base64_text
from service.http.base64_text import Base64Error, decode


@pytest.mark.parametrize("slice_bytes", [16, 64, 2**18])
def test_every_form_is_decoded(monkeypatch: pytest.MonkeyPatch, slice_bytes: int) -> None:
    monkeypatch.setattr(base64_text, "_SLICE", slice_bytes)
    chance = random.Random(3)
    for size in range(200):
        content = chance.randbytes(size)
        plain, url = base64.b64encode(content), base64.urlsafe_b64encode(content)
        folded = b"\r\n".join(plain[i : i + 19] for i in range(0, len(plain), 19)) + b"\n "
        for text in (plain, url, plain.rstrip(b"="), url.rstrip(b"="), folded):
            assert decode(text) == content
            assert decode(memoryview(text)) == content


def test_long_texts_are_decoded_in_slices_with_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base64_text, "_SLICE", 64)
    pauses: list[None] = []
    decode(b"AAAA" * 160, lambda: pauses.append(None))
    assert len(pauses) == 9


@pytest.mark.parametrize("before", ["", "AAAA" * 100])
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("!!!!", "characters other than"),
        ("AAA\x00", "characters other than"),
        ("AA\\/", "characters other than"),
        ("A", "one character too many, or lacks some"),
        ("AAAAA", "one character too many, or lacks some"),
        ("AA=", "padding"),
        ("AAA==", "padding"),
        ("AAAA=", "padding"),
        ("====", "padding"),
        ("AA==AAAA", "before its end"),
        (15 * "AAAA" + "AA==" + 40 * "AAAA", "before its end"),
        ("A=AA", "before its end"),
    ],
)
def test_broken_base64_says_what_is_wrong(monkeypatch: pytest.MonkeyPatch, before: str, text: str, says: str) -> None:
    monkeypatch.setattr(base64_text, "_SLICE", 64)
    with pytest.raises(Base64Error, match=says):
        decode((before + text).encode("latin-1"))
