"""Errors of pictures, all of which mean that the bytes are refused.

PictureError
├── UnsupportedFormatError   a known kind of file that is not decoded here (PDF, SVG, TIFF, HEIC, video ...)
├── UndecodableError         no decoder accepts the bytes: text, noise, truncated files
├── TooManyPixelsError       the header states more pixels than the limit
├── TooManyPartsError        more scans, segments, chunks or blocks than the limit: a small file that takes long
└── TooMuchWorkError         decoding would take more time or memory than the limit
"""

from __future__ import annotations


class PictureError(ValueError):
    """The bytes are not a picture that can be classified; the text tells the caller why."""


class UnsupportedFormatError(PictureError):
    """A known kind of file that is not decoded here."""


class UndecodableError(PictureError):
    """No decoder accepts the bytes."""


class TooManyPixelsError(PictureError):
    """The picture has more pixels than the limit."""


class TooManyPartsError(PictureError):
    """The file has more parts than the limit: scans of a JPEG, segments, chunks or blocks."""


class TooMuchWorkError(PictureError):
    """Decoding the picture would take more time or memory than the limit."""
