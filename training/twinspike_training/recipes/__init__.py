"""Recipes: configs named by words, and what others published for them.

A recipe is an embedded config with the changes that its words stand for (`recipes.toml`), so that a hundred recipes are
one short file. Nothing here checks a config: the words' keys go the way of any other change.
"""

from __future__ import annotations

import difflib
import functools
import re
from pathlib import Path
from typing import Any

import msgspec

from twinspike import plain
from twinspike.config import Config, decode
from twinspike.errors import SpecError, refuse

FOLDER = Path(__file__).parent


class Word(Config, frozen=True, kw_only=True):
    """A variant, or a size."""

    says: str
    """What it is, for a list."""
    set: dict[str, Any] = msgspec.field(default_factory=dict)
    """Keys that it changes, as in a config's file."""


class Data(Word, frozen=True, kw_only=True):
    """A data set: what a recipe's name begins with."""

    base: str
    """The embedded config that it changes."""
    networks: tuple[str, ...]
    """Names of the zoo; the first is meant where a recipe names none."""
    time_steps: tuple[int, ...]
    """Those of the list; a recipe may name another number."""


class Book(Config, frozen=True, kw_only=True):
    """All words."""

    data: dict[str, Data]
    variant: dict[str, Word]
    size: dict[str, Word]


class Published(Config, frozen=True, kw_only=True):
    """One published accuracy of a spiking network."""

    data: str
    """A data set of the book."""
    network: str
    time_steps: int
    accuracy: float
    """In per cent."""
    by: str
    """The method's name."""
    source: str
    note: str = ""
    """In what it is another thing than the number beside it, if in anything."""


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """What a name means."""

    base: str
    """An embedded config."""
    changes: tuple[dict[str, Any], ...]
    """Tables to lay over it, one after another."""
    data: str
    network: str
    time_steps: int | None
    """None: those of the base."""


@functools.cache
def book() -> Book:
    """The words that recipes are made of."""
    return decode(Book, plain.read_table(FOLDER / "recipes.toml"), "recipes")


@functools.cache
def published() -> tuple[Published, ...]:
    """All published values."""
    data = plain.read_table(FOLDER / "published.toml")
    return tuple(decode(Published, value, "published") for value in data["value"])


def is_recipe(name: str) -> bool:
    """Whether a name begins with a data set's word, so that it can only mean a recipe."""
    return re.fullmatch(r"[\w-]+", name) is not None and name.partition("-")[0] in book().data


def parse(name: str) -> Recipe:
    """What a recipe's name means.

    Raises:
        SpecError: a word is unknown, of another data set, or the second of its kind.
    """
    words = book()
    first, *rest = name.split("-")
    if first not in words.data:
        raise refuse(
            "recipe", expected=f"a name that begins with {', '.join(words.data)}", got=name, do=_nearest(first, words.data)
        )
    data = words.data[first]
    network, steps, changes = data.networks[0], None, [data.set]
    used: set[str] = set()
    for word in rest:
        kind = _kind(word, data)
        if kind is None:
            known = [*data.networks, "t and a number", *words.variant, *words.size]
            raise refuse(
                f"recipe {name}", expected=f"after {first} any of {', '.join(known)}", got=word, do=_nearest(word, known)
            )
        if kind in used:
            raise refuse(f"recipe {name}", expected=f"at most one {kind}", got=f"another, {word}")
        used.add(kind)
        match kind:
            case "network":
                network = word
            case "number of time steps":
                steps = int(word[1:])
                changes.append({"method": {"time_steps": steps}})
            case _:
                changes.append(getattr(words, kind)[word].set)
    return Recipe(base=data.base, changes=({"network": network}, *changes), data=first, network=network, time_steps=steps)


def _kind(word: str, data: Data) -> str | None:
    if word in data.networks:
        return "network"
    if re.fullmatch(r"t[1-9]\d{0,3}", word):
        return "number of time steps"
    return next((kind for kind in ("variant", "size") if word in getattr(book(), kind)), None)


def _nearest(word: str, known: Any) -> str | None:
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else None


def lay_over(table: dict[str, Any], changes: dict[str, Any]) -> None:
    """Change a config's nested data in place; a table with another `kind` starts afresh."""
    for key, value in changes.items():
        inner = table.get(key)
        if isinstance(value, dict) and isinstance(inner, dict) and value.get("kind", inner.get("kind")) == inner.get("kind"):
            lay_over(inner, value)
        else:
            table[key] = dict(value) if isinstance(value, dict) else value


def values_for(name: str, time_steps: int) -> tuple[Published, ...]:
    """What was published for a recipe's data set and network with this T; nothing for what is no recipe's name."""
    try:
        recipe = parse(name)
    except SpecError:
        return ()
    wanted = (recipe.data, recipe.network, time_steps)
    return tuple(value for value in published() if (value.data, value.network, value.time_steps) == wanted)
