"""What an example is: a few words (operation, config, shapes, family, seed) that determine every number."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from numpy.typing import NDArray

from twinspike.config import decode
from twinspike.errors import SpecError, refuse
from twinspike_conformance.bounds.budget import Budget
from twinspike_conformance.cases.families import COMMON, EXACT, Source

Arrays = dict[str, NDArray[Any]]
Sizes = Mapping[str, int]


TILES: tuple[dict[str, int], ...] = tuple(
    {"B": 1, "C": n} for n in (8, 16, 31, 32, 64, 127, 128, 251, 256, 512, 1021, 1024, 2048, 4096, 4097)
)
"""Vectors that fill blocks of 8 to 4096 elements exactly, and some just under, just over, odd and prime."""


class Material(msgspec.Struct):
    """The numbers of one example, float64 (or int64) and exact in the storage format."""

    config: Any
    inputs: Arrays
    cotangents: Arrays


class Cases(msgspec.Struct, frozen=True, kw_only=True):
    """How examples of one operation are made."""

    operation: str
    configs: tuple[Any, ...]
    """Configs in which every pair of options meets, none at its default values only."""
    buckets: tuple[dict[str, int], ...]
    """Shapes as sizes by letter; few, since each costs a compilation."""
    large: tuple[dict[str, int], ...] = ()
    """Shapes beyond blocks, tiles and bytes: sequences, batches, classes, channels, ranks."""
    large_configs: tuple[Any, ...] = ()
    """Configs that are tried at these; all of them if none are named."""
    fill: Callable[[Source, Any, Sizes], tuple[Arrays, Arrays]]
    """(inputs, cotangents) from a source of numbers."""
    exact: Callable[[Any], bool] = lambda config: True
    """Which configs the exact lane covers."""
    budget: Callable[[Budget, Any, Arrays, Arrays], None] | None = None
    """Runs the operation's formulas, forward and backward, on grids; None: no exact lane."""
    families: tuple[str, ...] = COMMON
    exact_families: tuple[str, ...] = tuple(EXACT)


class Example(msgspec.Struct, frozen=True):
    """One example; its digest is itself, compressed."""

    operation: str
    config: Any
    sizes: dict[str, int]
    family: str
    exact: bool
    seed: int

    def words(self) -> str:
        """What it is, for people."""
        return f"{self.operation} {self.config} {self.sizes} {self.family} seed {self.seed}"

    def digest(self) -> str:
        """A short text from which `from_digest` makes the example again."""
        packed = zlib.compress(msgspec.json.encode(self), 9)
        return base64.urlsafe_b64encode(packed).decode().rstrip("=")


def from_digest(text: str) -> Example:
    """Read what `Example.digest` wrote; SpecError if it is none."""
    try:
        packed = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        return msgspec.json.decode(zlib.decompress(packed), type=Example)
    except (ValueError, zlib.error, msgspec.DecodeError):
        raise refuse("digest", expected="the digest of an example, as a report shows it", got=text) from None


def config_of(cases: Cases, example: Example) -> Any:
    """The example's config as an object."""
    kinds = {type(config) for config in cases.configs}
    for kind in sorted(kinds, key=lambda k: k.__name__):
        try:
            return decode(kind, example.config, example.operation)
        except SpecError:
            continue
    raise refuse("example.config", expected=f"a config of {example.operation}", got=example.config)


def materialize(cases: Cases, example: Example, form: str) -> Material:
    """The numbers of an example in the format of a profile's activations."""
    config = config_of(cases, example)
    source = Source(example.seed, example.family, example.exact, form)
    inputs, cotangents = cases.fill(source, config, example.sizes)
    return Material(config, inputs, cotangents)
