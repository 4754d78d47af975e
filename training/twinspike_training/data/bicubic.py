"""Bicubic look-up in batches of images, as Pillow's affine transform computes it, in float64.

Each value is a cubic in x of four neighbours, then one in y of four such: p1 + d (p2 + d (p3 + d p4)) with p1 = v2,
p2 = v3 - v1, p3 = 2 (v1 - v2) + v3 - v4 and p4 = v2 - v1 + v4 - v3. Columns outside are those of the border; a row
outside gives what the row before it gave. Results are cut to [0, 255] and truncated.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.uint8]
Plane = NDArray[np.float64]


def _cubic(values: Sequence[Plane], d: Plane) -> Plane:
    v1, v2, v3, v4 = values
    p2, p3, p4 = -v1 + v3, 2.0 * (v1 - v2) + v3 - v4, -v1 + v2 - v3 + v4
    return np.asarray(v2 + d * (p2 + d * (p3 + d * p4)))


def affine_bicubic(images: Images, matrices: NDArray[np.float64], fill: int) -> Images:
    """Look up each output pixel's centre (x, y) at (a x + b y + c, d x + e y + f), bicubic; `fill` outside.

    Args:
        images: (n, 3, H, W).
        matrices: (n, 6), rows a b c d e f in pixels, x to the right and y down from the upper left corner.
        fill: grey value.
    """
    count, _, height, width = images.shape
    a, b, c, d, e, f = matrices.T[:, :, None, None]
    x, y = np.arange(width) + 0.5, (np.arange(height) + 0.5)[:, None]
    at_x, at_y = a * x + b * y + c, d * x + e * y + f
    outside = (at_x < 0) | (at_x >= width) | (at_y < 0) | (at_y >= height)
    left, top = np.floor(at_x - 0.5), np.floor(at_y - 0.5)
    by_x, by_y = ((at_x - 0.5) - left)[:, None], ((at_y - 0.5) - top)[:, None]
    columns = [np.clip(left + k, 0, width - 1).astype(np.int64) for k in (-1, 0, 1, 2)]
    which = np.arange(count)[:, None, None]

    def row(place: NDArray[np.float64]) -> Plane:
        """(n, 3, H, W): the cubic in x along the rows at `place`, which may lie outside."""
        rows = np.clip(place, 0, height - 1).astype(np.int64)
        values = [images[which, :, rows, column].transpose(0, 3, 1, 2).astype(np.float64) for column in columns]
        return _cubic(values, by_x)

    rows = [row(top - 1)]
    for k in (0, 1, 2):
        inside = ((top + k >= 0) & (top + k < height))[:, None]
        rows.append(np.where(inside, row(top + k), rows[-1]))
    out = np.clip(_cubic(rows, by_y), 0, 255).astype(np.uint8)
    np.copyto(out, np.uint8(fill), where=outside[:, None])
    return out
