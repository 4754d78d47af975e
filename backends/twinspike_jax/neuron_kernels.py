"""Which kernel runs the neuron on which platform: the choice, its reasons in words, and the dispatch.

The choice never depends on data or shapes, and nothing falls back in silence: `served` says which kernel serves and, for
plain XLA, why. The environment variable TWINSPIKE_JAX_LIF overrides it: `auto` is the fastest there is, `kernel`
refuses to run without this package's kernels, `plain` never uses them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

from jax import Array, lax

from twinspike.errors import refuse, require
from twinspike_jax import neuron_native, neuron_plain, neuron_triton
from twinspike_jax.native_build import Library, Missing, library
from twinspike_jax.neuron_form import Form, Gradients, Inputs, Outputs

CHOICE = "TWINSPIKE_JAX_LIF"
CHOICES = ("auto", "kernel", "plain")


def chosen() -> str:
    """What the environment asks for.

    Raises:
        SpecError: it is none of `CHOICES`.
    """
    choice = os.environ.get(CHOICE, "auto")
    require(choice in CHOICES, CHOICE, expected=f"one of {', '.join(CHOICES)}", got=choice)
    return choice


def forward(form: Form, inputs: Inputs) -> Outputs:
    """Run a sequence by the kernel of the platform for which it is compiled."""
    found: Outputs = _dispatch("forward", form, inputs)
    return found


def backward(form: Form, inputs: Inputs, g: Array, e: Array | None) -> Gradients:
    """The gradients of what was given, as `neuron_plain.backward`."""
    found: Gradients = _dispatch("backward", form, inputs, g, e)
    return found


def served() -> dict[str, str]:
    """Platform -> the kernel that serves it here, and for plain XLA also why.

    Raises:
        SpecError: as `chosen`, or a kernel is asked for that is not there.
    """
    native = _native()
    if native is None:
        reason = f"plain XLA: {CHOICE} asks for it"
        return {"cpu": reason, "gpu": reason}
    missing = neuron_triton.missing()
    return {
        "cpu": f"plain XLA: {native.reason}" if isinstance(native, Missing) else f"C++ through XLA's FFI, by {native.compiler}",
        "gpu": "Triton through Pallas" if missing is None else f"plain XLA: {missing}",
    }


def _native() -> Library | Missing | None:
    """The kernels for CPUs; None: this package's kernels are not to be used, on no platform."""
    choice = chosen()
    if choice == "plain":
        return None
    native = library()
    if isinstance(native, Missing) and choice == "kernel":
        raise refuse("lif on cpu", expected=f"a kernel, as {CHOICE} says", got=native.reason)
    return native


def _dispatch(name: str, form: Form, *arrays: Any) -> Any:
    plain, native = getattr(neuron_plain, name), _native()
    by_platform: dict[str, Callable[..., Any]] = {"cpu": partial(plain, form, unroll=False)}
    if isinstance(native, Library):
        by_platform["cpu"] = partial(getattr(neuron_native, name), native, form)
    if native is not None and neuron_triton.missing() is None:
        by_platform["cuda"] = partial(getattr(neuron_triton, name), form)
    return lax.platform_dependent(*arrays, default=partial(plain, form, unroll=True), **by_platform)
