"""What can be wrong with bytes that should be a picture.

PictureError
├── UnsupportedFormatError   a known kind of file that is not decoded here (PDF, SVG, TIFF, HEIC, video ...)
├── UndecodableError         no decoder accepts the bytes: text, noise, truncated files
├── TooManyPixelsError       the header promises more pixels than the limit
└── TooManyPartsError        more scans, segments, chunks or blocks than the limit: a small file, a lot of work
"""

from __future__ import annotations


class PictureError(ValueError):
    """The bytes are no picture that is classified here; the text says why, in words for the caller."""


class UnsupportedFormatError(PictureError):
    """A known kind of file that is not decoded here."""


class UndecodableError(PictureError):
    """No decoder accepts the bytes."""


class TooManyPixelsError(PictureError):
    """The picture has more pixels than the limit."""


class TooManyPartsError(PictureError):
    """The file has more parts than the limit: scans of a JPEG, segments, chunks or blocks."""
