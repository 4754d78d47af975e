"""Arrays in and out, and the device: MLX's CPU whatever its default is, which on a Mac is the GPU."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from twinspike.errors import require

P = ParamSpec("P")
R = TypeVar("R")


def on_cpu(function: Callable[P, R]) -> Callable[P, R]:
    """The function with all that it computes on the CPU, and its users' default left alone."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with mx.stream(mx.cpu):
            return function(*args, **kwargs)

    return run


def to_mlx(values: NDArray[np.generic]) -> mx.array:
    """A copy: floats as float32, whole numbers as int64."""
    values = np.asarray(values)
    require(values.dtype.kind in "fiu", "array", expected="floats or integers", got=str(values.dtype))
    return mx.array(np.array(values, np.float32 if values.dtype.kind == "f" else np.int64, order="C"))


def to_numpy(tensor: mx.array) -> NDArray[Any]:
    """A copy that is its owner's alone."""
    return np.array(tensor)
