"""Which C++ kernels of this package are used: what the environment asks for, and what there is.

The choice never depends on data or shapes, and nothing falls back in silence: `Capabilities.kernels` shows which kernel
serves and, for plain XLA, why. One environment variable for each family of kernels overrides it: `auto` is the fastest
there is, `kernel` refuses to run without this package's kernels, `plain` never uses them.
"""

from __future__ import annotations

import os

from twinspike.errors import refuse, require
from twinspike_jax.native_build import Library, Missing, Unit, library

CHOICES = ("auto", "kernel", "plain")


def chosen(variable: str) -> str:
    """What the environment asks for.

    Raises:
        SpecError: it is none of `CHOICES`.
    """
    choice = os.environ.get(variable, "auto")
    require(choice in CHOICES, variable, expected=f"one of {', '.join(CHOICES)}", got=choice)
    return choice


def native(unit: Unit, variable: str, what: str) -> Library | Missing | None:
    """The kernels for CPUs; None: this package's kernels are not to be used, on no platform.

    Args:
        unit: which kernels.
        variable: of the environment.
        what: they compute, for messages.

    Raises:
        SpecError: as `chosen`, or a kernel is asked for that is not there.
    """
    choice = chosen(variable)
    if choice == "plain":
        return None
    found = library(unit)
    if isinstance(found, Missing) and choice == "kernel":
        raise refuse(f"{what} on cpu", expected=f"a kernel, as {variable} says", got=found.reason)
    return found


def told(found: Library | Missing | None, variable: str) -> str:
    """What serves on CPUs, in words."""
    if found is None:
        return f"plain XLA: {variable} asks for it"
    if isinstance(found, Missing):
        return f"plain XLA: {found.reason}"
    return f"C++ through XLA's FFI, by {found.compiler}" + (f", for this process alone: {found.alone}" if found.alone else "")
