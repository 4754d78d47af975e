"""Holds constraints.txt against what is installed here, or writes it down anew from that.

A release may need a later patch release of a Python than its first: 3.11.5, where Debian 12 has 3.11.2. So beside each pin
stands what its release says of Pythons, and must admit every Python of pyproject.toml from its first release on.
`python constraints.py` replaces what the file says for the Python that runs it; `--check` changes nothing.
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import Distribution, distributions
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent
FILE = ROOT / "constraints.txt"
NOT_PINNED = ("pip", "twinspike", "triton", "nvidia-", "cuda-")
"""Beginnings of names: the installer, this package, and what torch's build for CUDA brings in versions that it names itself."""
LAST = 99
"""A patch release later than any."""


class Pin(NamedTuple):
    """One release of a package."""

    name: str
    version: str
    needs: str
    """Its `Requires-Python`."""

    def admits(self, release: str) -> bool:
        """Whether a Python, such as `3.11.0`, can have it."""
        return SpecifierSet(self.needs).contains(release)


Pins = Mapping[str, Pin]
"""Normalized name -> pin."""


def pythons() -> list[str]:
    """The Pythons that pyproject.toml names, such as `3.11`, oldest first."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = (classifier.rpartition(" :: ")[2] for classifier in project["classifiers"] if "Python :: 3." in classifier)
    return sorted(named, key=lambda python: int(python.partition(".")[2]))


def applying(text: str, release: str) -> dict[str, Pin]:
    """The pins of a constraints file for one release of Python.

    Raises:
        ValueError: a package has two, or a line is no pin.
    """
    found: dict[str, Pin] = {}
    for line in text.splitlines():
        pin, _, needs = (part.strip() for part in line.partition("#"))
        if not pin:
            continue
        requirement = Requirement(pin)
        (specifier,) = requirement.specifier
        minor = release.rpartition(".")[0]
        if requirement.marker and not requirement.marker.evaluate({"python_version": minor, "python_full_version": release}):
            continue
        name = canonicalize_name(requirement.name)
        if name in found:
            raise ValueError(f"{name} has two pins for Python {release}: {found[name].version} and {specifier.version}")
        found[name] = Pin(requirement.name, specifier.version, needs.removeprefix("Python").strip())
    return found


def refused(text: str, named: Iterable[str]) -> Iterator[str]:
    """A line for each pin that a Python can't have, first release or last."""
    for python in named:
        for release in (f"{python}.0", f"{python}.{LAST}"):
            for pin in applying(text, release).values():
                if not pin.admits(release):
                    yield f"{pin.name} {pin.version} is for Python {pin.needs}, which {release} is not: take an older release"


def installed(found: Iterable[Distribution] | None = None) -> dict[str, Pin]:
    """What is installed in this environment, but for `NOT_PINNED`."""
    pins: dict[str, Pin] = {}
    for one in distributions() if found is None else found:
        name = canonicalize_name(one.name)
        if not name.startswith(NOT_PINNED):
            version, needs = one.version.partition("+")[0], one.metadata.json.get("requires_python", "")
            pins[name] = Pin(one.name, version, str(needs).replace(" ", ""))
    return pins


def differing(pins: Pins, here: Pins) -> Iterator[str]:
    """A line for each package that is installed in another way than pinned."""
    for name, pin in sorted(here.items()):
        if pins.get(name, pin._replace(version=""))[1:] != pin[1:]:
            said = f"{pins[name].version}, Python {pins[name].needs or 'any'}" if name in pins else "nothing"
            yield f"{name}: {said} in constraints.txt, {pin.version}, Python {pin.needs or 'any'} installed"


def written(head: str, table: Mapping[str, Pins]) -> str:
    """A constraints file: Python -> its pins, Pythons in order; what they share is one line."""
    lines, named = [head.rstrip("\n")], list(table)
    for name in sorted({name for pins in table.values() for name in pins}):
        of = [table[python].get(name) for python in named]
        for pin, group in groupby(range(len(named)), key=of.__getitem__):
            if pin is not None:
                lines.append(_line(pin, named, list(group)))
    return "\n".join(lines) + "\n"


def _line(pin: Pin, named: list[str], group: list[int]) -> str:
    """A pin that holds for some Pythons side by side; the newest stands for those to come."""
    first, after = group[0], group[-1] + 1
    markers = [f'python_version >= "{named[first]}"'] if first else []
    markers += [f'python_version < "{named[after]}"'] if after < len(named) else []
    marker = f" ; {' and '.join(markers)}" if markers else ""
    return f"{pin.name}=={pin.version}{marker}" + (f"  # Python {pin.needs}" if pin.needs else "")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="refuse a file that says something else than what is installed")
    check = parser.parse_args().check
    text, named, here = FILE.read_text(encoding="utf-8"), pythons(), installed()
    python = "{}.{}".format(*sys.version_info)
    if check:
        wrong = [*refused(text, named), *differing(applying(text, "{}.{}.{}".format(*sys.version_info)), here)]
    else:
        head = "".join(f"{line}\n" for line in text.splitlines() if line.startswith("#"))
        text = written(head, {other: here if other == python else applying(text, f"{other}.0") for other in named})
        wrong = [*refused(text, named)] if python in named else [f"pyproject.toml does not name Python {python}"]
    if wrong:
        sys.exit("\n".join(wrong))
    if not check:
        FILE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
