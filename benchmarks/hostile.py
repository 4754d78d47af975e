"""What is hostile, and how it is counted; `fuzz` and `fuzz_data` make files of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from twinspike import boundary

LONGEST = 2000
"""Characters that a line may have; names in it are at most a few hundred."""


class Counts:
    """How many inputs there were, and how many of them were refused."""

    def __init__(self) -> None:
        self.inputs = self.refused = 0

    def told(self, call: Callable[[], object]) -> None:
        """Call; what is raised must be one that the boundary knows, in one line that a terminal can be shown."""
        self.inputs += 1
        try:
            call()
        except Exception as error:
            line = boundary.line(error)
            if line is None:
                raise
            self.refused += 1
            assert line.isprintable(), line
            assert 0 < len(line) <= LONGEST, line


TEXTS = st.text(st.characters(), max_size=30)  # half pairs of UTF-16 and control characters too
NUMBERS = st.one_of(
    st.integers(-3, 10),
    st.integers(),
    st.sampled_from([2**63, -(2**63) - 1, 10**400, 2**31, 10**9]),
    st.floats(),
    st.sampled_from([1e308, 5e-324, -0.0, 1e-300]),
)
PLAIN = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=6,
)
FRAGMENTS = st.one_of(
    st.sampled_from(["", "nan", "-inf", "1e999", "0x", "1979-05-27", "true", "'", '"', '"""', "#", "\0", "\ud800", '"\\ud800"']),
    st.sampled_from(["[" * 3000, "{" * 3000, "[" * 60 + "]" * 60, "9" * 5000, "{}", "[]", "{kind='sgd'}"]),
    st.sampled_from(["~", "~nobody/x", "a.json", "../.json", "/dev/null", "resnet18", "module:object"]),
    TEXTS,
    PLAIN.map(json.dumps),
)


def mutated(data: st.DataObject, content: bytes) -> bytes:
    """A content with some bytes changed, cut out, doubled or put in."""
    changed = bytearray(content)
    for _ in range(data.draw(st.integers(1, 3))):
        at, length = data.draw(st.integers(0, len(changed))), data.draw(st.sampled_from([0, 1, 1, 2, 8, 100]))
        changed[at : at + length] = data.draw(
            st.one_of(st.binary(max_size=4), st.just(changed[at : at + length] * 2), st.just(b"\xff\xfe\xef\xbb\xbf"))
        )
    return bytes(changed[: data.draw(st.integers(0, len(changed)))] if data.draw(st.integers(0, 9)) == 0 else changed)


def altered(data: st.DataObject, value: Any) -> Any:
    """Nested plain data in which one value is another, or is gone, or a key is new."""
    if isinstance(value, dict) and value and data.draw(st.integers(0, 5)):
        key = data.draw(st.sampled_from(sorted(value)))
        rest = {name: inner for name, inner in value.items() if name != key}
        how = data.draw(st.integers(0, 12))
        return (
            rest if how == 0 else rest | {data.draw(TEXTS): value[key]} if how == 1 else rest | {key: altered(data, value[key])}
        )
    if isinstance(value, list) and value and data.draw(st.integers(0, 5)):
        at = data.draw(st.integers(0, len(value) - 1))
        return [*value[:at], altered(data, value[at]), *value[at + 1 :]]
    return data.draw(PLAIN)
