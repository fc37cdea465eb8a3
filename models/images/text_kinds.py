"""The names of texts that are sent instead of a picture: most often an error page that was saved under its name."""

from __future__ import annotations

import re

HTML, XML, JSON, BASE64 = "HTML page", "XML document", "JSON text", "base64 text"
ANSWER, MULTIPART, LFS = "saved HTTP answer", "multipart body", "Git LFS pointer"
#: The kinds of text that are no files of their own, and what to do about some of them.
TEXTS = {
    HTML: "perhaps a page of an error was saved in the picture's place",
    XML: "",
    JSON: "to send pictures in JSON, say Content-Type: application/json",
    BASE64: "decode it first, or send it in JSON",
    ANSWER: "send its body alone",
    MULTIPART: "it needs Content-Type: multipart/form-data, with its boundary",
    LFS: "git lfs pull fetches the file",
}
# Each character before <svg matches in one way only. A pattern with two ways would try all combinations of them, which
# takes forever on a file of many comments.
_PROLOG = rb"(?:\xef\xbb\xbf)?(?:\s|<\?xml[^>]*>|<!--(?:[^-]|-(?!->))*-->|<!DOCTYPE[^>\[]*(?:\[[^\]]*\]\s*)?>)*"
_SVG = re.compile(_PROLOG + rb"<svg[\s>]", re.IGNORECASE)
_HTML = re.compile(
    rb"(?:\xef\xbb\xbf)?(?:\s|<\?xml[^>]*>|<!--(?:[^-]|-(?!->))*-->)*(?:<!DOCTYPE\s+html\b|"
    rb"<(?:html|head|body|title|meta|script|style|link|h[1-6]|div|p|br|hr|table|center|font|iframe|b|pre|span|a)[\s>/])",
    re.IGNORECASE,
)
_XML = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml\s|<(?:Error|rss|feed|kml|gpx|plist|x:xmpmeta)[\s>])")
_JSON = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:\{\s*(?:\"|\})|\[\s*(?:[\[{\"\]]|-?[0-9]+\s*[,\]\.]|null|true|false))")
#: The first bytes of the five formats, in base64.
_BASE64 = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*[\"']?(?:data:[\w.+-]+/[\w.+-]+[;,]|(?:/9j/|_9j_|iVBORw0KGgo|R0lGOD|UklGR|Qk[0-3][0-9A-Za-z+/])"
    rb"[A-Za-z0-9+/_\-\r\n]{20})"
)
_HTTP = re.compile(rb"HTTP/[0-9.]+ [0-9]{3}[ \r\n]")
_MULTIPART = re.compile(rb"(?:\r?\n)?--[^\r\n]{1,200}\r?\nContent-(?:Disposition|Type):", re.IGNORECASE)
_LFS = re.compile(rb"version https://git-lfs\.github\.com/")


def text_kind(head: bytes) -> str | None:
    """The kind of a text, by the first kilobytes of a file; None for those that nothing tells apart.

    Args:
        head: the beginning of the file.
    """
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        # Two bytes a character; only characters of ASCII matter here.
        head = head[2:].replace(b"\0", b"")
    for pattern, kind in (
        (_HTML, HTML),
        (_SVG, "SVG"),
        (_XML, XML),
        (_BASE64, BASE64),
        (_JSON, JSON),
        (_HTTP, ANSWER),
        (_MULTIPART, MULTIPART),
        (_LFS, LFS),
    ):
        if pattern.match(head):
            return kind
    return None
