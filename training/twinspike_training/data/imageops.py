"""The image operations of AutoAugment on whole batches, in integers wherever the definition allows it.

Each is defined here and gives what Pillow's ImageOps, ImageEnhance and nearest-neighbour transform give for
one image at a time. Written on arrays because a Python call per small image costs more than its pixels, and
because Pillow may change its rounding between versions, and a run must not.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from twinspike_training.data.bicubic import affine_bicubic

Images = NDArray[np.uint8]
"""(n, 3, H, W), red, green, blue. Operations return new arrays."""

Per = NDArray[np.float64]
"""(n,), one parameter per image."""

_FILL = 128
"""Grey of pixels that a geometric operation brings in from outside the image."""

_ONE = 1 << 16
"""1.0 in the 16.16 fixed-point coordinates of `affine`."""


def invert(images: Images) -> Images:
    """255 - value."""
    return ~images


def posterize(images: Images, bits: Per) -> Images:
    """Keep the highest `bits` bits, 1 to 8, of each value."""
    mask = (0xFF << (8 - bits.astype(np.int64))) & 0xFF
    return images & mask.astype(np.uint8)[:, None, None, None]


def solarize(images: Images, threshold: Per) -> Images:
    """Invert the values at or above the threshold, 0 to 256."""
    return np.where(images < threshold[:, None, None, None], images, ~images)


def _look_up(images: Images, table: NDArray[np.uint8]) -> Images:
    """Replace each value by its entry in its image's and channel's table (n * 3, 256)."""
    flat = images.reshape(len(table), -1)
    offsets = (np.arange(len(table)) * 256)[:, None]
    return np.take(table, flat + offsets).reshape(images.shape)


def autocontrast(images: Images) -> Images:
    """Stretch each channel linearly so that its extremes become 0 and 255; a constant channel stays."""
    flat = images.reshape(len(images) * 3, -1)
    low, high = flat.min(axis=1).astype(np.float64), flat.max(axis=1).astype(np.float64)
    stays = high <= low
    scale = 255.0 / np.where(stays, 1.0, high - low)
    scale, low = np.where(stays, 1.0, scale)[:, None], np.where(stays, 0.0, low)[:, None]
    table = np.arange(256) * scale + -low * scale
    return _look_up(images, np.clip(table, 0, 255).astype(np.uint8))


def equalize(images: Images) -> Images:
    """Flatten each channel's histogram: value -> (step/2 + pixels below it) / step, all whole, at most 255.

    step = (pixels - pixels of the highest value present) / 255, whole; the channel stays where that is 0.
    """
    channels = len(images) * 3
    flat = images.reshape(channels, -1)
    offsets = (np.arange(channels) * 256)[:, None]
    histogram = np.bincount((flat + offsets).ravel(), minlength=channels * 256).reshape(channels, 256)
    highest = np.take_along_axis(histogram, flat.max(axis=1).astype(np.int64)[:, None], axis=1)
    step = (flat.shape[1] - highest) // 255
    below = np.cumsum(histogram, axis=1) - histogram
    table = np.minimum((step // 2 + below) // np.maximum(step, 1), 255)
    return _look_up(images, np.where(step == 0, np.arange(256), table).astype(np.uint8))


def _grey(images: Images) -> NDArray[np.int32]:
    """(n, 1, H, W): luminance 0.299 R + 0.587 G + 0.114 B in 16-bit fixed point, rounded."""
    red, green, blue = (images[:, i : i + 1].astype(np.int32) for i in range(3))
    return np.asarray((19595 * red + 38470 * green + 7471 * blue + 32768) >> 16)


def _blend(base: NDArray[np.generic] | int, images: Images, factor: Per) -> Images:
    """base + factor (image - base) in float32, cut to [0, 255] and truncated; factor >= 0, 1 gives the image."""
    start = np.asarray(base, dtype=np.float32)
    mixed = start + factor.astype(np.float32)[:, None, None, None] * (images - start)
    return np.clip(mixed, 0, 255).astype(np.uint8)


def color(images: Images, factor: Per) -> Images:
    """Blend with the grey image."""
    return _blend(_grey(images), images, factor)


def brightness(images: Images, factor: Per) -> Images:
    """Blend with black."""
    return _blend(0, images, factor)


def contrast(images: Images, factor: Per) -> Images:
    """Blend with the mean grey of the image, rounded."""
    grey = _grey(images)
    pixels = grey.shape[2] * grey.shape[3]
    mean = (2 * grey.sum(axis=(2, 3), keepdims=True, dtype=np.int64) + pixels) // (2 * pixels)
    return _blend(mean, images, factor)


def sharpness(images: Images, factor: Per) -> Images:
    """Blend with the smoothed image: (3 x 3 sum + 4 centre) / 13, rounded; the outermost pixels stay."""
    height, width = images.shape[2:]
    wide = images.astype(np.int16)
    total = 4 * wide[:, :, 1:-1, 1:-1]
    for y in range(3):
        for x in range(3):
            total += wide[:, :, y : height - 2 + y, x : width - 2 + x]
    smooth = images.copy()
    smooth[:, :, 1:-1, 1:-1] = (2 * total + 13) // 26
    return _blend(smooth, images, factor)


def affine(images: Images, matrices: NDArray[np.float64]) -> Images:
    """Look up each output pixel's centre (x, y) at (a x + b y + c, d x + e y + f), nearest; grey 128 outside.

    Args:
        images: (n, 3, H, W).
        matrices: (n, 6), rows a b c d e f in pixels, x to the right and y down from the upper left corner;
            computed in 16.16 fixed point.
    """
    count, channels, height, width = images.shape
    a, b, c, d, e, f = matrices.T[:, :, None, None]
    x, y = np.arange(width), np.arange(height)[:, None]

    def walk(by_x: NDArray[np.float64], by_y: NDArray[np.float64], shift: NDArray[np.float64]) -> NDArray[np.int64]:
        steps = [np.floor(v * _ONE + 0.5).astype(np.int64) for v in (by_x, by_y, shift + by_x / 2 + by_y / 2)]
        return np.asarray((steps[2] + x * steps[0] + y * steps[1]) >> 16)

    column, row = walk(a, b, c), walk(d, e, f)
    outside = (column < 0) | (column >= width) | (row < 0) | (row >= height)
    planes = np.arange(0, images.size, height * width).reshape(count, channels, 1, 1)
    out = np.take(images, np.where(outside, 0, row * width + column)[:, None] + planes)
    np.copyto(out, np.uint8(_FILL), where=outside[:, None])
    return out


def _matrices(count: int, **entries: Per | float) -> NDArray[np.float64]:
    """(count, 6) rows of the identity with some entries replaced."""
    rows = np.tile([1.0, 0.0, 0.0, 0.0, 1.0, 0.0], (count, 1))
    for name, value in entries.items():
        rows[:, "abcdef".index(name)] = value
    return rows


def shear_x(images: Images, slope: Per) -> Images:
    """Take pixel (x, y) from (x + slope y, y)."""
    return affine(images, _matrices(len(images), b=slope))


def shear_y(images: Images, slope: Per) -> Images:
    """Take pixel (x, y) from (x, y + slope x)."""
    return affine(images, _matrices(len(images), d=slope))


def shear_x_bicubic(images: Images, slope: Per) -> Images:
    """As `shear_x`, bicubic."""
    return affine_bicubic(images, _matrices(len(images), b=slope), _FILL)


def shear_y_bicubic(images: Images, slope: Per) -> Images:
    """As `shear_y`, bicubic."""
    return affine_bicubic(images, _matrices(len(images), d=slope), _FILL)


def translate_x(images: Images, share: Per) -> Images:
    """Take pixel (x, y) from (x + share W, y)."""
    return affine(images, _matrices(len(images), c=share * images.shape[3]))


def translate_y(images: Images, share: Per) -> Images:
    """Take pixel (x, y) from (x, y + share H)."""
    return affine(images, _matrices(len(images), f=share * images.shape[2]))


def rotate(images: Images, degrees: Per) -> Images:
    """Turn the image about its centre, counter-clockwise as seen."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    mid_x, mid_y = images.shape[3] / 2, images.shape[2] / 2
    shift_x, shift_y = mid_x - cos * mid_x + sin * mid_y, mid_y - sin * mid_x - cos * mid_y
    return affine(images, _matrices(len(images), a=cos, b=-sin, c=shift_x, d=sin, e=cos, f=shift_y))
