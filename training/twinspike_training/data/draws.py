"""The spec's streams for many samples at once: row i equals `Stream(seed, "augment", epoch, indices[i])`.

Opening one stream costs about 16 us, as much as augmenting a small image; here Philox 4x64-10 (Salmon et
al., *Parallel random numbers: as easy as 1, 2, 3*, SC 2011) runs on arrays of counters instead. Clause RND-1
fixes key and counter; NumPy counts up before its first block, so blocks are numbered from 1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]

_MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
_WEYL = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
_ROUNDS = 10
_MASK = (1 << 64) - 1
_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)

_AUGMENT = 3
"""The number of the purpose `augment` in clause RND-1."""


def _multiply(factor: int, words: Words) -> tuple[Words, Words]:
    """High and low 64 bits of the 128-bit products."""
    a_low, a_high = np.uint64(factor & 0xFFFFFFFF), np.uint64(factor >> 32)
    b_low, b_high = words & _LOW, words >> _HALF
    cross = a_high * b_low + ((a_low * b_low) >> _HALF)
    middle = a_low * b_high + (cross & _LOW)
    return a_high * b_high + (cross >> _HALF) + (middle >> _HALF), np.uint64(factor) * words


def augment_uniforms(seed: int, epoch: int, indices: NDArray[np.int64], size: int) -> NDArray[np.float64]:
    """The first `size` uniforms of each sample's augmentation stream.

    Args:
        seed: of the run, in [0, 2^64).
        epoch: in [0, 2^64).
        indices: (n,), of the samples in the training set.
        size: numbers per sample, >= 1.

    Returns:
        (n, size) in [0, 1), bit for bit those of `twinspike.random.Stream`.
    """
    blocks = -(-size // 4)
    shape = (len(indices), blocks)
    words = [
        np.broadcast_to(np.arange(1, blocks + 1, dtype=np.uint64), shape),
        np.zeros(shape, dtype=np.uint64),
        np.full(shape, epoch, dtype=np.uint64),
        np.broadcast_to(indices.astype(np.uint64)[:, None], shape),
    ]
    key = (seed, _AUGMENT)
    for _ in range(_ROUNDS):
        high_0, low_0 = _multiply(_MULTIPLIERS[0], words[0])
        high_1, low_1 = _multiply(_MULTIPLIERS[1], words[2])
        words = [high_1 ^ words[1] ^ np.uint64(key[0]), low_1, high_0 ^ words[3] ^ np.uint64(key[1]), low_0]
        key = ((key[0] + _WEYL[0]) & _MASK, (key[1] + _WEYL[1]) & _MASK)
    raw = np.stack(words, axis=-1).reshape(len(indices), 4 * blocks)[:, :size]
    return np.asarray((raw >> np.uint64(11)) * 2.0**-53)
