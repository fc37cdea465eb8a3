"""JSON bodies as clients write them, and broken ones."""

from __future__ import annotations

import base64
import json
import random
from urllib.parse import quote, unquote

import httpx
import pytest

from service.domain.errors import BadBodyError
from service.http import json_body
from service.http.json_body import pictures
from tests.fakes import Fakes
from tests.pictures import picture
from tests.problems import problem

TEXT = base64.b64encode(picture(6)).decode()
SLASH, EQUALS, NEW_LINE = "\\/", "\\u003d", "\\r\\n"


async def test_json_takes_base64_and_data_urls(fakes: Fakes) -> None:
    text = base64.b64encode(picture(6)).decode()
    folded = "\n".join(text[i : i + 20] for i in range(0, len(text), 20))
    async with fakes.client() as client:
        for image in (text, folded, f"data:image/png;base64,{text}"):
            answer = await client.post("/classify?model=lenet5", json={"image": image})
            assert answer.json()["top5"][0]["label"] == "6"
        many = await client.post("/classify?model=lenet5", json={"images": [text]})
    assert [entry["status"] for entry in many.json()["results"]] == [200]


@pytest.mark.parametrize(
    ("content", "slug"),
    [
        ("{", "bad-body"),
        ("[]", "bad-body"),
        ("{}", "bad-body"),
        ('{"image": 3}', "bad-body"),
        ('{"image": "AAAA", "images": []}', "bad-body"),
        ('{"picture": "AAAA"}', "bad-body"),
        ('{"images": []}', "bad-body"),
        (json.dumps({"images": ["AAAA"] * 65}), "bad-body"),
        ('{"image": "%%%"}', "bad-body"),
        ('{"image": "data:image/png,AAAA"}', "bad-body"),
        ('{"image": ""}', "no-picture"),
        ("\xff\xfe", "bad-body"),
    ],
)
async def test_broken_json_and_missing_pictures_are_told_apart(fakes: Fakes, content: str, slug: str) -> None:
    async with fakes.client() as client:
        answer = await client.post(
            "/classify?model=lenet5", content=content.encode("latin-1"), headers={"content-type": "application/json"}
        )
    problem(answer, 400, slug)


@pytest.mark.parametrize(
    "content",
    [
        # As written by PHP, Gson, PowerShell, JavaScript and Python's urlsafe_b64encode.
        f'{{"image":"{TEXT.replace("/", SLASH)}"}}',
        f'{{"image":"{TEXT.replace("=", EQUALS)}"}}',
        f'{{"image":"data:image{SLASH}png;base64,{TEXT.replace("/", SLASH)}"}}',
        f'\ufeff{{"image": "{TEXT}"}}',
        f'{{\r\n\t"images": null, "image": "data:image/png;charset=utf-8;BASE64,{TEXT}"}}\r\n',
        f'{{"image":"{TEXT.rstrip("=").replace("+", "-").replace("/", "_")}"}}',
        f'{{"image":"{NEW_LINE.join(TEXT[i : i + 76] for i in range(0, len(TEXT), 76))}"}}',
        f'{{"image":"AAAA","image":"{TEXT}"}}',
    ],
)
async def test_json_as_clients_write_it(fakes: Fakes, content: str) -> None:
    async with fakes.client() as client:
        answer = await post_json(client, content.encode())
    assert answer.json()["top5"][0]["label"] == "6"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'{"images": ["AAAA", 1]}', "images[1] must be a string, not 1"),
        (b'{"images": [null]}', "images[0] must be a string, not null"),
        (b'{"images": [["AAAA"]]}', "images[0] must be a string"),
        (b'{"image": {"b64": "AAAA"}}', "image must be a string"),
        (b'{"images": {"0": "AAAA"}}', "array"),
        (b'{"images": "AAAA"}', "array"),
        (b'{"image": true}', "not true"),
        (b'{"image": 1' + 300 * b"0" + b"}", "not 100"),
        (b'{"image": "AAAA", "top": 5}', "`top`"),
        (b'{"' + 5_000 * b"x" + b'": 1}', "unknown field"),
        (b'{"image": "AAAA"', "truncated"),
        (b'{"image": "AAAA"} x', "malformed"),
        (b"{'image': 'AAAA'}", "malformed"),
        (b"", "truncated"),
        (b" \n", "truncated"),
        (b"null", "object"),
        (b'"AAAA"', "object"),
        (b'{"image": "\\ud800AAA"}', "JSON"),
        (b'{"image": "\\ud800\\ud800"}', "JSON"),
        (b'{"image": "\\x"}', "JSON"),
        (b'{"image": "AA\xffA"}', "base64"),
        (b'{"image": "A\x00AA"}', ""),
        ('{"image": "äAAA"}'.encode(), "base64"),
        ('{"image": "AAAA"}'.encode("utf-16"), "UTF-16"),
        ('{"image": "AAAA"}'.encode("utf-16-le"), "UTF-16"),
        ('{"image": "AAAA"}'.encode("utf-32-be"), "UTF-16 or UTF-32"),
        (b'{"images": ' + 100_000 * b"[", "nested too deeply"),
        (b'{"images": ' + 300 * b"[" + 300 * b"]" + b"}", "images[0] must be a string"),
        (b'{"images": [' + 65 * b'"AAAA",' + b'"AAAA"]}', "66 entries"),
        (b'{"images": [' + 100_000 * b"1," + b"1]}", "1,000 members"),
        (b"{" + 100_000 * b'"a":"",' + b'"b":""}', "1,000 members"),
        (b'{"image": "data:image/png,AAAA"}', "data: URL"),
        (b'{"image": "data:' + 1_000 * b"x" + b';base64,AAAA"}', "data: URL"),
    ],
)
async def test_broken_json_says_where_and_what(fakes: Fakes, content: bytes, says: str) -> None:
    async with fakes.client() as client:
        document = problem(await post_json(client, content), 400, "bad-body")
    assert says in document["detail"]
    assert len(document["detail"]) < 400


async def post_json(client: httpx.AsyncClient, content: bytes) -> httpx.Response:
    return await client.post("/classify?model=lenet5", content=content, headers={"content-type": "application/json"})


def test_an_array_of_one_is_bulk_and_a_lone_picture_is_not() -> None:
    assert pictures(b'{"image": "AAAA"}', 64) == ([bytes(3)], False)
    assert pictures(b'{"images": ["AAAA"]}', 64) == ([bytes(3)], True)


def test_an_array_has_at_least_one_picture_and_at_most_the_limit() -> None:
    for count in (1, 2, 3):
        content = json.dumps({"images": ["AAAA"] * count}).encode()
        assert pictures(content, 3) == ([bytes(3)] * count, True)
    for count in (0, 4):
        with pytest.raises(BadBodyError, match=f"{count} entries; 1 to 3 are allowed"):
            pictures(json.dumps({"images": ["AAAA"] * count}).encode(), 3)


def test_a_thousand_commas_are_read_and_one_more_is_not() -> None:
    """1,001 strings have 1,000 commas; the member in front of them adds one."""
    texts = ["AAAA"] * 1_001
    assert len(pictures(json.dumps({"images": texts}).encode(), 2_000)[0]) == 1_001
    with pytest.raises(BadBodyError, match="more than 1,000 members"):
        pictures(json.dumps({"image": None, "images": texts}).encode(), 2_000)


def test_commas_are_counted_over_all_windows_with_pauses_between_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_body, "_WINDOW", 16)
    monkeypatch.setattr(json_body, "_MAX_COMMAS", 9)
    pauses: list[None] = []
    content = json.dumps({"images": ["AAAA"] * 10}).encode()
    assert len(pictures(content, 64, lambda: pauses.append(None))[0]) == 10
    assert len(pauses) == -(-len(content) // 16)
    with pytest.raises(BadBodyError, match="members"):
        pictures(json.dumps({"images": ["AAAA"] * 11}).encode(), 64)


@pytest.mark.parametrize(("padding", "read"), [(0, True), (233, True), (234, False)])
def test_a_data_url_may_have_256_characters_before_its_base64(padding: int, read: bool) -> None:
    content = json.dumps({"image": f"data:image/png;{padding * 'x'};base64,AAAA"}).encode()
    if read:
        assert pictures(content, 64) == ([bytes(3)], False)
    else:
        with pytest.raises(BadBodyError, match="data: URL"):
            pictures(content, 64)


def test_an_error_repeats_at_most_200_characters_of_the_body() -> None:
    with pytest.raises(BadBodyError) as raised:
        pictures(b'{"image": ' + 500 * b"1" + b"}", 64)
    assert str(raised.value).endswith(f"must be a string, not {200 * '1'}")
    with pytest.raises(BadBodyError) as raised:
        pictures(b'{"' + 500 * b"y" + b'": 1}', 64)
    assert str(raised.value).count("y") <= 200
    assert str(raised.value).endswith("...")


def test_one_broken_picture_of_an_array_leaves_its_neighbours() -> None:
    found, bulk = pictures(b'{"images": ["AAAA", "!", "", "data:,x", "AAAA"]}', 64)
    assert bulk
    assert [entry if isinstance(entry, bytes) else entry.slug for entry in found] == [
        bytes(3),
        "bad-body",
        "no-picture",
        "bad-body",
        bytes(3),
    ]


@pytest.mark.parametrize("lower", [False, True])
def test_the_base64_of_a_url_may_be_percent_encoded(lower: bool) -> None:
    """As ``encodeURIComponent`` and some browsers' ``toDataURL`` callers write it."""
    content = random.Random(2).randbytes(2_000_000) + b"\xfb\xff"
    text = quote(base64.b64encode(content).decode(), safe="")
    assert "%2B" in text
    assert "%2F" in text
    assert text.endswith("%3D")
    if lower:
        text = text.replace("%2B", "%2b").replace("%2F", "%2f").replace("%3D", "%3d")
    assert pictures(json.dumps({"image": f"data:image/png;base64,{text}"}).encode(), 64) == ([content], False)


@pytest.mark.parametrize(
    "text", ["AA%3D=", "AA=%3d", "AAA=%0D%0A", "AA\r\n%3D%3D", "%\n2B%2\nFAA", "%41%61%2f%2B", "AA%20%20AA"]
)
@pytest.mark.parametrize("slice_characters", [3, 4, 5, 6, 100])
def test_escapes_are_undone_wherever_a_slice_ends(
    monkeypatch: pytest.MonkeyPatch, text: str, slice_characters: int
) -> None:
    monkeypatch.setattr(json_body, "_SLICE", slice_characters)
    (found,), _ = pictures(json.dumps({"image": "data:;base64," + text}).encode(), 64)
    assert found == base64.b64decode(unquote("".join(text.split())))


def test_other_percent_signs_are_no_base64() -> None:
    for text in ("AAA%", "%", "AA%2", "%ZZAA", "%%41AA", "AA%%", "AA%", "AAAA%=", "AAA%00"):
        with pytest.raises(BadBodyError, match="base64"):
            pictures(json.dumps({"image": "data:;base64," + text}).encode(), 64)
    # Outside a URL nothing is percent-encoded.
    with pytest.raises(BadBodyError):
        pictures(b'{"image": "AA%2B"}', 64)


@pytest.mark.parametrize(
    "body",
    [
        b'\xef\xbb\xbf{"image": "AAAA"}',
        b' \r\n\t{"image":"AAAA"}\r\n\r\n ',
        b'{"image": "AA\\/\\u0041", "images": null}'.replace(b"\\/", b"A"),
        b'{"images": null, "image": "AA\\u0041\\u0041"}',
        b'{"image": "data:image/png;charset=utf-8;base64,AAAA"}',
        b'{"\\u0069mage": "AAAA"}',
        b'{"image": "////", "image": "AAAA"}',
        b'{"image": null, "images": ["AAAA"]}',
    ],
)
def test_members_as_clients_write_them(body: bytes) -> None:
    assert pictures(body, 64)[0] == [bytes(3)]
