"""Batched image operations give Pillow's pixels, exactly, and treat each image by itself.

Factors are eighths, so that blending is exact in float32 and a fused multiply-add in either can't matter.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

from twinspike_training.data import imageops
from twinspike_training.data.autoaugment import CIFAR10_POLICY, OPERATIONS, autoaugment

COUNT, SIDE = 24, 20
Pixels = NDArray[np.uint8]
GREY = (128, 128, 128)


@pytest.fixture(scope="module")
def images() -> Pixels:
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (COUNT, 3, SIDE, SIDE + 4), dtype=np.uint8)
    pixels[0] = 100  # constant: nothing to stretch or to equalize
    pixels[1, 0] = 3
    pixels[2] = pixels[2] // 64 * 64  # few values
    pixels[3] = np.arange(SIDE + 4) + 90  # a ramp of low contrast
    pixels[4, :, 0, 0], pixels[4, :, 0, 1:] = 255, 254  # the highest value is rare
    pixels[5] = np.where(pixels[5] < 250, 0, 255)  # nearly black
    return pixels


def by_pillow(images: Pixels, operation: Callable[[Image.Image, int], Image.Image]) -> Pixels:
    rows = [Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))) for pixels in images]
    return np.stack([np.asarray(operation(row, i)).transpose(2, 0, 1) for i, row in enumerate(rows)])


def test_invert(images: Pixels) -> None:
    assert np.array_equal(imageops.invert(images), by_pillow(images, lambda image, _: ImageOps.invert(image)))


def test_posterize(images: Pixels) -> None:
    bits = np.arange(COUNT) % 8 + 1
    expected = by_pillow(images, lambda image, i: ImageOps.posterize(image, int(bits[i])))
    assert np.array_equal(imageops.posterize(images, bits.astype(np.float64)), expected)


def test_solarize(images: Pixels) -> None:
    threshold = np.linspace(0, 256, COUNT)
    expected = by_pillow(images, lambda image, i: ImageOps.solarize(image, threshold[i]))
    assert np.array_equal(imageops.solarize(images, threshold), expected)


def test_autocontrast(images: Pixels) -> None:
    assert np.array_equal(imageops.autocontrast(images), by_pillow(images, lambda image, _: ImageOps.autocontrast(image)))


def test_equalize(images: Pixels) -> None:
    assert np.array_equal(imageops.equalize(images), by_pillow(images, lambda image, _: ImageOps.equalize(image)))


@pytest.mark.parametrize(
    ("name", "pillow"),
    [
        ("color", ImageEnhance.Color),
        ("brightness", ImageEnhance.Brightness),
        ("contrast", ImageEnhance.Contrast),
        ("sharpness", ImageEnhance.Sharpness),
    ],
)
def test_enhancements(images: Pixels, name: str, pillow: Callable[[Image.Image], ImageEnhance._Enhance]) -> None:
    factor = np.arange(COUNT) / 8
    expected = by_pillow(images, lambda image, i: pillow(image).enhance(factor[i]))
    assert np.array_equal(getattr(imageops, name)(images, factor), expected)


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("shear_x", lambda v: (1, v, 0, 0, 1, 0)),
        ("shear_y", lambda v: (1, 0, 0, v, 1, 0)),
        ("translate_x", lambda v: (1, 0, v * (SIDE + 4), 0, 1, 0)),
        ("translate_y", lambda v: (1, 0, 0, 0, 1, v * SIDE)),
    ],
)
def test_moves(images: Pixels, name: str, rows: Callable[[float], tuple[float, ...]]) -> None:
    value = np.linspace(-0.4, 0.4, COUNT)
    expected = by_pillow(
        images, lambda image, i: image.transform(image.size, Image.Transform.AFFINE, rows(value[i]), fillcolor=GREY)
    )
    assert np.array_equal(getattr(imageops, name)(images, value), expected)


def test_rotate(images: Pixels) -> None:
    degrees = np.linspace(-31, 30, COUNT)
    expected = by_pillow(images, lambda image, i: image.rotate(degrees[i], fillcolor=GREY))
    assert np.array_equal(imageops.rotate(images, degrees), expected)


def test_operations_treat_each_image_by_itself_and_leave_it(images: Pixels) -> None:
    before, share = images.copy(), np.full(COUNT, 5 / 9)
    sign = np.where(np.arange(COUNT) % 2, 1.0, -1.0)
    for name, operation in OPERATIONS.items():
        together = operation(images, share, sign)
        one_by_one = [operation(images[i : i + 1], share[i : i + 1], sign[i : i + 1]) for i in range(COUNT)]
        assert np.array_equal(together, np.concatenate(one_by_one)), name
    assert np.array_equal(images, before)


def test_levels_span_the_ranges_of_the_paper(images: Pixels) -> None:
    least, most, plus = np.zeros(COUNT), np.ones(COUNT), np.ones(COUNT)
    for name in ("color", "brightness", "contrast", "sharpness", "rotate", "shear_x", "translate_y"):
        assert np.array_equal(OPERATIONS[name](images, least, plus), images), name
    assert np.array_equal(OPERATIONS["solarize"](images, least, plus), images)
    assert np.array_equal(OPERATIONS["solarize"](images, most, plus), ~images)
    assert np.array_equal(OPERATIONS["posterize"](images, least, plus), images)
    assert np.array_equal(OPERATIONS["posterize"](images, most, plus), images & 0xF0)
    assert np.array_equal(OPERATIONS["brightness"](images, most, -plus), imageops.brightness(images, 1.0 - 0.9 * most))


def test_table() -> None:
    assert len(CIFAR10_POLICY) == 25
    steps = [step for pair in CIFAR10_POLICY for step in pair]
    assert all(name in OPERATIONS and round(chance * 10) / 10 == chance and 0 <= level <= 9 for name, chance, level in steps)


def test_policy_follows_its_draws(images: Pixels) -> None:
    def uniforms(policy: int, *rest: float) -> NDArray[np.float64]:
        return np.tile([(policy + 0.5) / 25, *rest], (COUNT, 1))

    share = np.ones(COUNT)
    # Sub-policy 21: translate_y at level 9, with probability 0.9 and again with 0.7.
    up, down = imageops.translate_y(images, -150 / 331 * share), imageops.translate_y(images, 150 / 331 * share)
    assert np.array_equal(autoaugment(images.copy(), uniforms(21, 0.89, 0.49, 0.71, 0.0)), up)
    assert np.array_equal(autoaugment(images.copy(), uniforms(21, 0.91, 0.49, 0.69, 0.5)), down)
    both = imageops.translate_y(up, 150 / 331 * share)
    assert np.array_equal(autoaugment(images.copy(), uniforms(21, 0.0, 0.0, 0.0, 0.9)), both)
    assert np.array_equal(autoaugment(images.copy(), uniforms(21, 0.9, 0.0, 0.7, 0.0)), images)
    # Sub-policy 14 has an inversion of probability 0.
    assert np.array_equal(autoaugment(images.copy(), uniforms(14, 0.5, 0.0, 0.0, 0.0)), images)


def test_policy_does_not_depend_on_the_batch(images: Pixels) -> None:
    many = np.tile(images, (20, 1, 1, 1))
    uniforms = np.random.default_rng(2).random((len(many), 5))
    together = autoaugment(many.copy(), uniforms)
    alone = [autoaugment(many[i : i + 1].copy(), uniforms[i : i + 1]) for i in range(len(many))]
    assert np.array_equal(together, np.concatenate(alone))
    assert not np.array_equal(together, many)
