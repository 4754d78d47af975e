"""A pretrained artificial network as the start of a run: both twins begin with its kernels, norms and biases.

A file is safetensors with torchvision's names of a ResNet or with the specification's, as `twinspike export` writes them. What
the file has no arrays for, branches above all, stays as the seed draws it, and is said. Every name or shape that does not fit is
told in a line of its own before anything is written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as from_bytes

from twinspike import initial_state
from twinspike.config import TWINS, Method, Optimizer
from twinspike.errors import SpecError, refuse, require
from twinspike.network import Conv, Linear, Network, infer_shapes
from twinspike.parameters import State, is_factored, kernel_shape, layout
from twinspike.precision import PRECISIONS
from twinspike.reference.factorization import factorize, singular_values
from twinspike_training import checkpoint
from twinspike_training.checkpoint import Header
from twinspike_training.config import RunConfig
from twinspike_training.files import FILE, expand, found
from twinspike_training.run import RunFolder, create, prepare

Array = NDArray[Any]

_PARTS = {"weight": "gamma", "bias": "beta", "running_mean": "mean", "running_var": "var"}
"""What torchvision's norms call them -> what ours do."""

_RULES = (
    (r"conv1\.weight", r"stem.conv.weight"),
    (r"bn1\.(\w+)", r"stem.norm.{part}"),
    (r"layer(\d)\.(\d+)\.conv(\d)\.weight", r"stage{0}.{block}.{2}.conv.weight"),
    (r"layer(\d)\.(\d+)\.bn(\d)\.(\w+)", r"stage{0}.{block}.{2}.norm.{part}"),
    (r"layer(\d)\.(\d+)\.downsample\.0\.weight", r"stage{0}.{block}.shortcut.conv.weight"),
    (r"layer(\d)\.(\d+)\.downsample\.1\.(\w+)", r"stage{0}.{block}.shortcut.norm.{part}"),
    (r"fc\.(weight|bias)", r"main.head.{0}"),
)
"""torchvision's name -> ours; `block` counts from 1 here and from 0 there."""


class MismatchError(SpecError):
    """Arrays don't fit; `lines` say which, one each."""

    def __init__(self, what: str, lines: Sequence[str]) -> None:
        super().__init__(
            f"{what}: expected arrays that fit the network, got {len(lines)} that don't; --skip LAYER leaves a layer out"
        )
        self.lines = tuple(lines)


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """What a run was made of."""

    folder: Path
    taken: int
    """Arrays of the file that were used."""
    drawn: tuple[str, ...]
    """Layers that the file has nothing for, or that were skipped: as the seed draws them."""
    energy: dict[str, float]
    """Layer -> share of its kernel's sum of squares that its factors keep, at the worst position, where rank cuts some off."""


def ours(name: str) -> str | None:
    """The specification's name of an array of torchvision's ResNet; None where it counts and is left out, else itself."""
    if name.endswith(".num_batches_tracked"):
        return None
    for pattern, target in _RULES:
        match = re.fullmatch(pattern, name)
        if match is None:
            continue
        groups = match.groups()
        part = _PARTS.get(groups[-1]) if "{part}" in target else ""
        if part is None:
            return name
        return target.format(*groups, block=int(groups[1]) + 1 if "{block}" in target else 0, part=part)
    return name


def read_arrays(path: Path) -> dict[str, Array]:
    """A file's arrays in float64, by the specification's names.

    Raises:
        SpecError: it can't be read, is no safetensors file, holds other than floating-point numbers, or two for one name.
    """
    what = found(path)
    require(what == FILE, "import", expected="a safetensors file", got=f"{what}: {path}")
    try:
        arrays = from_bytes(path.read_bytes())
    except (
        SafetensorError,
        KeyError,
        OSError,
        ValueError,
    ) as error:  # a KeyError for a dtype, a ValueError for a rank, of NumPy's
        do = "save it as safetensors, in float32"
        raise refuse("import", expected="a readable safetensors file", got=" ".join(str(error).split()), do=do) from None
    named: dict[str, Array] = {}
    for name, value in arrays.items():
        target = ours(name)
        if target is None:
            continue
        require(target not in named, f"import {name}", expected=f"one array for {target}", got="two")
        require(value.dtype.kind == "f", f"import {name}", expected="floating-point numbers", got=str(value.dtype))
        largest = float(np.abs(value).max(initial=0.0))
        inside = largest <= float(np.finfo(np.float32).max)  # false of NaN too
        require(inside, f"import {name}", expected="finite values that float32 holds", got=largest)
        named[target] = value.astype(np.float64)
    require(bool(named), "import", expected="arrays of a network", got=f"none: {path}")
    return named


def pretrained_state(
    network: Network, method: Method, optimizer: Optimizer, seed: int, arrays: Mapping[str, Array], skip: Sequence[str] = ()
) -> tuple[State, tuple[str, ...], dict[str, float]]:
    """The state of step 0 that both twins start from, in float64.

    Args:
        network: of the run.
        method: decides factors; `gamma_init` threshold multiplies the spiking twin's scales by the threshold.
        optimizer: for its slots, at 0.
        seed: draws what the file has not.
        arrays: as `read_arrays` gives them.
        skip: layers, or the beginnings of their names up to a dot, that are left as drawn.

    Returns:
        The state; layers left as drawn; share of energy kept by layer, where a rank cuts some off.

    Raises:
        MismatchError: names or shapes that don't fit, one line each.
    """
    state, expected = initial_state(network, method, optimizer, seed=seed), _expected(network, method, optimizer)

    def skipped(layer: str) -> bool:
        return any(_within(layer, name) for name in skip)

    layers = {name.rpartition(".")[0] for name in arrays}
    lines = [
        f"--skip {name}: no layer is called so" for name in skip if not any(_within(layer.name, name) for layer in network.layers)
    ]
    for name, value in arrays.items():
        layer = name.rpartition(".")[0]
        if skipped(layer):
            continue
        if name not in expected:
            lines.append(f"{name}: the network has no such array")
        elif value.shape != expected[name]:
            lines.append(f"{name}: expected shape {expected[name]}, got {value.shape}")
    for name in expected:
        layer = name.rpartition(".")[0]
        if layer in layers and name not in arrays and not skipped(layer):
            lines.append(f"{name}: the file has other arrays of {layer} and not this one")
    if lines:
        raise MismatchError("import", lines)
    energy: dict[str, float] = {}
    for name, value in arrays.items():
        layer, _, part = name.rpartition(".")
        if not skipped(layer):
            _put(state, energy, network, method, layer, part, value)
    own = {name.rpartition(".")[0] for name in expected}
    drawn = tuple(
        layer.name for layer in network.layers if layer.name in own and (layer.name not in layers or skipped(layer.name))
    )
    return state, drawn, energy


def _within(layer: str, name: str) -> bool:
    return layer == name or layer.startswith(f"{name}.")


def _expected(network: Network, method: Method, optimizer: Optimizer) -> dict[str, tuple[int, ...]]:
    """Name of each array that a file may have -> its shape."""
    shapes, found_ = infer_shapes(network), {}
    for layer in network.layers:
        if isinstance(layer, Conv | Linear):
            found_[f"{layer.name}.weight"] = kernel_shape(layer, shapes[layer.input])
    for entry in layout(network, method):
        if entry.kind in ("bias", "neuron"):
            found_[entry.name] = entry.shape
        elif entry.kind in ("norm", "statistic"):
            found_[f"{entry.layer}.{entry.part.rpartition('_')[0]}"] = entry.shape
    return found_


def _put(state: State, energy: dict[str, float], network: Network, method: Method, layer: str, part: str, value: Array) -> None:
    """Give one array to both twins."""
    if part in ("bias", "decay", "threshold"):
        state[f"{layer}.{part}"] = value
    elif part == "weight" and is_factored(network.layer(layer), method.factorization):
        rank = state[f"{layer}.sigma_ann"].shape[-1]
        u, sigma, v = factorize(method.factorization, value, rank)
        state |= {f"{layer}.U": u, f"{layer}.V": v} | {f"{layer}.sigma_{twin}": sigma for twin in TWINS}
        squares = singular_values(method.factorization, value) ** 2
        if rank < squares.shape[-1] and squares.any():
            whole = squares.sum(axis=-1)
            energy[layer] = float(
                (squares[..., :rank].sum(axis=-1) / np.where(whole > 0, whole, 1)).min(initial=1, where=whole > 0)
            )
    else:
        for twin in TWINS:
            scaled = part == "gamma" and twin == "snn" and method.batch_norm.gamma_init == "threshold"
            state[f"{layer}.{part}_{twin}"] = value * method.neuron.threshold if scaled else value


def import_run(config: RunConfig, file: str, skip: Sequence[str] = ()) -> Imported:
    """Make a run's folder whose checkpoint `last`, at step 0, holds a pretrained network.

    Args:
        config: of the run, which `twinspike train --resume` then goes on with.
        file: safetensors.
        skip: as for `pretrained_state`.

    Raises:
        SpecError: the file or the run can't be had, or they don't fit (`MismatchError`); nothing is left behind.
    """
    arrays = read_arrays(expand(file))
    ready = prepare(config)
    state, drawn, energy = pretrained_state(ready.network, config.method, config.optimizer, config.seed, arrays, skip)
    stored = PRECISIONS[config.precision].storage
    with np.errstate(over="ignore"):  # what overflows is refused below
        cast = {name: value.astype(stored) if value.dtype.kind == "f" else value for name, value in state.items()}
    for name, value in cast.items():
        finite = bool(np.isfinite(value).all())
        require(finite, f"import {name}", expected=f"values that {stored} holds", got="an overflow; scale the layer's weights")
    header = Header(
        backend=config.backend, epoch=0, step=0, steps=0, best=None, fingerprint=ready.dataset.fingerprint, metrics_bytes=0,
        config=config, network=ready.network,
    )  # fmt: skip
    checkpoint.check(header, cast, "import")  # before the folder is made
    folder: RunFolder = create(config)
    checkpoint.save(folder.checkpoint("last"), header, cast)
    own = set(drawn)
    taken = sum(name.rpartition(".")[0] not in own for name in arrays)
    return Imported(folder=folder.path, taken=taken, drawn=drawn, energy=energy)
