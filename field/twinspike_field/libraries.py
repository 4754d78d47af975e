"""The libraries that are judged, in the one version that is: what the extras pin, what the known deviations speak of."""

from __future__ import annotations

import importlib
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import msgspec

from twinspike.errors import SpecError, refuse, require
from twinspike_field.adapter import FieldBackend


class Library(msgspec.Struct, frozen=True, kw_only=True):
    """One library."""

    name: str
    """Of its adapter, its extra `field-NAME` and its file in `known/`."""
    title: str
    """As its authors write it."""
    distribution: str
    package: str
    version: str

    def backend(self) -> FieldBackend:
        """Its adapter as a backend.

        Raises:
            SpecError: the library is not installed, or in another version.
        """
        do = f"pip install 'twinspike[field-{self.name}]'"
        try:
            got = version(self.distribution)
        except PackageNotFoundError:
            raise refuse(f"library {self.name}", expected=f"{self.distribution} {self.version}", got="nothing", do=do) from None
        require(got == self.version, f"library {self.name}", expected=f"{self.distribution} {self.version}", got=got, do=do)
        try:
            backend: FieldBackend = importlib.import_module(f"twinspike_field.adapters.{self.name}").backend
        except ImportError as error:
            raise SpecError(f"library {self.name} can't be loaded: {' '.join(str(error).split())}") from error
        return backend

    def folder(self) -> Path:
        """Where its source lies, to which the lines of its deviations are relative; found without importing it."""
        spec = find_spec(self.package)
        places = None if spec is None else spec.submodule_search_locations
        if not places:
            raise refuse(f"library {self.name}", expected=f"package {self.package}", got="nothing")
        return Path(next(iter(places)))


LIBRARIES: dict[str, Library] = {
    library.name: library
    for library in (
        Library(name="snntorch", title="snnTorch", distribution="snntorch", package="snntorch", version="1.0.0"),
        Library(name="spikingjelly", title="SpikingJelly", distribution="spikingjelly", package="spikingjelly", version="2.0.0"),
        Library(name="norse", title="Norse", distribution="norse", package="norse", version="1.1.0"),
        Library(name="sinabs", title="Sinabs", distribution="sinabs", package="sinabs", version="3.1.3"),
        Library(name="rockpool", title="Rockpool", distribution="rockpool", package="rockpool", version="3.1.0"),
        Library(name="btorch", title="btorch", distribution="btorch", package="btorch", version="0.1.0"),
        Library(name="spyx", title="spyx", distribution="spyx", package="spyx", version="1.0.0"),
        Library(name="jaxpike", title="jaxpike", distribution="jaxpike", package="jaxpike", version="0.1.4"),
        Library(name="slax", title="Slax", distribution="slax", package="slax", version="0.0.1"),
        Library(name="brainpy", title="BrainPy", distribution="brainpy", package="brainpy_state", version="2.8.2"),
    )
}
"""Name -> library; `pyproject.toml` has an extra for each, which a test holds to the version here."""


def library(name: str) -> Library:
    """The library of that name; SpecError if there is none."""
    if name not in LIBRARIES:
        raise refuse("library", expected=f"one of {', '.join(LIBRARIES)}", got=name)
    return LIBRARIES[name]
