"""Label sets have the classes, and the order, that weights expect."""

from __future__ import annotations

import pytest

from models.checkpoints.labels import LABEL_SETS, labels


def test_imagenets_words_are_torchvisions_and_its_order_is_wordnets() -> None:
    from torchvision.models import VGG16_Weights

    classes = labels("imagenet1k")
    assert [label.word for label in classes] == VGG16_Weights.IMAGENET1K_V1.meta["categories"]
    ids = [label.wordnet_id or "" for label in classes]
    assert len(set(ids)) == 1000
    assert ids == sorted(ids)
    assert all(len(name) == 9 and name[0] == "n" and name[1:].isdigit() for name in ids)
    assert classes[281] == ("tabby", "n02123045")


def test_the_small_sets() -> None:
    assert [label.word for label in labels("mnist")] == [str(digit) for digit in range(10)]
    assert [label.word for label in labels("cifar10")] == [
        "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
    ]  # fmt: skip
    assert all(label.wordnet_id is None for name in ("mnist", "cifar10") for label in labels(name))


@pytest.mark.parametrize("name", ["imagenet", "MNIST", "", "../manifest"])
def test_an_unknown_set_is_answered_with_the_known_ones(name: str) -> None:
    with pytest.raises(ValueError, match=", ".join(LABEL_SETS)):
        labels(name)
