"""Crop, flip and cutout against their definitions, pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from twinspike_training.data.augment import DRAWS, cover, crop, cutout, drop, flip, roll, vary

EDGE = np.nextafter(1.0, 0.0)


def sample(count: int, height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(1, 256, (count, 2, height, width), dtype=np.uint8)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (8, 17), (7, 9)])
def test_crop(height: int, width: int) -> None:
    images = sample(40, height, width)
    uniforms = np.random.default_rng(1).random((40, 2))
    uniforms[:4] = [(0, 0), (0, EDGE), (EDGE, 0), (EDGE, EDGE)]
    pad_h, pad_w = max(1, height // 8), max(1, width // 8)
    out = crop(images, uniforms)
    for image, window, (u, v) in zip(images, out, uniforms, strict=True):
        padded = np.pad(image, ((0, 0), (pad_h, pad_h), (pad_w, pad_w)))
        y, x = int(u * (2 * pad_h + 1)), int(v * (2 * pad_w + 1))
        assert np.array_equal(window, padded[:, y : y + height, x : x + width])


def test_crop_of_32_pads_by_4() -> None:
    image = np.full((1, 1, 32, 32), 9, dtype=np.uint8)
    corner = crop(image, np.zeros((1, 2)))[0, 0]
    assert (corner[:4] == 0).all()
    assert (corner[:, :4] == 0).all()
    assert (corner[4:, 4:] == 9).all()


def test_flip() -> None:
    images = sample(3, 5, 6)
    out = flip(images.copy(), np.array([0.0, 0.5, np.nextafter(0.5, 0)]))
    assert np.array_equal(out, np.stack([images[0, :, :, ::-1], images[1], images[2, :, :, ::-1]]))


def test_roll() -> None:
    """Of 16 rows by up to 2, of 9 columns by 1: the least uniform moves up and left, the largest down and right."""
    images = sample(3, 16, 9)
    out = roll(images.copy(), np.array([(0.0, 0.0), (0.5, 0.5), (EDGE, EDGE)]))
    assert np.array_equal(out[0], np.roll(images[0], (-2, -1), axis=(1, 2)))
    assert np.array_equal(out[1], images[1])
    assert np.array_equal(out[2], np.roll(images[2], (2, 1), axis=(1, 2)))


def test_drop() -> None:
    """A third keeps all; a third loses 1 to T/2 frames in a row; a third a rectangle of up to half of each side in all frames."""
    images = np.ones((6, 8, 6, 10), dtype=np.float32)
    least, most = (0.0, EDGE)
    draws = [(0.3, EDGE, 0, 0), (0.5, least, least, 0), (0.5, most, most, 0), (0.9, least, 0, 0), (0.9, most, 0, 0), (EDGE,) * 4]
    out = drop(images.copy(), np.array(draws))
    expected = images.copy()
    expected[1, 0:2] = 0
    expected[2, 4:8] = 0
    expected[4, :, 0:3, 0:5] = 0
    expected[5, :, 3:6, 5:10] = 0
    assert np.array_equal(out, expected)
    assert np.array_equal(drop(images[:, :2].copy(), np.full((6, 4), 0.5)), images[:, :2])


def test_cutout() -> None:
    images = np.ones((3, 2, 32, 32), dtype=np.float32)
    out = cutout(images.copy(), np.array([(0.5, 0.5), (0.0, 0.25), (EDGE, EDGE)]))
    expected = images.copy()
    expected[0, :, 8:24, 8:24] = 0
    expected[1, :, 0:8, 0:16] = 0
    expected[2, :, 23:32, 23:32] = 0
    assert np.array_equal(out, expected)
    assert not np.signbit(cutout(-images, np.full((3, 2), 0.5))[0, 0, 16, 16])


def test_a_policy_does_not_change_the_draws_of_another() -> None:
    images = np.random.default_rng(3).integers(0, 256, (6, 3, 16, 16), dtype=np.uint8)
    uniforms = np.random.default_rng(4).random((6, DRAWS))
    cropped = vary(images.copy(), uniforms, {"crop"})
    assert np.array_equal(vary(cropped.copy(), uniforms, {"flip"}), vary(images.copy(), uniforms, {"crop", "flip", "cutout"}))
    assert np.array_equal(vary(images.copy(), uniforms, set()), images)
    floats = images.astype(np.float32) + 1
    assert np.array_equal(cover(floats.copy(), uniforms, {"crop", "flip"}), floats)
    assert np.count_nonzero(cover(floats.copy(), uniforms, {"cutout"}) == 0) >= 6 * 3 * 16
