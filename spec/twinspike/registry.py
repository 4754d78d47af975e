"""Finding backends: by entry point name (group `twinspike.backends`) or by `module:object`.

A backend that is asked for and can't be loaded is an error that says what to install. There is
no fallback to another backend, ever.
"""

from __future__ import annotations

import importlib
import traceback
from importlib.metadata import EntryPoint, entry_points

import msgspec

from twinspike.backend import Backend, Capabilities
from twinspike.errors import SpecError, refuse

GROUP = "twinspike.backends"


def _entries() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def names() -> tuple[str, ...]:
    """Names of the registered backends, whether or not they can be loaded."""
    return tuple(sorted(_entries()))


def load(name: str) -> Backend:
    """Load a backend.

    Args:
        name: a registered name such as `torch`, or `module:object`.

    Raises:
        SpecError: the name is unknown, a package is missing (the line names the extra), its
            import fails, or the object is no backend.
    """
    module, _, attribute = name.partition(":")
    if not module or not attribute or module.startswith("."):
        entry = _entries().get(name)
        if entry is None:
            raise refuse("backend", expected=f"one of {', '.join(names())} or 'module:object'", got=name)
        module, attribute = entry.module, entry.attr
    try:
        found = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except ModuleNotFoundError as error:
        what = f"backend {name!r} can't be loaded: package {error.name!r} is not installed"
        extra = f"; install it with: pip install 'twinspike[{name}]'" if name in names() else ""
        raise SpecError(what + extra) from error
    except (ImportError, AttributeError, OSError) as error:
        raise SpecError(f"backend {name!r} can't be loaded: {' '.join(str(error).split())}") from error
    except Exception as error:  # a framework that the environment gives a setting it does not know, say
        raise SpecError(f"backend {name!r} can't be loaded: {_where(error)}") from error
    # Not isinstance: from Python 3.12 on it doesn't see what an object hands through by __getattr__.
    if not all(hasattr(found, part) for part in ("name", "capabilities", "session")):
        raise refuse(f"backend {name!r}", expected="an object with name, capabilities and session", got=type(found).__name__)
    backend: Backend = found
    return backend


def _where(error: Exception) -> str:
    """What an error is and says first, and the line of code that raised it."""
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), "")[:200]
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}{f': {said}' if said else ''} ({last.filename}, line {last.lineno})"


class Availability(msgspec.Struct, frozen=True):
    """One registered backend: what it can do here, or the line that says why it can't be loaded."""

    name: str
    capabilities: Capabilities | None
    problem: str | None


def survey() -> tuple[Availability, ...]:
    """Every registered backend, loaded if possible."""
    found = []
    for name in names():
        try:
            found.append(Availability(name, load(name).capabilities(), None))
        except SpecError as error:
            found.append(Availability(name, None, str(error)))
    return tuple(found)
