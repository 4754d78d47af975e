"""Variations of training samples, drawn by the spec and applied to whole batches at once.

Each sample of each epoch owns a stream, and each decision a fixed place in it, so that switching one policy
off changes no other's draws, and neither batch size nor worker count changes anything. Sizes are those usual
for 32 x 32 images, in proportion for others.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet

import numpy as np
from numpy.typing import NDArray

from twinspike_training.data.autoaugment import autoaugment
from twinspike_training.data.config import Policy, Quirk
from twinspike_training.data.source import Raw

DRAWS = 16
"""Uniforms per sample and epoch: crop row and column, flip, AutoAugment's five, cutout row and column, roll row and column, and
of drop what, how much, and where in rows (or frames) and columns."""

_CROP, _FLIP, _AUTO, _CUTOUT, _ROLL, _DROP = slice(0, 2), 2, slice(3, 8), slice(8, 10), slice(10, 12), slice(12, 16)

Uniforms = NDArray[np.float64]


def crop(images: Raw, uniforms: Uniforms) -> Raw:
    """Cut a window of the image's own size out of the image padded with zeros, raw value, on all sides.

    The padding is an eighth of each side (4 of 32), rounded down but at least 1; all windows are equally likely.

    Args:
        images: (n, P, H, W).
        uniforms: (n, 2), for the row and the column of the window.
    """
    count, planes, height, width = images.shape
    pad_h, pad_w = max(1, height // 8), max(1, width // 8)
    padded = np.zeros((count, planes, height + 2 * pad_h, width + 2 * pad_w), dtype=images.dtype)
    padded[:, :, pad_h : pad_h + height, pad_w : pad_w + width] = images
    rows = np.floor(uniforms[:, 0] * (2 * pad_h + 1)).astype(np.int64)
    columns = np.floor(uniforms[:, 1] * (2 * pad_w + 1)).astype(np.int64)
    out = np.empty_like(images)
    for i, (y, x) in enumerate(zip(rows.tolist(), columns.tolist(), strict=True)):
        out[i] = padded[i, :, y : y + height, x : x + width]
    return out


def flip(images: Raw, uniforms: Uniforms) -> Raw:
    """Mirror left and right with probability 1/2.

    Args:
        images: (n, P, H, W), changed in place.
        uniforms: (n,).
    """
    chosen = np.flatnonzero(uniforms < 0.5)
    images[chosen] = images[chosen, :, :, ::-1]
    return images


def roll(images: Raw, uniforms: Uniforms) -> Raw:
    """Move an image by up to an eighth of each side (6 of 48), at least 1; what leaves at one border comes in at the other.

    All offsets are equally likely. Reference: Li et al., Neuromorphic data augmentation, ECCV 2022.

    Args:
        images: (n, P, H, W), changed in place.
        uniforms: (n, 2), for rows and columns.
    """
    most = np.maximum(1, np.array(images.shape[2:]) // 8)
    moves = np.floor(uniforms * (2 * most + 1)).astype(np.int64) - most
    for i, (down, right) in enumerate(moves.tolist()):
        images[i] = np.roll(images[i], (down, right), axis=(1, 2))
    return images


def drop(images: Raw, uniforms: Uniforms) -> Raw:
    """Leave events out: none, those of some frames in a row, or those of a rectangle in all frames, a third of samples each.

    Of T frames k are left out, k equally likely 1 to T // 2 (none of a single one), of a rectangle's sides, which are alike in
    proportion, up to half; all places within the sample are equally likely. Reference, of its parts: Gu et al., EventDrop,
    IJCAI 2021, which draws windows of time and of place likewise.

    Args:
        images: (n, 2 T, H, W) counts, two polarities a frame, changed in place.
        uniforms: (n, 4): what, how much, and where in rows (or frames) and columns.
    """
    count, planes, height, width = images.shape
    frames = images.reshape(count, planes // 2, 2, height, width)
    steps = planes // 2
    for i, (what, much, first, second) in enumerate(uniforms.tolist()):
        if what < 1 / 3:
            continue
        if what < 2 / 3:
            length = 1 + int(much * (steps // 2)) if steps > 1 else 0
            start = int(first * (steps - length + 1))
            frames[i, start : start + length] = 0
        else:
            rows, columns = (int(much * (side // 2 + 1)) for side in (height, width))
            top, left = int(first * (height - rows + 1)), int(second * (width - columns + 1))
            frames[i, :, :, top : top + rows, left : left + columns] = 0
    return images


def cutout(images: Raw, uniforms: Uniforms) -> Raw:
    """Set a square of half the side (16 of 32), cut off at the border, to 0: the mean colour in normalized values.

    The centre is any pixel, each equally likely. Reference: DeVries and Taylor, arXiv 1708.04552.

    Args:
        images: (n, P, H, W), normalized, or raw for a black square; changed in place.
        uniforms: (n, 2), for the row and the column of the centre.
    """
    inside = []
    for axis, size in enumerate(images.shape[2:]):
        start = np.floor(uniforms[:, axis] * size).astype(np.int64) - size // 4
        place = np.arange(size)
        inside.append((place >= start[:, None]) & (place < start[:, None] + size // 2))
    np.copyto(images, images.dtype.type(0), where=(inside[0][:, :, None] & inside[1][:, None, :])[:, None])
    return images


def vary(images: Raw, uniforms: Uniforms, policies: AbstractSet[Policy], quirks: AbstractSet[Quirk] = frozenset()) -> Raw:
    """Apply the policies that work on raw values, in the order crop, roll, flip, AutoAugment, drop.

    Args:
        images: (n, P, H, W); for autoaugment uint8 with P = 3, for drop two planes a frame. May be overwritten.
        uniforms: (n, DRAWS).
        policies: the policies in force.
        quirks: of AutoAugment.
    """
    if "crop" in policies:
        images = crop(images, uniforms[:, _CROP])
    if "roll" in policies:
        images = roll(images, uniforms[:, _ROLL])
    if "flip" in policies:
        images = flip(images, uniforms[:, _FLIP])
    if "autoaugment" in policies:
        images = autoaugment(images, uniforms[:, _AUTO], quirks)
    return drop(images, uniforms[:, _DROP]) if "drop" in policies else images


def cover(images: Raw, uniforms: Uniforms, policies: AbstractSet[Policy]) -> Raw:
    """Apply the policy that works on normalized values, or first on raw ones, cutout.

    Args:
        images: (n, P, H, W), may be overwritten.
        uniforms: (n, DRAWS).
        policies: the policies in force.
    """
    return cutout(images, uniforms[:, _CUTOUT]) if "cutout" in policies else images
