"""A picture becomes a crop pixel for pixel as in the framework that trained the weights."""

from __future__ import annotations

import io
import json
import resource
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from models import get_model
from models.checkpoints.manifest import ManifestRow, manifest
from models.images.preprocess import PRESETS, Preprocess, centre, crop, cut, finished, fitted, picture_to_crop
from models.networks.variants import VARIANTS

Crop = npt.NDArray[np.uint8]
ROOT = Path(__file__).parents[3]


def noise(width: int, height: int, mode: str = "RGB") -> Image.Image:
    shape = (height, width, 3) if mode == "RGB" else (height, width)
    return Image.fromarray(np.random.default_rng(width * 9973 + height).integers(0, 256, shape, dtype=np.uint8))


def test_the_arithmetic_is_torchvisions() -> None:
    from torchvision.transforms import Compose, Normalize, ToTensor

    preprocess, picture = PRESETS["torchvision-224"], noise(224, 224)
    theirs = Compose([ToTensor(), Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))])(picture)
    ours = (np.asarray(picture) * preprocess.scale - preprocess.mean) / preprocess.std
    np.testing.assert_allclose(ours.transpose(2, 0, 1), theirs.numpy(), atol=1e-5)


def torchvisions() -> list[ManifestRow]:
    """The checkpoints that are torchvision's."""
    return [row for row in manifest() if row.url is not None and row.url.startswith("https://download.pytorch.org/")]


def network_input(picture: Image.Image, preprocess: Preprocess) -> torch.Tensor:
    """float32 (1, channels, side, side), by the arithmetic that ``Preprocess`` states."""
    assert preprocess.colour == "rgb"
    x = torch.from_numpy(crop(picture, preprocess).copy()).permute(2, 0, 1)[None].float()
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (preprocess.mean, preprocess.std))
    return (x * preprocess.scale - mean) / std


def test_every_torchvision_checkpoint_is_compared() -> None:
    assert [row.variant for row in torchvisions()] == [
        *("alexnet_owt", "vgg11", "vgg13", "vgg16", "vgg19", "googlenet_bn", "inception_v3"),
    ]


@pytest.mark.parametrize(("width", "height"), [(3000, 2), (2, 3000), (1, 2000)])
def test_only_the_middle_of_a_very_narrow_picture_is_scaled(width: int, height: int) -> None:
    """Scaled as a whole, a file of a hundred bytes would take gigabytes."""
    picture = Image.new("RGB", (width, height), "red")
    middle = (max(0, width // 2 - 50), max(0, height // 2 - 50))
    picture.paste("lime", (*middle, min(width, middle[0] + 100), min(height, middle[1] + 100)))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = crop(picture, PRESETS["torchvision-224"])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 100 * 1024  # KiB
    assert found.shape == (224, 224, 3)
    assert (found == (0, 255, 0)).all()


@settings(max_examples=30, deadline=None)
@given(width=st.integers(1, 500), height=st.integers(1, 500), preset=st.sampled_from(["caffe-224", "caffe-227"]))
def test_caffes_models_see_the_whole_picture_warped(width: int, height: int, preset: str) -> None:
    picture, side = noise(width, height), PRESETS[preset].crop
    start = round((256 - side) / 2)
    box = (start, start, start + side, start + side)
    expected = picture.resize((256, 256), Image.Resampling.BILINEAR).crop(box)
    assert np.array_equal(crop(picture, PRESETS[preset]), np.asarray(expected))


def test_caffes_numbers() -> None:
    preprocess = PRESETS["caffe-224"]
    assert (preprocess.colour, preprocess.scale, preprocess.mean) == ("bgr", 1.0, (104.0, 117.0, 123.0))
    assert set(preprocess.std) == {1.0}


def mnist(picture: Image.Image) -> Crop:
    found = crop(picture, PRESETS["mnist"])
    assert found.shape == (32, 32, 1)
    assert not found[:2].any()
    assert not found[-2:].any()
    assert not found[:, :2].any()
    assert not found[:, -2:].any()
    return found[2:-2, 2:-2, 0]


def digit(width: int, height: int, *, ink: int, ground: int) -> Image.Image:
    """A block of ink in the middle half of a ground."""
    picture = Image.new("L", (width, height), ground)
    picture.paste(ink, (width // 4, height // 4, width * 3 // 4, height * 3 // 4))
    return picture


def test_a_digit_of_mnists_own_size_and_polarity_is_untouched() -> None:
    picture = noise(28, 28, "L").point(lambda value: value // 2)
    assert np.array_equal(mnist(picture), np.asarray(picture))


def test_dark_ink_on_light_ground_is_inverted() -> None:
    dark, light = digit(28, 28, ink=30, ground=220), digit(28, 28, ink=225, ground=35)
    assert np.array_equal(mnist(dark), mnist(light))
    assert (mnist(dark)[14, 14], mnist(dark)[0, 0]) == (225, 35)


@pytest.mark.parametrize(("ground", "light"), [(127, False), (128, True)])
def test_ground_brighter_than_the_middle_of_0_to_255_is_light(ground: int, light: bool) -> None:
    found = mnist(digit(28, 28, ink=60, ground=ground))
    assert (found[0, 0], found[14, 14]) == ((255 - ground, 195) if light else (ground, 60))


def test_the_ground_is_the_median_of_the_border() -> None:
    """A dark stain on 50 of the 112 outermost pixels leaves the ground light, although their mean is dark; on 72 of
    them, the stain is the ground."""
    for rows, light in ((11, True), (22, False)):
        picture = Image.new("L", (28, 28), 200)
        picture.paste(10, (0, 0, 28, rows))
        assert mnist(picture)[27, 14] == (55 if light else 200)


@pytest.mark.parametrize(
    ("width", "height", "rows", "columns"), [(140, 80, 8, 14), (80, 140, 14, 8), (280, 280, 14, 14)]
)
def test_a_digit_keeps_its_aspect_on_its_own_ground(width: int, height: int, rows: int, columns: int) -> None:
    found = mnist(digit(width, height, ink=255, ground=20))
    ink = found > 137
    assert (ink.any(axis=1).sum(), ink.any(axis=0).sum()) == (rows, columns)
    assert set(found[[0, 0, -1, -1], [0, -1, 0, -1]]) == {20}


def digit_by_pillow(picture: Image.Image) -> Crop:
    """A digit's crop before its frame of zeros, made of Pillow's own operations."""
    grey = picture.convert("L")
    edge = [grey.crop(box) for box in ((0, 0, grey.width, 1), (0, grey.height - 1, grey.width, grey.height))]
    edge += [grey.crop(box) for box in ((0, 0, 1, grey.height), (grey.width - 1, 0, grey.width, grey.height))]
    border = int(np.median([value for line in edge for value in line.tobytes()]))
    if grey.size != (28, 28):
        grey = ImageOps.pad(grey, (28, 28), Image.Resampling.BILINEAR, color=border)
    return np.asarray(ImageOps.invert(grey) if border > 127 else grey)


@settings(deadline=None)
@given(
    size=st.one_of(st.just((28, 28)), st.tuples(st.integers(1, 60), st.integers(1, 60))),
    darkest=st.integers(0, 255),
    spread=st.integers(1, 256),
    seed=st.integers(0, 2**32),
)
def test_a_digit_is_as_pillow_makes_it(size: tuple[int, int], darkest: int, spread: int, seed: int) -> None:
    values = np.random.default_rng(seed).integers(darkest, darkest + spread, size[::-1])
    picture = Image.fromarray(values.clip(0, 255).astype(np.uint8))
    before = picture.tobytes()
    assert np.array_equal(mnist(picture), digit_by_pillow(picture))
    assert np.array_equal(cut(picture, PRESETS["mnist"])[..., 0], np.asarray(fitted(picture, PRESETS["mnist"])))
    assert picture.tobytes() == before


@settings(deadline=None)
@given(
    fit=st.sampled_from(["short side", "warp", "contain"]),
    grey=st.booleans(),
    ink_on_light=st.booleans(),
    ground=st.integers(0, 255),
    seed=st.integers(0, 2**32),
)
def test_a_part_and_a_colour_picture_are_inverted_as_the_whole(
    fit: Literal["short side", "warp", "contain"], grey: bool, ink_on_light: bool, ground: int, seed: int
) -> None:
    """By the border of the whole picture, whose middle is darker or lighter than the border."""
    preprocess = Preprocess(fit, 9, 6, colour="grey" if grey else "rgb", ink_on_light=ink_on_light)
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 12) if grey else (9, 12, 3), dtype=np.uint8)
    pixels[[0, -1]] = pixels[:, [0, -1]] = ground
    picture = Image.fromarray(pixels)
    whole = fitted(picture, preprocess)
    expected = np.asarray(whole.crop(centre(whole.size, 6))).reshape(6, 6, -1)
    assert np.array_equal(cut(picture, preprocess), expected)
    assert (np.asarray(whole)[0, 0] == (255 - ground if ink_on_light and ground > 127 else ground)).all()


def test_mnists_numbers_are_the_papers() -> None:
    """Background -0.1 and foreground 1.175 (section III-A)."""
    preprocess = PRESETS["mnist"]
    values = (np.array([0, 255]) * preprocess.scale - preprocess.mean[0]) / preprocess.std[0]
    assert values == pytest.approx([-0.1, 1.175])


def test_cifar10s_pictures_are_warped_to_32_and_then_enlarged() -> None:
    picture = noise(300, 200)
    small = picture.resize((32, 32), Image.Resampling.BILINEAR)
    assert np.array_equal(cut(picture, PRESETS["cifar10"]), np.asarray(small))
    expected = np.asarray(small.resize((64, 64), Image.Resampling.BILINEAR))
    assert np.array_equal(crop(picture, PRESETS["cifar10"]), expected)
    # The data set's own pictures are not touched by the first step.
    assert np.array_equal(crop(small, PRESETS["cifar10"]), expected)


@given(st.integers(1, 5), st.integers(1, 40), st.integers(1, 3), st.booleans(), st.integers(0, 2**32))
def test_enlarging_crops_together_equals_enlarging_each_with_pillow(
    count: int, side: int, factor: int, grey: bool, seed: int
) -> None:
    colour: Literal["grey", "rgb"] = "grey" if grey else "rgb"
    preprocess = Preprocess("warp", side, side, colour=colour, enlarge=side * factor, pad=1)
    crops = np.random.default_rng(seed).integers(0, 256, (count, side, side, preprocess.channels), dtype=np.uint8)
    found = finished(crops, preprocess)
    assert found.shape == (count, side * factor + 2, side * factor + 2, preprocess.channels)
    for pixels, ours in zip(crops, found, strict=True):
        picture = Image.fromarray(pixels[..., 0] if grey else pixels)
        alone = np.asarray(picture.resize((side * factor, side * factor), Image.Resampling.BILINEAR))
        assert np.array_equal(ours[1:-1, 1:-1], alone.reshape(side * factor, side * factor, -1))
        assert not ours[0].any()


def test_enlarging_to_no_multiple_of_the_crop_is_refused() -> None:
    with pytest.raises(ValueError, match="enlarge 60 is not a multiple of crop 32"):
        Preprocess("warp", 32, 32, enlarge=60)


def test_cards_written_before_crops_were_enlarged_are_read() -> None:
    fields = PRESETS["caffe-224"].to_json()
    del fields["enlarge"]
    assert Preprocess.from_json(fields) == PRESETS["caffe-224"]


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("size", [(1, 1), (300, 200), (1, 40), (2000, 1)])
def test_every_preset_takes_every_size(name: str, size: tuple[int, int]) -> None:
    preprocess = PRESETS[name]
    found = crop(noise(*size, "L" if preprocess.colour == "grey" else "RGB"), preprocess)
    assert found.shape == (preprocess.side, preprocess.side, preprocess.channels)
    assert found.dtype == np.uint8
    assert len(preprocess.mean) == len(preprocess.std) == preprocess.channels


def rings(side: int) -> bytes:
    """A JPEG with ever finer rings, which make every shortcut in scaling visible."""
    y, x = np.mgrid[:side, :side] / side - 0.5
    picture = Image.fromarray((127.5 + 127.5 * np.cos(300 * (x * x + y * y))).astype(np.uint8))
    out = io.BytesIO()
    picture.convert("RGB").save(out, "JPEG", quality=95)
    return out.getvalue()


@pytest.mark.parametrize("preset", ["torchvision-224", "caffe-224", "mnist", "cifar10"])
def test_decoding_a_large_jpeg_smaller_hardly_shows(preset: str) -> None:
    preprocess, data = PRESETS[preset], rings(2400)
    whole = Image.open(io.BytesIO(data)).convert("L" if preprocess.colour == "grey" else "RGB")
    short_cut = picture_to_crop(data, preprocess, max_pixels=10**7).astype(int)
    assert np.abs(short_cut - crop(whole, preprocess).astype(int)).max() <= 4


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_json(name: str) -> None:
    preprocess = PRESETS[name]
    found = Preprocess.from_json(json.loads(json.dumps(preprocess.to_json())))
    assert found == preprocess
    assert hash(found) == hash(preprocess)


@pytest.mark.parametrize("fields", [{}, {"fit": "warp"}, {**PRESETS["mnist"].to_json(), "flip": True}])
def test_unknown_and_missing_fields_are_errors(fields: dict[str, object]) -> None:
    with pytest.raises(TypeError):
        Preprocess.from_json(fields)


def test_pictures_are_decoded_and_cropped_without_torch() -> None:
    """A server on a CPU has no use for torch or torchvision, which take seconds to load."""
    code = (
        "import sys, pkgutil, importlib, models.images as room\n"
        "for each in pkgutil.iter_modules(room.__path__): importlib.import_module('models.images.' + each.name)\n"
        "print(sorted({'torch', 'torchvision', 'models.images.jpeg'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "['models.images.jpeg']"


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(1, 700),
    height=st.integers(1, 700),
    preset=st.sampled_from(["torchvision-224", "half-224", "half-299"]),
)
def test_the_crop_is_torchvisions(width: int, height: int, preset: str) -> None:
    from torchvision.transforms import CenterCrop, Compose, Resize

    assume(max(width, height) <= 16 * min(width, height))
    resize, side = (342, 299) if preset == "half-299" else (256, 224)
    picture = noise(width, height)
    expected = np.asarray(Compose([Resize(resize), CenterCrop(side)])(picture))
    assert np.array_equal(crop(picture, PRESETS[preset]), expected)


def test_half_is_what_torchvisions_googlenet_and_inception_see_inside() -> None:
    """They take pictures normalised by ImageNet's mean and re-normalise them (``transform_input``); the preset does it
    at once."""
    from torchvision.models import GoogLeNet

    pixels = torch.rand(1, 3, 5, 5)
    outer, inner = PRESETS["torchvision-224"], PRESETS["half-224"]

    def normalise(preprocess: Preprocess) -> torch.Tensor:
        mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (preprocess.mean, preprocess.std))
        return (pixels - mean) / std

    theirs = GoogLeNet._transform_input(SimpleNamespace(transform_input=True), normalise(outer))
    torch.testing.assert_close(normalise(inner), theirs, atol=1e-5, rtol=0)
    assert (PRESETS["half-299"].mean, PRESETS["half-299"].std) == (inner.mean, inner.std)


@pytest.mark.parametrize("size", [(613, 457), (331, 640), (150, 97)])
@pytest.mark.parametrize("row", torchvisions(), ids=lambda row: row.variant)
def test_a_checkpoint_sees_what_torchvisions_own_transforms_show_it(row: ManifestRow, size: tuple[int, int]) -> None:
    """The transforms that torchvision publishes with these very weights, found by their URL.

    They get a PIL picture, as torchvision's accuracies are measured: PIL always antialiases, and tensors are resized to
    slightly other values. googlenet and inception_v3 re-normalise what comes out of them.
    """
    from torchvision import models

    (weights,) = (
        weights
        for name in models.list_models(models)
        for weights in models.get_model_weights(name)
        if weights.url == row.url
    )
    picture = noise(*size)
    expected = weights.transforms()(picture)[None]
    inside = {"googlenet_bn": models.GoogLeNet, "inception_v3": models.Inception3}
    if row.variant in inside:
        expected = inside[row.variant]._transform_input(SimpleNamespace(transform_input=True), expected)
    ours = network_input(picture, PRESETS[row.preprocess])
    assert ours.shape == (1, *VARIANTS[row.variant].input_shape)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)
    # And weights whose origin nobody told are taken for these.
    assert VARIANTS[row.variant].preprocess == row.preprocess


def test_torchvisions_googlenet_and_ours_agree_on_a_picture_from_its_pixels_on() -> None:
    """Theirs normalises twice, the second time inside; ours once."""
    from torchvision.models import GoogLeNet_Weights, googlenet

    theirs = googlenet(transform_input=True, init_weights=False, aux_logits=False, num_classes=50).eval()
    generator = torch.Generator().manual_seed(5)
    for parameter in theirs.parameters():
        if parameter.ndim > 1:
            # torch's own start lets the signal die within 22 layers.
            torch.nn.init.kaiming_uniform_(parameter, generator=generator)
    with torch.device("meta"):
        ours = get_model("googlenet_bn", num_classes=50)
    ours.load_state_dict(theirs.state_dict(), assign=True)
    pictures = [noise(613, 457), Image.open(io.BytesIO(rings(300)))]
    with torch.inference_mode():
        expected = theirs(torch.stack([GoogLeNet_Weights.IMAGENET1K_V1.transforms()(picture) for picture in pictures]))
        found = ours(torch.cat([network_input(picture, PRESETS["half-224"]) for picture in pictures]))
        once = ours(torch.cat([network_input(picture, PRESETS["torchvision-224"]) for picture in pictures]))
    spread = expected.std().item()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * spread)
    # Both the picture and the normalisation show in the logits.
    assert (expected[0] - expected[1]).abs().max() > 1000 * 1e-4 * spread
    assert (once - expected).abs().max() > 1000 * 1e-4 * spread
