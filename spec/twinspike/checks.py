"""Checks of what users hand in, framework-free, so that every backend refuses the same mistake in the same line."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twinspike.config import Method
from twinspike.errors import require
from twinspike.network import Network
from twinspike.operations import operation

Shape = tuple[int, ...]

_WHOLE = {"labels", "step"}
"""Inputs of operations that are integers; all others are floats."""
_FINITE = {"factorize": ("kernel",), "retract": ("U", "V")}
"""Inputs of operations that have no answer for NaN or infinity; all others compute with them."""


def shapes_of(arrays: Mapping[str, Any]) -> dict[str, Shape]:
    """Name -> shape, of arrays of any library."""
    return {name: tuple(value.shape) for name, value in arrays.items()}


def check_operation(name: str, config: Any, shapes: Mapping[str, Shape], floating: Mapping[str, bool]) -> None:
    """Refuse inputs that do not fit an operation of the table.

    Args:
        name: of the operation.
        config: must be of the row's config type.
        shapes: input -> shape.
        floating: input -> whether its dtype is a floating format.

    Raises:
        SpecError: unknown operation, wrong config, an input missing, unknown, of the wrong kind or shape.
    """
    row = operation(name)
    kinds = row.config.__args__ if hasattr(row.config, "__args__") else (row.config,)
    require(
        isinstance(config, kinds), f"{name}.config", expected=" or ".join(k.__name__ for k in kinds), got=type(config).__name__
    )
    unknown = sorted(set(shapes) - set(row.inputs))
    require(not unknown, f"{name} inputs", expected=f"names among {', '.join(row.inputs)}", got=unknown)
    sizes: dict[str, Any] = {}
    for key, dims in row.inputs.items():
        wanted, _, optional = dims.partition("?")
        if key not in shapes:
            require(bool(optional) or dims.endswith("?"), f"{name}.{key}", expected=f"an array ({wanted.strip()})", got="nothing")
            continue
        whole = key in _WHOLE
        require(
            floating[key] != whole,
            f"{name}.{key}",
            expected="an integer dtype" if whole else "a floating dtype",
            got="floating" if floating[key] else "another dtype",
        )
        if "or" in wanted.split():
            per_channel = (sizes["C"],)
            fits = shapes[key] in ((), per_channel)
            require(fits, f"{name}.{key}", expected=f"shape () or {per_channel}", got=shapes[key])
        else:
            _unify(f"{name}.{key}", wanted.split(), shapes[key], sizes)


def _unify(what: str, dims: list[str], shape: Shape, sizes: dict[str, Any]) -> None:
    """Match a shape with dimension letters, binding letters not yet bound."""
    legend = f"shape ({', '.join(dims)})"
    star = next((i for i, d in enumerate(dims) if d.startswith("*")), None)
    if star is None:
        require(len(shape) == len(dims), what, expected=legend, got=shape)
        bound: list[tuple[str, Any]] = list(zip(dims, shape, strict=True))
    else:
        tail = len(dims) - star - 1
        require(len(shape) >= len(dims) - 1, what, expected=legend, got=shape)
        middle = shape[star : len(shape) - tail]
        bound = [*zip(dims[:star], shape, strict=False), (dims[star], middle)]
        bound += list(zip(dims[star + 1 :], shape[len(shape) - tail :], strict=True))
    for letter, size in bound:
        fits = sizes.setdefault(letter, size) == size
        known = {k: v for k, v in sizes.items() if k in dims}
        require(fits, what, expected=f"{legend} with {known}", got=shape)
        require(size == () or np.min(size) >= 1, what, expected=f"{legend}, all sizes >= 1", got=shape)


def check_finite(name: str, finite: Callable[[str], bool]) -> None:
    """Refuse NaN and infinity where a matrix is decomposed (clauses FAC-3, ORT-3).

    Args:
        name: of the operation.
        finite: whether all values of an input are finite, by its name; asked only where it matters, since it waits for them.

    Raises:
        SpecError: they are not.
    """
    for key in _FINITE.get(name, ()):
        require(finite(key), f"{name}.{key}", expected="finite values", got="NaN or infinity")


def check_differentiable(name: str) -> None:
    """Refuse to take gradients of an operation that has none.

    Raises:
        SpecError: it has no adjoint.
    """
    require(operation(name).adjoint is not None, f"{name} gradient", expected="an operation with differentiable inputs", got=name)


def check_cotangents(
    name: str, shapes: Mapping[str, Shape], floating: Mapping[str, bool], outputs: Mapping[str, Shape], form: str = "a float"
) -> None:
    """Refuse cotangents that do not fit an operation's outputs.

    Args:
        name: of the operation.
        shapes: cotangent -> shape.
        floating: cotangent -> whether its dtype is one that the backend takes.
        outputs: output -> shape.
        form: that dtype, in words.

    Raises:
        SpecError: a cotangent of no output that has one, of another shape or dtype.
    """
    known = operation(name).cotangents
    for key, shape in shapes.items():
        what = f"{name} cotangent {key}"
        require(key in known, what, expected=f"one of {', '.join(known)}", got=key)
        require(shape == outputs[key], what, expected=f"shape {outputs[key]}", got=shape)
        require(floating[key], what, expected=f"{form} of shape {shape}", got="another dtype")


def check_rate(learning_rate: float) -> None:
    """Refuse a learning rate that is none.

    Raises:
        SpecError: negative, infinite or NaN.
    """
    fits = math.isfinite(learning_rate) and learning_rate >= 0
    require(fits, "learning_rate", expected="a finite number >= 0", got=learning_rate)


def check_images(network: Network, method: Method, images: NDArray[np.generic]) -> int:
    """Refuse images that a network can't take; return B.

    Raises:
        SpecError: wrong shape, dtype, or a NaN or infinity among the values.
    """
    lead = (method.time_steps,) if network.event else ()
    wanted = (*lead, "B", *network.input_shape)
    axis = len(lead)
    shape = images.shape
    fits = len(shape) == len(wanted) and all(w in ("B", n) for w, n in zip(wanted, shape, strict=True)) and shape[axis] >= 1
    require(fits, "images", expected=f"shape ({', '.join(map(str, wanted))})", got=shape)
    require(images.dtype in (np.float32, np.float64), "images", expected="float32 or float64", got=str(images.dtype))
    require(bool(np.isfinite(images).all()), "images", expected="finite values", got="NaN or infinity")
    return int(shape[axis])


def check_batch(network: Network, method: Method, images: NDArray[np.generic], labels: NDArray[Any]) -> None:
    """Refuse a batch that a training step can't take.

    Raises:
        SpecError: as `check_images`, or labels of the wrong shape, dtype or range.
    """
    size = check_images(network, method, images)
    require(labels.shape == (size,), "labels", expected=f"shape ({size},)", got=labels.shape)
    require(labels.dtype == np.int64, "labels", expected="int64", got=str(labels.dtype))
    inside = bool(((labels >= 0) & (labels < network.classes)).all())
    require(inside, "labels", expected=f"values 0 to {network.classes - 1}", got=f"{labels.min()} to {labels.max()}")


def check_claim(backend: str, capabilities: Any, device: str, precision: str, compiled: bool) -> None:
    """Refuse a session that a backend does not claim.

    Raises:
        SpecError: naming what was asked for and what is there.
    """
    require(
        device.partition(":")[0] in capabilities.devices,
        f"device of backend {backend!r}",
        expected=f"one of {', '.join(capabilities.devices)} on this machine",
        got=device,
    )
    require(
        precision in capabilities.precisions,
        f"precision of backend {backend!r}",
        expected=f"one of {', '.join(sorted(capabilities.precisions))}",
        got=precision,
    )
    require(capabilities.compiled or not compiled, f"compile of backend {backend!r}", expected="false", got=compiled)
