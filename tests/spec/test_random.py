"""Streams of random numbers, against an implementation of Philox in plain integers (clauses RND-*)."""

from __future__ import annotations

import math

import numpy as np
import pytest

import twinspike as ts
from twinspike.random import Stream

WORD = 2**64 - 1
PURPOSES = {"init": 1, "order": 2, "augment": 3, "split": 4}
U = 2.0**-53


def philox(key: tuple[int, int], counter: tuple[int, int, int, int], size: int) -> list[int]:
    """Philox 4x64 with ten rounds (Salmon et al., 2011); the first block is that of the counter plus one."""
    words: list[int] = []
    start = sum(part << 64 * i for i, part in enumerate(counter))
    for block in range(1, (size + 3) // 4 + 1):
        c = [(start + block) >> 64 * i & WORD for i in range(4)]
        k = list(key)
        for _ in range(10):
            low, high = 0xD2E7470EE14C6C93 * c[0], 0xCA5A826395121157 * c[2]
            c = [(high >> 64) ^ c[1] ^ k[0], high & WORD, (low >> 64) ^ c[3] ^ k[1], low & WORD]
            k = [(k[0] + 0x9E3779B97F4A7C15) & WORD, (k[1] + 0xBB67AE8584CAA73B) & WORD]
        words += c
    return words[:size]


@pytest.mark.parametrize("purpose", PURPOSES)
@pytest.mark.parametrize("seed", [0, 1, 2**32, WORD])
@pytest.mark.parametrize(("epoch", "index"), [(0, 0), (0, 7), (3, 0), (WORD, WORD - 1)])
def test_words_are_philox_keyed_by_all_four(seed: int, purpose: str, epoch: int, index: int) -> None:
    """RND-1."""
    drawn = Stream(seed, purpose, epoch, index).raw(11)  # type: ignore[arg-type]  # parametrized
    assert drawn.tolist() == philox((seed, PURPOSES[purpose]), (0, 0, epoch, index), 11)


def words(size: int, **key: int) -> list[int]:
    return philox((key.get("seed", 5), 1), (0, 0, 0, key.get("index", 0)), size)


def test_uniform_is_the_top_53_bits() -> None:
    """RND-2."""
    drawn = Stream(5, "init").uniform(3, 7)
    assert drawn.shape == (3, 7)
    assert drawn.dtype == np.float64
    assert drawn.ravel().tolist() == [(word >> 11) * U for word in words(21)]
    assert Stream(5, "init").uniform().shape == ()


@pytest.mark.parametrize("high", [1, 2, 3, 10, 50_000, 2**31 - 1, 2**32])
def test_integers_are_the_floor_of_a_scaled_uniform(high: int) -> None:
    """RND-2."""
    drawn = Stream(5, "init").integers(high, 200)
    assert drawn.tolist() == [math.floor((word >> 11) * U * high) for word in words(200)]
    assert drawn.min() >= 0
    assert drawn.max() < high


@pytest.mark.parametrize("high", [1, 3, 10, 2**31 - 1, 2**32 - 1, 2**32])
def test_the_largest_word_stays_below(high: int, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream(0, "init")
    monkeypatch.setattr(stream, "raw", lambda size: np.full(size, WORD, dtype=np.uint64))
    assert stream.integers(high, 1)[0] == high - 1
    assert np.isfinite(stream.normal(4)).all()


@pytest.mark.parametrize("size", [0, 1, 2, 100])
def test_a_permutation_is_the_stable_order_of_words(size: int) -> None:
    """RND-2."""
    raw = words(size)
    assert Stream(5, "init").permutation(size).tolist() == sorted(range(size), key=raw.__getitem__)


def test_equal_words_keep_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream(0, "order")
    monkeypatch.setattr(stream, "raw", lambda size: np.array([2, 1, 2, 1, 0], dtype=np.uint64))
    assert stream.permutation(5).tolist() == [4, 1, 3, 0, 2]


@pytest.mark.parametrize("size", [1, 2, 5, 64])
def test_normal_is_box_muller_cosines_first(size: int) -> None:
    """RND-2: within the roundings of a log, a root, a product and a cosine on either side."""
    half = (size + 1) // 2
    uniform = [(word >> 11) * U for word in words(2 * half)]
    radius = [math.sqrt(-2.0 * math.log1p(-a)) for a in uniform[:half]]
    angle = [2.0 * math.pi * b for b in uniform[half:]]
    expected = [r * math.cos(t) for r, t in zip(radius, angle, strict=True)]
    expected += [r * math.sin(t) for r, t in zip(radius, angle, strict=True)]
    drawn = Stream(5, "init").normal(size)
    # Both sides take the same angle, so each function may err by an ulp (2U) on each side: relative to the radius.
    bound = np.array((radius + radius)[:size]) * 2 * (2 + 2 + 2 + 1) * U
    assert (np.abs(drawn - expected[:size]) <= bound).all()


def test_normal_has_the_moments_of_its_name() -> None:
    """Within six standard errors, fixed by the key."""
    n = 100_000
    drawn = Stream(1, "init").normal(n)
    assert abs(drawn.mean()) < 6 / math.sqrt(n)
    assert abs((drawn**2).mean() - 1) < 6 * math.sqrt(2 / n)
    assert abs((drawn**4).mean() - 3) < 6 * math.sqrt(96 / n)


def test_draws_go_on_where_the_last_ended() -> None:
    stream = Stream(5, "init")
    assert [*stream.raw(3), *stream.raw(4)] == words(7)


def test_no_two_keys_share_a_stream() -> None:
    keys = [(seed, purpose, epoch, index) for seed in (0, 1) for purpose in PURPOSES for epoch in (0, 1) for index in (0, 1)]
    firsts = [tuple(Stream(*key).raw(2)) for key in keys]  # type: ignore[arg-type]  # str for Literal
    assert len(set(firsts)) == len(keys)


@pytest.mark.parametrize(
    "key",
    [(-1, "init"), (2**64, "init"), (1.5, "init"), (0, "shuffle"), (0, "init", -1), (0, "init", 0, 2**64), (0, "init", 0, None)],
)
def test_keys_out_of_range_are_refused(key: tuple[object, ...]) -> None:
    with pytest.raises(ts.SpecError, match="expected"):
        Stream(*key)  # type: ignore[arg-type]
