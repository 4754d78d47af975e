"""Checkpoints: the state under the specification's names, and all that a run needs to go on, in one safetensors file.

No pickle, no backend's own layout: what torch wrote, jax continues. A file that is broken, cut off,
altered or not from here is refused in one line.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes

from twinspike import __version__ as spec_version
from twinspike.config import Config, decode, encode
from twinspike.errors import SpecError, refuse, require
from twinspike.network import Network
from twinspike.parameters import State, check_state, layout
from twinspike_training.config import RunConfig
from twinspike_training.files import write_atomic

FORMAT = 1
"""Version of the header; a reader refuses others."""

KEY = "twinspike"
"""Key of the header, JSON text, in the file's metadata."""


class Best(Config, frozen=True, kw_only=True):
    """The best evaluation so far, by the spiking twin's accuracy; the first of equals."""

    accuracy_snn: float
    """Share of test samples, in [0, 1]."""
    accuracy_ann: float
    epoch: int
    """Epochs completed when it was evaluated, >= 1."""


class Header(Config, frozen=True, kw_only=True):
    """What is stored beside the arrays."""

    format: int = FORMAT
    spec: str = spec_version
    """Version of the specification."""
    backend: str
    """Name of the backend that wrote it."""
    epoch: int
    """Epochs completed."""
    step: int
    """Optimizer steps taken in the epoch that comes next."""
    steps: int
    """Optimizer steps taken in all."""
    best: Best | None
    fingerprint: str
    """Of the data."""
    metrics_bytes: int
    """Length of metrics.jsonl at this point, in bytes."""
    config: RunConfig
    network: Network
    checksum: int = 0
    """CRC-32 over names and values, in the order of names."""


class Checkpoint(msgspec.Struct, frozen=True):
    """A header and its state."""

    header: Header
    state: State


def save(path: Path, header: Header, state: State) -> None:
    """Write a checkpoint atomically.

    Args:
        path: the file, ending in `.safetensors`.
        header: its checksum is filled in here.
        state: as `Program.dump` gives it.

    Raises:
        SpecError: the state is not that of the header's network, or not finite.
    """
    check_state(state, _entries(header), "checkpoint")
    # Row-major copies: safetensors stores the memory of an array as it lies.
    arrays = {name: np.asarray(value, order="C") for name, value in state.items()}
    stamped = msgspec.structs.replace(header, checksum=_checksum(arrays))
    text = msgspec.json.encode(encode(stamped)).decode()
    content = to_bytes(arrays, metadata={KEY: text})
    # Written here and not by safetensors, whose files only their owner can read.
    write_atomic(path, lambda temporary: temporary.write_bytes(content))


def load(path: Path) -> Checkpoint:
    """Read a checkpoint, from whichever backend.

    Raises:
        SpecError: no such file, or it is broken, foreign, of another format, or does not fit its own network.
    """
    what = str(path)
    header = load_header(path)
    try:
        with safe_open(path, framework="numpy") as file:
            state: State = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
    except (SafetensorError, OSError) as error:
        raise refuse(what, expected="a readable checkpoint", got=" ".join(str(error).split())) from None
    check_state(state, _entries(header), what)
    intact = _checksum(state) == header.checksum
    require(intact, what, expected="values that match its checksum", got="a file that was altered or damaged")
    return Checkpoint(header, state)


def load_header(path: Path) -> Header:
    """Read only what a checkpoint says about itself."""
    what = str(path)
    if not path.is_file():
        raise refuse(what, expected="a checkpoint", got="no such file")
    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get(KEY)
    except (SafetensorError, OSError) as error:
        raise refuse(
            what, expected="a safetensors file", got=f"a broken or foreign one ({' '.join(str(error).split())})"
        ) from None
    require(text is not None, what, expected="a checkpoint of Twinspike", got="a safetensors file from elsewhere")
    try:
        data: Any = msgspec.json.decode(text or "")
    except msgspec.DecodeError as error:
        raise SpecError(f"{what}: its header is broken ({error})") from None
    version = data.get("format") if isinstance(data, dict) else None
    require(version == FORMAT, what, expected=f"checkpoint format {FORMAT}", got=version)
    return decode(Header, data, what)


def _entries(header: Header) -> Any:
    config = header.config
    return layout(header.network, config.method, config.optimizer)


def _checksum(state: State) -> int:
    value = 0
    for name in sorted(state):
        array = np.asarray(state[name], order="C")
        value = zlib.crc32(f"{name} {array.dtype} {array.shape}".encode(), value)
        value = zlib.crc32(array.reshape(-1).view(np.uint8).data, value)
    return value
