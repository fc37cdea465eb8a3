"""The names of file formats that are recognised but not decoded, for the error that the sender gets."""

from __future__ import annotations

import re

from models.images.raw_kinds import raw_or_tiff
from models.images.text_kinds import TEXTS, text_kind
from models.images.uncommon_kinds import UNCOMMON, uncommon_kind

#: Kinds before which "an" stands.
_VOWELS = ("A", "EPUB", "HDF", "HTML", "MIFF", "MNG", "O", "RTF", "SGI", "SQL", "SVG", "XML", "XPM", "a", "o")
#: Brands in the first box (``ftyp``) of an ISO container, which name its contents: pictures, RAW files, sound, video.
_BRANDS = {
    b"avif": "AVIF",
    b"avis": "AVIF (a sequence of pictures)",
    b"avio": "AVIF",
    b"heic": "HEIC",
    b"heix": "HEIC",
    b"heim": "HEIC",
    b"heis": "HEIC",
    b"hevc": "HEIC (a sequence of pictures)",
    b"hevx": "HEIC (a sequence of pictures)",
    b"hevm": "HEIC (a sequence of pictures)",
    b"hevs": "HEIC (a sequence of pictures)",
    b"vvic": "HEIF (VVC)",
    b"vvis": "HEIF (VVC, a sequence of pictures)",
    b"evbi": "HEIF (EVC)",
    b"evmi": "HEIF (EVC)",
    b"evbs": "HEIF (EVC, a sequence of pictures)",
    b"evms": "HEIF (EVC, a sequence of pictures)",
    b"avci": "HEIF (AVC)",
    b"avcs": "HEIF (AVC, a sequence of pictures)",
    b"jpeg": "HEIF (JPEG)",
    b"jpgs": "HEIF (JPEG, a sequence of pictures)",
    b"j2ki": "HEIF (JPEG 2000)",
    b"j2is": "HEIF (JPEG 2000, a sequence of pictures)",
    b"jxl ": "JPEG XL",
    b"jp2 ": "JPEG 2000",
    b"jpx ": "JPEG 2000",
    b"jpm ": "JPEG 2000",
    b"jph ": "JPEG 2000",
    b"crx ": "camera RAW (Canon CR3)",
    b"m4a ": "audio (MPEG-4)",
    b"m4b ": "audio (MPEG-4)",
    b"m4p ": "audio (MPEG-4)",
    b"f4a ": "audio (MPEG-4)",
    b"f4b ": "audio (MPEG-4)",
}
#: Brands that any HEIF file may have; another of its brands names the codec.
_HEIF = frozenset({b"mif1", b"mif2", b"mif3", b"msf1", b"miaf", b"1pic", b"tmap"})
_VIDEO = "video (MP4 or QuickTime)"
#: First boxes of QuickTime files without ``ftyp``.
_QUICKTIME = frozenset({b"moov", b"mdat", b"wide", b"pnot", b"skip", b"free"})
#: Forms of a RIFF file, beside WebP.
_RIFF = {
    b"AVI ": "video (AVI)",
    b"WAVE": "audio (WAV)",
    b"ACON": "animated Windows cursor",
    b"RMID": "audio (MIDI)",
    b"CDDA": "audio (CD)",
}
#: Forms of an IFF file.
_IFF = {
    b"AIFF": "audio (AIFF)",
    b"AIFC": "audio (AIFF)",
    b"ILBM": "Amiga (ILBM)",
    b"PBM ": "Amiga (ILBM)",
    b"8SVX": "audio (8SVX)",
}
#: The bytes that identify a format, their offset in the file, and the format's name.
_MAGIC: tuple[tuple[bytes, int, str], ...] = (
    (b"%PDF-", 0, "PDF"),
    (b"II\xbc", 0, "JPEG XR"),
    (b"\x1a\x45\xdf\xa3", 0, "video (Matroska or WebM)"),
    (b"\x00\x00\x01\xba", 0, "video (MPEG)"),
    (b"\x00\x00\x01\xb3", 0, "video (MPEG)"),
    (b"FLV\x01", 0, "video (Flash)"),
    (b"FWS", 0, "Flash"),
    (b"CWS", 0, "Flash"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", 0, "video (Windows Media)"),
    (b".RMF\x00", 0, "video (RealMedia)"),
    (b"OggS", 0, "video or audio (Ogg)"),
    (b"ID3", 0, "audio (MP3)"),
    (b"fLaC", 0, "audio (FLAC)"),
    (b"MThd", 0, "audio (MIDI)"),
    (b"#!AMR", 0, "audio (AMR)"),
    (b".snd", 0, "audio (AU)"),
    (b"8BPS", 0, "Photoshop"),
    (b"gimp xcf", 0, "GIMP (XCF)"),
    (b"Paint Shop Pro Image File", 0, "Paint Shop Pro"),
    (b"\x00\x00\x00\x0cjP  ", 0, "JPEG 2000"),
    (b"\xff\x4f\xff\x51", 0, "JPEG 2000"),
    (b"\x00\x00\x00\x0cJXL ", 0, "JPEG XL"),
    (b"\xff\x0a", 0, "JPEG XL"),
    (b"icns", 0, "macOS icon"),
    (b"\x00\x05\x16\x07", 0, "AppleDouble (what macOS stores beside a file)"),
    (b"%!PS", 0, "PostScript"),
    (b"\xc5\xd0\xd3\xc6", 0, "PostScript (EPS)"),
    (b" EMF", 40, "Windows metafile (EMF)"),
    (b"\xd7\xcd\xc6\x9a", 0, "Windows metafile (WMF)"),
    (b"\x01\x00\x09\x00\x00\x03", 0, "Windows metafile (WMF)"),
    (b"DICM", 128, "DICOM"),
    (b"SIMPLE  =", 0, "FITS"),
    (b"#?RADIANCE", 0, "Radiance HDR"),
    (b"#?RGBE", 0, "Radiance HDR"),
    (b"\x76\x2f\x31\x01", 0, "OpenEXR"),
    (b"DDS ", 0, "DDS (textures)"),
    (b"\xabKTX ", 0, "KTX (textures)"),
    (b"\x13\xab\xa1\x5c", 0, "ASTC (textures)"),
    (b"qoif", 0, "QOI"),
    (b"FLIF", 0, "FLIF"),
    (b"BPG\xfb", 0, "BPG"),
    (b"farbfeld", 0, "farbfeld"),
    (b"\x8aMNG\r\n\x1a\n", 0, "MNG"),
    (b"\x8bJNG\r\n\x1a\n", 0, "JNG"),
    (b"\x97JB2\r\n\x1a\n", 0, "JBIG2"),
    (b"AT&TFORM", 0, "DjVu"),
    (b"\x59\xa6\x6a\x95", 0, "Sun raster"),
    (b"\x01\xda\x00\x01", 0, "SGI"),
    (b"\x01\xda\x01\x01", 0, "SGI"),
    (b"\x0a\x05\x01", 0, "PCX"),
    (b"\x0a\x03\x01", 0, "PCX"),
    (b"id=ImageMagick", 0, "MIFF"),
    (b"/* XPM */", 0, "XPM"),
    (b"glTF", 0, "glTF (3D)"),
    (b"n+1\x00", 344, "NIfTI"),
    (b"\x89HDF\r\n\x1a\n", 0, "HDF5"),
    (b"\x93NUMPY", 0, "NumPy"),
    (b"SQLite format 3\x00", 0, "SQLite"),
    (b"{\\rtf", 0, "RTF"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", 0, "older Microsoft Office"),
    (b"\x1f\x8b", 0, "gzip"),
    (b"BZh", 0, "bzip2"),
    (b"\xfd7zXZ\x00", 0, "xz"),
    (b"\x28\xb5\x2f\xfd", 0, "Zstandard"),
    (b"7z\xbc\xaf\x27\x1c", 0, "7-Zip"),
    (b"Rar!\x1a\x07", 0, "RAR"),
    (b"ustar", 257, "tar"),
    (b"PK\x05\x06", 0, "ZIP"),
    (b"\x7fELF", 0, "program"),
    (b"MZ\x90\x00", 0, "program"),
    (b"bplist00", 0, "property list (macOS)"),
    (b"OTTO", 0, "font"),
    (b"wOFF", 0, "font"),
    (b"wOF2", 0, "font"),
)
#: What a ZIP file holds, by what its first entries are called or contain.
_ZIPPED = (
    (b"mimetypeapplication/epub", "EPUB"),
    (b"mimetypeapplication/x-krita", "Krita"),
    (b"mimetypeimage/openraster", "OpenRaster"),
    (b"mimetypeapplication/vnd.oasis.opendocument", "OpenDocument"),
    (b"word/", "Microsoft Word"),
    (b"ppt/", "Microsoft PowerPoint"),
    (b"xl/", "Microsoft Excel"),
)
_NETPBM = re.compile(rb"P[1-6][ \t\r\n]*[\r\n ](?:#|[0-9])|P7\n|P[Ff]\n")
#: The four bytes at the beginning of an audio file without metadata: MPEG layers II and III, and ADTS.
_MPEG_AUDIO = re.compile(rb"\xff[\xfa-\xfd\xf2-\xf5][\x10-\xef]|\xff[\xf0\xf1\xf8\xf9][\x40-\xbf]")


def known_kind(data: bytes) -> str | None:
    """The name of the file's format, if it is recognised but not decoded; else None."""
    head = data[:4096]
    if head[4:8] == b"ftyp":
        return _iso_kind(data)
    if head[:4] in (b"RIFF", b"RIFX"):
        return _RIFF.get(head[8:12])
    if head.startswith(b"FORM"):
        return _IFF.get(head[8:12])
    if head.startswith(b"PK\x03\x04"):
        return next((f"{name} (ZIP)" for part, name in _ZIPPED if part in head), "ZIP")
    for magic, offset, kind in _MAGIC:
        if head.startswith(magic, offset):
            return kind
    if head[4:8] in _QUICKTIME:
        return _VIDEO
    return uncommon_kind(data) or raw_or_tiff(data) or text_kind(head) or _icon_kind(head) or _kind_without_magic(data)


def refusal(kind: str) -> str:
    """The sentence that tells the sender, for a kind that ``known_kind`` has named."""
    article = "an" if kind.startswith(_VOWELS) else "a"
    if kind.endswith(UNCOMMON):
        return f"this is {article} {kind} file, which is not decoded; save it as an ordinary JPEG or PNG file"
    hint = TEXTS.get(kind)
    noun = kind if hint is not None else f"{kind} file"
    return f"this is {article} {noun}; JPEG, PNG, WebP, GIF and BMP are decoded{f'; {hint}' if hint else ''}"


def _icon_kind(head: bytes) -> str | None:
    """The kind of a Windows icon or cursor. A picture of Truevision's begins with the same bytes, but has no count."""
    if (head[:3] != b"\x00\x00\x01" and head[:3] != b"\x00\x00\x02") or head[3:4] != b"\x00":
        return None
    count, reserved = int.from_bytes(head[4:6], "little"), head[9:10]
    if not count or reserved not in (b"\x00", b"\xff", b""):
        return None
    return "Windows icon" if head[2] == 1 else "Windows cursor"


def _kind_without_magic(data: bytes) -> str | None:
    """Formats that a few bytes do not tell for sure, and so are looked for last."""
    if _NETPBM.match(data):
        return "Netpbm (PPM, PGM, PBM or PAM)"
    if data.endswith(b"TRUEVISION-XFILE.\x00") or _is_targa(data[:18]):
        return "TGA"
    if _MPEG_AUDIO.match(data):
        return "audio (MPEG)"
    if len(data) > 376 and data[0] == data[188] == data[376] == 0x47:
        return "video (MPEG transport stream)"
    return None


def _is_targa(head: bytes) -> bool:
    """Whether the header of 18 bytes is one of Truevision's: kind, palette, sides and depth that go together."""
    if len(head) < 18:
        return False
    palette, kind, depth = head[1], head[2], head[16]
    if kind not in (1, 2, 3, 9, 10, 11) or palette != (kind & 7 == 1) or (not palette and any(head[3:8])):
        return False
    sides = int.from_bytes(head[12:14], "little"), int.from_bytes(head[14:16], "little")
    return all(sides) and depth in ((8, 16) if palette or kind & 7 == 3 else (15, 16, 24, 32)) and head[17] & 0xC0 == 0


def _iso_kind(data: bytes) -> str:
    """The format of a file in the ISO container, named by its major brand, or by another brand of a HEIF file."""
    length = min(int.from_bytes(data[:4], "big"), 1024)
    brands = [data[at : at + 4].lower() for at in (8, *range(16, length - 3, 4))]
    if brands[0] in _BRANDS:
        return _BRANDS[brands[0]]
    if _HEIF.isdisjoint(brands):
        return _VIDEO
    return next((_BRANDS[brand] for brand in brands if brand in _BRANDS), "HEIF or HEIC")
