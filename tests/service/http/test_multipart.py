"""Multipart bodies as clients write them, broken ones, and both sides of each limit."""

from __future__ import annotations

import base64
import random

import httpx
import pytest

from service.domain.errors import BadBodyError
from service.http import multipart
from service.http.multipart import MAX_FIELD_BYTES, MAX_FIELDS, boundary_of, files

#: Bytes that a picture may contain and a parser could mistake for a boundary.
PICTURE = b"\x89PNG\r\n\x1a\n--b-\r\n\r\n--\n--\r\r\n-\x00\xff\r"


def part(
    content: bytes = PICTURE, headers: bytes = b'Content-Disposition: form-data; name="a"; filename="a.png"'
) -> bytes:
    return b"--b\r\n" + headers + b"\r\n\r\n" + content + b"\r\n"


def field(content: bytes = b"x") -> bytes:
    return part(content, b'Content-Disposition: form-data; name="a"')


END = b"--b--\r\n"


@pytest.mark.parametrize(
    "body",
    [
        part() + END,
        part() + b"--b--",
        # Text before the first boundary and after the last: RFC 2046's preamble and epilogue.
        b"\r\n" + part() + END,
        b"This is a message in MIME format.\r\n" + part() + END,
        part() + END + b"something else\r\n--b\r\nnot a part",
        part() + b"--b-- \t\r\n",
        # Spaces after a boundary.
        part().replace(b"--b\r\nContent", b"--b  \t\r\nContent") + END,
        # Forms of a file's name.
        part(headers=b"content-disposition:form-data;name=a;filename=a.png") + END,
        part(headers=b'CONTENT-DISPOSITION: Form-Data; FileName="a.png"; Name="a"') + END,
        part(headers=b"Content-Disposition: form-data; name=\"a\"; filename*=UTF-8''a%20b.png") + END,
        part(headers=b'Content-Disposition: form-data; name="a"; filename=""; filename*=UTF-8\'\'a.png') + END,
        part(headers=b'Content-Disposition: form-data; name="a"; filename*0="a."; filename*1="png"') + END,
        part(headers=b'Content-Disposition: form-data; name="a"; filename="a\\"b;c.png"') + END,
        part(headers=b'Content-Disposition: form-data; name="a"; filename="C:\\pictures\\"') + END,
        part(headers=b'Content-Disposition: form-data; name="a"; filename="\xff\xfe\x80.png"') + END,
        part(headers='Content-Disposition: form-data; name="ä"; filename="猫.png"'.encode()) + END,
        part(headers=b'Content-Disposition: attachment; filename="a.png"') + END,
        part(headers=b'Content-Disposition: form-data; name="a";\r\n filename="a.png"') + END,
        part(headers=b'Content-Type: image/png\r\nX-Own: 1\r\nContent-Disposition: form-data; name="a"; filename=a')
        + END,
        part(headers=b'Content-Transfer-Encoding: binary\r\nContent-Disposition: form-data; name="a"; filename=a')
        + END,
        # Fields beside the file, empty ones, and parts without headers.
        field() + part() + field(b"") + END,
        b"--b\r\n\r\nno headers\r\n" + part() + b"--b\r\nX: y\r\n\r\n" + END,
        part(b"no file was chosen", b'Content-Disposition: form-data; name="a"; filename=""') + part() + END,
        field(b'; filename="a.png"') + part() + END,
        part(b"", b'Content-Disposition: form-data; name="; filename=a"') + part() + END,
    ],
)
def test_what_clients_write_is_read(body: bytes) -> None:
    assert files(body, b"b", 64) == [PICTURE]


def test_lines_may_end_with_lf_alone() -> None:
    picture = b"\x89PNG\r\n\x1a\n--c\r"
    body = b'--b\nContent-Disposition: form-data; name="a"; filename="a"\n\n' + picture + b"\n--b--\n"
    assert files(body, b"b", 64) == [picture]
    assert files(b"preamble\n" + body, b"b", 64) == [picture]


@pytest.mark.parametrize(
    ("encoding", "text"), [("base64", None), ("BASE64", None), ("quoted-printable", b"=89PN=\r\nG")]
)
def test_transfer_encodings_are_undone(encoding: str, text: bytes | None) -> None:
    folded = b"\r\n".join(base64.b64encode(PICTURE)[i : i + 20] for i in range(0, 100, 20))
    headers = f'Content-Transfer-Encoding: {encoding}\r\nContent-Disposition: form-data; filename="a"'.encode()
    (found,) = files(part(text or folded, headers) + END, b"b", 64)
    assert found == (b"\x89PNG" if text else PICTURE)


def test_files_that_httpx_wrote_are_read_back() -> None:
    chance = random.Random(5)
    for _ in range(100):
        pieces = (b"\r", b"\n", b"-", b"--", b"\r\n--", b"x", b"\0", b"=", b"b")
        contents = [b"".join(chance.choices(pieces, k=chance.randrange(40))) for _ in range(chance.randrange(1, 5))]
        named = [("f", (f"{number}.png", content)) for number, content in enumerate(contents)]
        request = httpx.Request("POST", "http://a/", files=named, data={"note": "x"})
        body = request.read()
        assert files(body, boundary_of(request.headers["content-type"]), 64) == contents


@pytest.mark.parametrize("shift", range(80))
def test_a_boundary_may_lie_across_two_windows(monkeypatch: pytest.MonkeyPatch, shift: int) -> None:
    """Bodies are searched one window after another."""
    monkeypatch.setattr(multipart, "_WINDOW", 40)
    pauses: list[None] = []
    pictures = [bytes(shift), b"y" * 333]
    body = b"".join(part(picture) for picture in pictures) + END
    assert files(body, b"b", 64, lambda: pauses.append(None)) == pictures
    assert len(pauses) > 5


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "does not occur"),
        (b"nonsense", "does not occur"),
        (b"--bb\r\n\r\nx\r\n--bb--", "does not occur"),
        ((part() + END).replace(b"--b", b"--B"), "does not occur"),
        (part(), "last boundary"),
        (part()[:-20], "last boundary"),
        (part() + b"--b", "last boundary"),
        (part() + b"--b\r\n", "last boundary"),
        (b'--b\r\nContent-Disposition: form-data; filename="a"\r\nno empty line\r\n' + END, "empty line"),
        (
            part(headers=b'Content-Transfer-Encoding: x-uuencode\r\nContent-Disposition: form-data; filename="a"')
            + END,
            "uuencode",
        ),
        (
            part(b"!", b'Content-Transfer-Encoding: base64\r\nContent-Disposition: form-data; filename="a"') + END,
            "base64",
        ),
        (b"--b\r\n" * 2_000 + END, "empty line"),
        (b"--b\r\n\r\n" + b"\r\n--bx" * 2_000 + b"\r\n" + END, "too many lines"),
    ],
)
def test_broken_bodies_say_what_is_broken(body: bytes, says: str) -> None:
    with pytest.raises(BadBodyError, match=says):
        files(body, b"b", 64)


def test_files_are_limited() -> None:
    assert len(files(64 * part() + END, b"b", 64)) == 64
    with pytest.raises(BadBodyError, match="more than 64 files"):
        files(65 * part() + END, b"b", 64)


def test_fields_are_limited_in_number_and_size() -> None:
    assert files(MAX_FIELDS * field() + part() + END, b"b", 64) == [PICTURE]
    with pytest.raises(BadBodyError, match="1,000 parts without a file name"):
        files((MAX_FIELDS + 1) * field() + part() + END, b"b", 64)
    assert files(field(MAX_FIELD_BYTES * b"x") + part() + END, b"b", 64) == [PICTURE]
    with pytest.raises(BadBodyError, match="1,000,001 bytes"):
        files(field((MAX_FIELD_BYTES + 1) * b"x") + part() + END, b"b", 64)


def test_lines_that_begin_with_the_boundary_are_limited() -> None:
    lines = b"\r\n--bx"
    assert files(part(1_000 * lines) + END, b"b", 64) == [1_000 * lines]
    with pytest.raises(BadBodyError, match="too many lines"):
        files(part(1_001 * lines) + END, b"b", 64)


def test_headers_are_limited() -> None:
    name = b'Content-Disposition: form-data; name="a"; filename="%s"'
    assert files(part(headers=name % (8_000 * b"x")) + END, b"b", 64) == [PICTURE]
    with pytest.raises(BadBodyError, match="too long"):
        files(part(headers=name % (9_000 * b"x")) + END, b"b", 64)


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ("multipart/form-data; boundary=b", b"b"),
        ("Multipart/Form-Data;Boundary=b", b"b"),
        ('multipart/form-data; boundary="b"', b"b"),
        ('multipart/form-data; charset=punycode; boundary="a b:c/d=?"', b"a b:c/d=?"),
        (
            "multipart/form-data; boundary=----WebKitFormBoundary7MA4YWxk; charset=utf-16",
            b"----WebKitFormBoundary7MA4YWxk",
        ),
        (f"multipart/form-data; boundary={250 * 'x'}", 250 * b"x"),
    ],
)
def test_boundaries(content_type: str, boundary: bytes) -> None:
    assert boundary_of(content_type) == boundary


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        'multipart/form-data; boundary=""',
        "multipart/form-data; b=boundary",
        f"multipart/form-data; boundary={251 * 'x'}",
    ],
)
def test_bad_boundaries_are_refused(content_type: str) -> None:
    with pytest.raises(BadBodyError, match="boundary"):
        boundary_of(content_type)


PICTURE_STARTS = {
    "JPEG": b"\xff\xd8\xff\xe0rest",
    "PNG": b"\x89PNG\r\n\x1a\nrest",
    "GIF": b"GIF89arest",
    "WebP": b"RIFF\x00\x01\x00\x00WEBPVP8 rest",
    "BMP": b"BM\x36\x00\x0c\x00\x00\x00\x00\x00\x36\x00rest",
}
FIELD = b'Content-Disposition: form-data; name="image"'
#: How clients send a file's bytes without a file name: .NET's ByteArrayContent, Go's CreateFormField, curl with
#: -F 'a=<FILE'; OkHttp with a media type; aiohttp with bytes; Google's interfaces.
WITHOUT_A_NAME = {
    "nothing said": (FIELD, PICTURE_STARTS["PNG"]),
    "an image": (FIELD + b"\r\nContent-Type: image/png", b"anything"),
    "an image in upper case": (FIELD + b"\r\nCONTENT-TYPE: IMAGE/PNG; a=b", b"anything"),
    "bytes": (FIELD + b"\r\nContent-Type: application/octet-stream", b"anything"),
    "an attachment": (b"Content-Type: image/webp", b"anything"),
    "text that is a picture": (FIELD + b"\r\nContent-Type: text/plain", PICTURE_STARTS["JPEG"]),
}


@pytest.mark.parametrize("what", WITHOUT_A_NAME)
def test_a_picture_without_a_file_name_is_found(what: str) -> None:
    head, content = WITHOUT_A_NAME[what]
    body = (
        b"--b\r\nContent-Type: application/json\r\n\r\n{}\r\n--b\r\n" + head + b"\r\n\r\n" + content + b"\r\n--b--\r\n"
    )
    assert files(body, b"b", 64) == [content]


@pytest.mark.parametrize("kind", PICTURE_STARTS)
def test_pictures_of_all_formats_are_known_by_their_start(kind: str) -> None:
    content = PICTURE_STARTS[kind]
    assert files(b"--b\r\n" + FIELD + b"\r\n\r\n" + content + b"\r\n--b--", b"b", 64) == [content]


@pytest.mark.parametrize(
    "content", [b"BM is short for bitmap", b"RIFF", b"GIF", b"\x89PN", b"iVBORw0KGgo=", b"", b"some text"]
)
def test_texts_are_no_pictures(content: bytes) -> None:
    assert files(b"--b\r\n" + FIELD + b"\r\n\r\n" + content + b"\r\n--b--", b"b", 64) == []


@pytest.mark.parametrize("kind", [b"application/octet-stream", b"image/png"])
def test_a_form_in_which_no_file_was_chosen_has_none(kind: bytes) -> None:
    """As browsers send it."""
    head = b'Content-Disposition: form-data; name="image"; filename=""\r\nContent-Type: ' + kind
    assert files(b"--b\r\n" + head + b"\r\n\r\n\r\n--b--", b"b", 64) == []
