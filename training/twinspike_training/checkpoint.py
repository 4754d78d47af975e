"""Checkpoints: the state under the specification's names, and all that a run needs to go on, in one safetensors file.

No pickle, no backend's own layout: what torch wrote, jax continues. Every byte of a file stands under a digest, and what
it holds under the ranges of the config. A file that is broken, cut off, altered or not from here is refused in one line.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as from_bytes
from safetensors.numpy import save as to_bytes

from twinspike import __version__ as spec_version
from twinspike.config import Config, decode, encode
from twinspike.errors import SpecError, refuse, require
from twinspike.network import Network
from twinspike.parameters import STEP, State, check_state, check_values, layout
from twinspike.precision import PRECISIONS
from twinspike_training.config import RunConfig
from twinspike_training.files import FILE, found, write_atomic

FORMAT = 2
"""Version of the header; a reader refuses others. 2: digests of the header and of the arrays, in place of a CRC of the latter."""

KEY = "twinspike"
"""Key of the header, JSON text, in the file's metadata."""

_PLACE = "0" * 64
"""Stands for a digest that is not known yet."""

_PREFIX = 8
"""Bytes before a safetensors file's JSON, which hold its length, the least significant first."""


class Best(Config, frozen=True, kw_only=True):
    """The best evaluation so far, by the spiking twin's accuracy; the first of equals."""

    accuracy_snn: float
    """Share of the samples held out of training (`data.validation`), or without such of the test samples, in [0, 1]."""
    accuracy_ann: float
    epoch: int
    """Epochs completed when it was evaluated, >= 0."""

    def _check(self) -> None:
        for name in ("accuracy_snn", "accuracy_ann"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"best.{name}", expected="a share in [0, 1]", got=value)
        require(self.epoch >= 0, "best.epoch", expected="a whole number >= 0", got=self.epoch)


class Header(Config, frozen=True, kw_only=True):
    """What is stored beside the arrays."""

    format: int = FORMAT
    spec: str = spec_version
    """Version of the specification, which says what the arrays mean."""
    backend: str
    """Name of the backend that wrote it."""
    epoch: int
    """Epochs completed, >= 0."""
    step: int
    """Optimizer steps taken in the epoch that comes next, >= 0."""
    steps: int
    """Optimizer steps taken in all: `step` and those of the completed epochs, which have one length, no less than `step`."""
    best: Best | None
    """Of an epoch that is completed."""
    due: bool = False
    """Whether the evaluation at this position is still to be made."""
    fingerprint: str
    """Of the data."""
    metrics_bytes: int
    """Length of metrics.jsonl at this point, in bytes, >= 0."""
    config: RunConfig
    network: Network
    arrays: str = _PLACE
    """BLAKE2b-256 over names, dtypes, shapes and values, in the order of names, in hexadecimal."""
    checksum: str = _PLACE
    """BLAKE2b-256 over all of the file that stands before the arrays, with zeros in this place, in hexadecimal."""

    def _check(self) -> None:
        for name in ("epoch", "step", "steps", "metrics_bytes"):
            value = getattr(self, name)
            require(value >= 0, name, expected="a whole number >= 0", got=value)
        length, rest = divmod(self.steps - self.step, self.epoch) if self.epoch else (self.step, self.steps - self.step)
        require(
            rest == 0 and length >= max(self.step, min(self.epoch, 1)),
            "steps",
            expected=f"those of {self.epoch} equal epochs and {self.step} of the next",
            got=self.steps,
        )
        if self.best is not None:
            expected = f"one of the {self.epoch} completed epochs"
            require(self.best.epoch <= self.epoch, "best.epoch", expected=expected, got=self.best.epoch)


class Checkpoint(msgspec.Struct, frozen=True):
    """A header and its state."""

    header: Header
    state: State


def save(path: Path, header: Header, state: State) -> None:
    """Write a checkpoint atomically.

    Args:
        path: the file, ending in `.safetensors`.
        header: its digests are filled in here.
        state: as `Program.dump` gives it.

    Raises:
        SpecError: the state is not that of the header's network and position, not finite or out of range.
    """
    check(header, state, "checkpoint")
    # Row-major copies: safetensors stores the memory of an array as it lies.
    arrays = {name: np.asarray(value, order="C") for name, value in state.items()}
    stamped = msgspec.structs.replace(header, arrays=_digest(arrays), checksum=_PLACE)
    text = json.dumps(encode(stamped), separators=(",", ":"))  # not msgspec, which has no place for names that are no UTF-8
    content = memoryview(to_bytes(arrays, metadata={KEY: text}))
    end = _PREFIX + int.from_bytes(content[:_PREFIX], "little")
    head = content[:end].tobytes()
    sealed = _before_arrays(head, _PLACE)

    def write(temporary: Path) -> None:
        # Written here and not by safetensors, whose files only their owner can read.
        with temporary.open("wb") as file:
            file.write(head.replace(_seal(_PLACE), _seal(sealed)))
            file.write(content[end:])

    write_atomic(path, write)


def load(path: Path) -> Checkpoint:
    """Read a checkpoint, from whichever backend.

    Raises:
        SpecError: no such file, or it is broken, altered, foreign, of another format or specification, or does not fit its
            own network.
    """
    what = str(path)
    header, content = _read(path, whole=True)
    try:
        state: State = from_bytes(content)
    except (SafetensorError, KeyError) as error:  # a KeyError for a dtype that NumPy has not
        raise refuse(what, expected="a readable checkpoint", got=" ".join(str(error).split())) from None
    require(_digest(state) == header.arrays, what, expected="values that match their digest", got=_DAMAGED)
    check(header, state, what)
    return Checkpoint(header, state)


def load_header(path: Path) -> Header:
    """Read only what a checkpoint says about itself; raises as `load`, but for the arrays."""
    return _read(path, whole=False)[0]


_DAMAGED = "a file that was altered or damaged"


def _read(path: Path, *, whole: bool) -> tuple[Header, bytes]:
    """The checked header and the file's bytes; without the arrays if not `whole`."""
    what, kind = str(path), found(path)
    require(kind == FILE, what, expected="a checkpoint", got=kind)
    try:
        with path.open("rb") as file:
            head, size = file.read(_PREFIX), os.fstat(file.fileno()).st_size
            end = _PREFIX + int.from_bytes(head, "little")
            head += file.read(end - _PREFIX) if end <= size else b""
            outer = _json(head[_PREFIX:]) if len(head) == end else None
            if not isinstance(outer, dict):
                raise refuse(what, expected="a safetensors file", got="a broken or foreign one")
            metadata = outer.pop("__metadata__", None)
            text = metadata.get(KEY) if isinstance(metadata, dict) else None
            if not isinstance(text, str):
                raise refuse(what, expected="a checkpoint of Twinspike", got="a safetensors file from elsewhere")
            header = _header(head, _json(text.encode()), what)
            # now that the head is what was written: no more is read than it says
            try:
                length = max((int(array["data_offsets"][1]) for array in outer.values()), default=0)
            except (KeyError, IndexError, TypeError, ValueError, OverflowError):
                raise refuse(what, expected="a safetensors file", got="a broken or foreign one") from None
            require(size == end + length, what, expected=f"{end + length:,} bytes", got=f"{size:,} bytes: {_DAMAGED}")
            return header, head + file.read() if whole else head
    except OSError as error:
        raise refuse(what, expected="a readable file", got=error.strerror) from None


def _header(head: bytes, data: Any, what: str) -> Header:
    """The header, if it and all around it is as it was written."""
    if not isinstance(data, dict):
        raise SpecError(f"{what}: its header is broken")
    version = data.get("format")
    do = "read it with the version of Twinspike that wrote it, or train anew"
    require(version == FORMAT, what, expected=f"checkpoint format {FORMAT}", got=repr(version), do=do)
    checksum = data.get("checksum")
    intact = isinstance(checksum, str) and _before_arrays(head, checksum) == checksum
    require(intact, what, expected="a header that matches its digest", got=_DAMAGED)
    require(
        data.get("spec") == spec_version,
        what,
        expected=f"a checkpoint under specification {spec_version}",
        got=repr(data.get("spec")),
        do=do,
    )
    return decode(Header, data, what)


def _json(text: bytes) -> Any:
    """Decoded JSON; None if it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def check(header: Header, state: State, what: str) -> None:
    """Refuse a state that is not the header's: of another layout, another format or position, not finite or out of range."""
    config = header.config
    entries = layout(header.network, config.method, config.optimizer)
    check_state(state, entries, what)
    check_values(state, entries, config.method, PRECISIONS[config.precision].storage, what)
    require(int(state[STEP]) == header.steps, f"{what}[{STEP}]", expected=f"the header's {header.steps}", got=int(state[STEP]))


def _before_arrays(head: bytes, checksum: str) -> str:
    """Digest of what stands before the arrays; `checksum` is what stands in the digest's own place."""
    return hashlib.blake2b(head.replace(_seal(checksum), _seal(_PLACE)), digest_size=32).hexdigest()


def _seal(checksum: str) -> bytes:
    """A header's field `checksum` as it stands in the file: JSON text within JSON, whose quotes no other text has like this."""
    return f'\\"checksum\\":\\"{checksum}\\"'.encode()


def _digest(state: State) -> str:
    digest = hashlib.blake2b(digest_size=32)
    for name in sorted(state):
        array = np.asarray(state[name], order="C")
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
