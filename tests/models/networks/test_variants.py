"""Names of networks, misspelt ones among them."""

from __future__ import annotations

import pytest

from models.networks.variants import VARIANTS, UnknownModelError, find_variant


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("googlnet", "googlenet"),
        ("GoogLeNet", "googlenet"),
        ("googlnet@cifar10", "googlenet"),
        ("alexnt", "alexnet"),
        ("VGG-16", "vgg16"),
        ("inceptionv3", "inception_v3"),
        ("lenet-5", "lenet5"),
        ("bn-inception", "bn_inception"),
    ],
)
def test_a_misspelt_name_is_answered_with_what_was_meant(name: str, meant: str) -> None:
    with pytest.raises(UnknownModelError, match=rf"unknown model '{name}' \(did you mean {meant}\?\); known: alexnet,"):
        find_variant(name)


@pytest.mark.parametrize("name", ["resnet50", "", "x", "g" * 100_000, "mobilenet", "'; drop", "\n"])
def test_what_is_like_none_of_them_is_not(name: str) -> None:
    with pytest.raises(UnknownModelError) as caught:
        find_variant(name)
    assert "did you mean" not in str(caught.value)
    assert set(VARIANTS) < set(caught.value.known)


def test_a_right_name_for_a_wrong_label_set_is_not_misspelt() -> None:
    assert "did you mean" not in str(UnknownModelError("googlenet@mnist"))
