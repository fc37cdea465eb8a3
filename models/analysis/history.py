"""The ImageNet challenge (ILSVRC) by year: top-5 error on the test set, in percent, of the classification task.

Sources: Russakovsky et al., "ImageNet large scale visual recognition challenge" (2015), and the papers of the
entries.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of the challenge."""

    year: int
    name: str
    top5_error: float
    variant: str | None = None
    """The variant that is this network, or the closest to it."""
    note: str = ""


ILSVRC: tuple[Entry, ...] = (
    Entry(2010, "NEC-UIUC", 28.2, note="hand-made features and a linear SVM"),
    Entry(2011, "XRCE", 25.8, note="Fisher vectors and a linear SVM"),
    Entry(2012, "AlexNet", 16.4, "alexnet", "five networks; 15.3 with seven, two of them trained on more data"),
    Entry(2013, "ZFNet", 11.7, "zfnet", "entered as Clarifai"),
    Entry(2014, "VGG", 7.3, "vgg16", "second place"),
    Entry(2014, "GoogLeNet", 6.7, "googlenet", "seven networks, 144 crops"),
)
