"""What a run needs at the least, held against what the machine has, before anything of that size is allocated.

The estimates are from below: what every implementation holds at once. So nothing is refused that could run, and what
is refused would have ended in a killed process or a machine that swaps.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from twinspike.config import TWINS, Method
from twinspike.errors import SpecError
from twinspike.network import Conv, Linear, Network, infer_shapes
from twinspike.parameters import kernel_shape

_LIMIT = Path("/sys/fs/cgroup/memory.max")
"""Where Linux says what a container may use; `max` means all."""

_FRAME = 4
"""Bytes of a number in a batch, float32."""


def machine_memory() -> int:
    """Bytes of memory that this machine, or its container, has in all; where it doesn't say, more than any has."""
    try:
        physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError):
        physical = sys.maxsize
    try:
        return min(physical, int(_LIMIT.read_text()))
    except (OSError, ValueError):
        return physical


def require_memory(what: str, parts: Mapping[str, int], do: str) -> None:
    """Refuse what needs more than the machine has.

    Args:
        what: needs it, as the error names it.
        parts: what for -> bytes.
        do: what the user can do.

    Raises:
        SpecError: with the estimate and its largest part.
    """
    need, have = sum(parts.values()), machine_memory()
    if need > have:
        largest = max(parts, key=lambda part: parts[part])
        raise SpecError(
            f"{what}: needs at least {size(need)} of memory ({size(parts[largest])} for {largest}), "
            f"this machine has {size(have)}; {do}"
        )


def training_parts(network: Network, method: Method, batch_size: int, number: int, on_host: bool) -> dict[str, int]:
    """Bytes that a training step holds in the host's memory, from below.

    Args:
        network: the graph.
        method: for T.
        batch_size: B.
        number: bytes of one that a layer hands on.
        on_host: whether the step is computed there; else only the batch is.
    """
    shapes = infer_shapes(network)
    steps = method.time_steps
    parts = {"a batch": batch_size * math.prod(network.input_shape) * (steps if network.event else 1) * _FRAME}
    if on_host:
        widest = max((math.prod(shapes[name]) for name in network.activations), default=0)
        parts["the spikes of the largest layer at every time step"] = steps * batch_size * widest * number
        kernels = (kernel_shape(layer, shapes[layer.input]) for layer in network.layers if isinstance(layer, Conv | Linear))
        parts["both twins' kernels"] = len(TWINS) * sum(map(math.prod, kernels)) * number
    return parts


def size(count: int) -> str:
    """`3.2 GiB`: bytes in the largest unit that they fill, to three digits."""
    unit = min(len(_UNITS) - 1, max(0, (count.bit_length() - 1) // 10))
    return f"{count / 1024**unit:.3g} {_UNITS[unit]}" if unit else f"{count} B"


_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
