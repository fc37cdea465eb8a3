"""Texts that are sent as pictures are named, with what to do about them."""

from __future__ import annotations

import base64

import pytest

from models.images.pictures import UndecodableError, UnsupportedFormatError, decode
from models.images.text_kinds import text_kind
from tests.pictures import picture

TEXTS = {
    "an HTML page": b"<!DOCTYPE html>\n<html><head><title>403 Forbidden</title></head></html>",
    "an HTML page, of old": b'<!DOCTYPE HTML PUBLIC "-//IETF//DTD HTML 2.0//EN">\n<html>',
    "an HTML page, without a declaration": b"\r\n  <HTML lang=en><body>",
    "an HTML page, of XML": b'<?xml version="1.0"?>\n<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0//EN" "x.dtd"><html>',
    "an HTML page, behind a comment": b"\xef\xbb\xbf<!-- a > b --><html>",
    "an HTML page, in part": b"<h1>Bad Gateway</h1>",
    "an HTML page, with a drawing": b"<html><svg></svg></html>",
    "an HTML page, of two bytes a character": "\ufeff<!doctype html><p>".encode("utf-16-le"),
    "an XML document": b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code></Error>',
    "an XML document, without a prolog": b"<Error><Code>NoSuchKey</Code></Error>",
    "a JSON text": b'{"error": "not found"}',
    "a JSON text, of a list": b"[1, 2, 3]",
    "a JSON text, of objects": b'\n[ {"a": 1} ]',
    "a base64 text": base64.b64encode(picture(format="PNG")),
    "a base64 text, of a JPEG": base64.encodebytes(picture(format="JPEG")),
    "a base64 text, of a WebP": base64.urlsafe_b64encode(picture(format="WEBP")),
    "a base64 text, of a GIF": base64.b64encode(picture(format="GIF")),
    "a base64 text, of a BMP": base64.b64encode(picture(format="BMP")),
    "a base64 text, as a URL": b"data:image/png;base64," + base64.b64encode(picture()),
    "a base64 text, quoted": b'"' + base64.b64encode(picture()) + b'"',
    "a saved HTTP answer": b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n\r\n" + picture(),
    "a multipart body": b'--abc\r\nContent-Disposition: form-data; name="a"; filename="b"\r\n\r\n' + picture(),
    "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
}


@pytest.mark.parametrize("name", TEXTS)
def test_texts_are_named(name: str) -> None:
    with pytest.raises(UnsupportedFormatError) as caught:
        decode(TEXTS[name], "RGB", max_pixels=100)
    words = name.split(",")[0]
    assert str(caught.value).startswith(f"this is {words}; JPEG, PNG, WebP, GIF and BMP are decoded")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("an HTML page", "an error"),
        ("a JSON text", "Content-Type: application/json"),
        ("a base64 text", "decode it first"),
        ("a multipart body", "multipart/form-data"),
        ("a Git LFS pointer", "git lfs pull"),
    ],
)
def test_the_sender_is_told_what_to_do(name: str, words: str) -> None:
    with pytest.raises(UnsupportedFormatError, match=words):
        decode(TEXTS[name], "RGB", max_pixels=100)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<",
        b"hello, world",
        b"Not Found",
        b"<htmlx>",
        b"< html>",
        b"<<a>>",
        b"{this is no JSON}",
        b"[this neither]",
        b"/9j/",
        b"Qk is how it begins",
        b"iVBORw0KGgo is how a PNG begins",
        b"HTTP/1.1 is a protocol",
        b"--abc\r\nhello",
        b"version 3",
    ],
)
def test_other_texts_have_no_name(data: bytes) -> None:
    assert text_kind(data) is None
    with pytest.raises(UndecodableError):
        decode(data, "RGB", max_pixels=100)
