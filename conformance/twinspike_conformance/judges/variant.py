"""Variants of the reference: its own source, loaded again with some lines changed or another NumPy.

The fault corpus, the error analysis and the false-alarm study all run the reference as it is written;
what they change is stated as text, so that a variant can't drift from the original.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Sequence
from functools import cache
from itertools import count
from types import ModuleType
from typing import Any

import msgspec
import numpy as np

from twinspike.errors import refuse
from twinspike_conformance.bounds.tracked import Tracked

MODULES = ("surrogate", "neuron", "factorization", "layers", "norm", "replicas", "losses", "optimizer", "rows", "network", "step")
"""Modules of the reference in the order in which they import one another."""

_number = count()


class Edit(msgspec.Struct, frozen=True):
    """One change of the reference's text; `old` must occur exactly once in the module."""

    module: str
    old: str
    new: str


@cache
def source(module: str) -> str:
    """Text of a module of the reference."""
    return inspect.getsource(importlib.import_module(f"twinspike.reference.{module}"))


def apply(edits: Sequence[Edit], module: str) -> str:
    """A module's text with its edits; SpecError if one does not fit."""
    text = source(module)
    for edit in edits:
        if edit.module == module:
            found = text.count(edit.old)
            if found != 1:
                raise refuse(f"edit of reference.{module}", expected="text that occurs once", got=f"{edit.old!r} {found} times")
            text = text.replace(edit.old, edit.new)
    return text


def load(edits: Sequence[Edit] = (), numpy: Any = np) -> dict[str, ModuleType]:
    """Load a variant: module name -> module.

    Args:
        edits: changes of the text.
        numpy: what the modules see as `np`.
    """
    package = f"twinspike_conformance._variant{next(_number)}"
    modules: dict[str, ModuleType] = {}
    root = ModuleType(package)
    root.__path__ = []
    root.Array = np.ndarray  # type: ignore[attr-defined]  # the annotation that the modules import
    sys.modules[package] = root
    for name in MODULES:
        module = ModuleType(f"{package}.{name}")
        module.__file__ = f"<reference.{name}>"
        sys.modules[module.__name__] = module
        setattr(root, name, module)
        text = apply(edits, name).replace("twinspike.reference", package)
        exec(compile(text, module.__file__, "exec"), module.__dict__)  # the reference's own text
        if numpy is not np:
            module.__dict__["np"] = numpy
        modules[name] = module
    return modules


class _TrackedNumpy:
    """NumPy, except that the conversions which would strip a Tracked array let it through."""

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    @staticmethod
    def asarray(x: Any, dtype: Any = None) -> Any:
        return x if isinstance(x, Tracked) else np.asarray(x, dtype)

    @staticmethod
    def array(x: Any, dtype: Any = None) -> Any:
        if isinstance(x, list) and any(isinstance(part, Tracked) for part in x):
            return np.stack(x)
        return x.copy() if isinstance(x, Tracked) else np.array(x, dtype)

    @staticmethod
    def zeros(shape: Any, dtype: Any = None) -> Any:
        return np.zeros(shape)


@cache
def tracked() -> dict[str, ModuleType]:
    """The reference's modules, running on Tracked arrays."""
    return load(numpy=_TrackedNumpy())
