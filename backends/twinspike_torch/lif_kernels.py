"""Which kernel computes the neuron: the choice, why it fell so, and the kernels as operators that a compiler keeps.

`auto` takes the fused kernel of the device where its library is installed, and torch's own operations else.
A kernel that is asked for by name and can't be had is refused.
"""

from __future__ import annotations

import importlib
from functools import cache
from importlib.util import find_spec
from types import ModuleType
from typing import Literal, get_args

import torch
from torch import Tensor

from twinspike.errors import refuse, require
from twinspike_torch.compiling import constant
from twinspike_torch.lif_form import Form, Gradients, Outputs, empty_sequence, empty_step, potential_dtype

Kernel = Literal["auto", "plain", "numba", "triton"]

FUSED: dict[str, Kernel] = {"cpu": "numba", "cuda": "triton"}
"""Type of a device -> the kernel made for it."""

UNROLLED = 32
"""Steps up to which torch's compiler generates the CPU's code; it unrolls them, and would take minutes for hundreds."""


@constant
def choose(kernel: Kernel, device: str, compiling: bool, length: Literal["short", "long"]) -> Kernel:
    """The kernel that serves a device, never `auto`.

    Args:
        kernel: what was asked for.
        device: type of the device, such as `cpu`.
        compiling: whether torch's compiler asks.
        length: of sequences, short up to `UNROLLED` steps. No number: to a compiler T may be a symbol.

    Raises:
        SpecError: a kernel asked for by name is not there, or does not work on the device.
    """
    require(kernel in get_args(Kernel), "lif.kernel", expected=f"one of {', '.join(get_args(Kernel))}", got=kernel)
    if kernel == "auto":
        fused = FUSED.get(device, "plain")
        generated = compiling and device == "cpu" and length == "short"
        return "plain" if generated or _obstacle(fused, device) else fused
    obstacle = _obstacle(kernel, device)
    if obstacle is not None:
        raise refuse("lif.kernel", expected=f"one that works on {device}", got=f"{kernel}, but {obstacle}")
    return kernel


def served_devices(devices: tuple[str, ...], kernel: Kernel) -> tuple[str, ...]:
    """Those of a machine's devices on which a kernel works; SpecError if there is none."""
    found = tuple(device for device in devices if kernel == "auto" or _obstacle(kernel, device) is None)
    if not found:
        choose(kernel, devices[0], False, "short")  # refuses
    return found


def served(devices: tuple[str, ...], kernel: Kernel = "auto") -> dict[str, str]:
    """Case -> the kernel that serves it and, for a fallback, why; as `twinspike.Capabilities.kernels`."""
    found = {}
    for device in devices:
        fused = FUSED[device]
        for mode, compiling in (("", False), (", compiled", True)):
            chosen = choose(kernel, device, compiling, "short")
            library = "" if chosen == "plain" else f"{chosen} {importlib.import_module(chosen).__version__}"
            text = f"{library}{_module(chosen).remark()}" if library else "plain torch"
            if chosen != fused:
                reason = _obstacle(fused, device) if kernel == "auto" else "asked for"
                text += f": {reason or f'fused by torch, with its neighbours, up to {UNROLLED} steps'}"
            found[f"lif on {device}{mode}"] = text
    return found


@cache
def _obstacle(kernel: Kernel, device: str) -> str | None:
    """Why a kernel can't serve a device; None if it can."""
    if kernel == "plain":
        return None
    if find_spec(kernel) is None:
        return f"{kernel} is not installed"
    try:
        module = _module(kernel)
    except ImportError as error:
        return f"{kernel} can't be imported ({error})"
    return None if module.works_on(device) else f"{kernel} does not work there"


@cache
def _module(kernel: str) -> ModuleType:
    # A kernel's library takes a second to import: not before it is used.
    return importlib.import_module(f"twinspike_torch.lif_{kernel}")


def forward(
    kernel: Kernel, x: Tensor, v: Tensor | None, decay: Tensor | None, threshold: Tensor | None, form: Form, traced: bool
) -> Outputs:
    """Run a sequence by a kernel that `choose` gave, other than the plain one."""
    if torch.compiler.is_compiling():
        s, after, u = _forward_operator(x, v, decay, threshold, list(form), kernel, traced)
        return Outputs(s, after, u if traced else None)
    out: Outputs = _module(kernel).forward(x, v, decay, threshold, form, traced)
    return out


def backward(
    kernel: Kernel,
    x: Tensor,
    v: Tensor | None,
    decay: Tensor | None,
    threshold: Tensor | None,
    g: Tensor | None,
    e: Tensor | None,
    form: Form,
    wanted: tuple[bool, bool],
) -> Gradients:
    """Gradients of a sequence by the same kernel; `wanted` of decay and threshold."""
    if torch.compiler.is_compiling():
        d_x, d_v, d_decay, d_threshold = _backward_operator(x, v, decay, threshold, g, e, list(form), kernel, list(wanted))
        return Gradients(d_x, None if v is None else d_v, d_decay if wanted[0] else None, d_threshold if wanted[1] else None)
    out: Gradients = _module(kernel).backward(x, v, decay, threshold, g, e, form, wanted)
    return out


# --- as operators ----------------------------------------------------------------------------------------
#
# The compiler sees shapes and layouts here and calls the kernel as it is. Called from eager code they would
# cost more than small kernels do. An operator returns tensors only: an empty one stands for None.


@torch.library.custom_op("twinspike::lif_forward", mutates_args=())
def _forward_operator(
    x: Tensor, v: Tensor | None, decay: Tensor | None, threshold: Tensor | None, form: list[float], kernel: str, traced: bool
) -> tuple[Tensor, Tensor, Tensor]:
    s, after, u = _module(kernel).forward(x, v, decay, threshold, Form(*form), traced)
    return s, after, x.new_empty(0) if u is None else u


@_forward_operator.register_fake
def _(
    x: Tensor, v: Tensor | None, decay: Tensor | None, threshold: Tensor | None, form: list[float], kernel: str, traced: bool
) -> tuple[Tensor, Tensor, Tensor]:
    wide = potential_dtype(x)
    u = empty_sequence(x, wide) if traced else x.new_empty(0)
    return empty_sequence(x, x.dtype), empty_step(x, wide), u


@torch.library.custom_op("twinspike::lif_backward", mutates_args=())
def _backward_operator(
    x: Tensor,
    v: Tensor | None,
    decay: Tensor | None,
    threshold: Tensor | None,
    g: Tensor | None,
    e: Tensor | None,
    form: list[float],
    kernel: str,
    wanted: list[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    found = _module(kernel).backward(x, v, decay, threshold, g, e, Form(*form), (wanted[0], wanted[1]))
    d_v, d_decay, d_threshold = (x.new_empty(0) if value is None else value for value in found[1:])
    return found.x, d_v, d_decay, d_threshold


@_backward_operator.register_fake
def _(
    x: Tensor,
    v: Tensor | None,
    decay: Tensor | None,
    threshold: Tensor | None,
    g: Tensor | None,
    e: Tensor | None,
    form: list[float],
    kernel: str,
    wanted: list[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    learned = [
        torch.empty_like(value) if value is not None and asked else x.new_empty(0)
        for value, asked in zip((decay, threshold), wanted, strict=True)
    ]
    d_v = x.new_empty(0) if v is None else empty_step(x, potential_dtype(x))
    return empty_sequence(x, x.dtype), d_v, learned[0], learned[1]
