"""Which kernel runs the neuron on which platform, and the dispatch; `kernel_choice` says how one is chosen."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from jax import Array, lax

from twinspike_jax import neuron_native, neuron_plain, neuron_triton
from twinspike_jax.kernel_choice import native, told
from twinspike_jax.native_build import LIF, Library
from twinspike_jax.neuron_form import Form, Gradients, Inputs, Outputs

CHOICE = "TWINSPIKE_JAX_LIF"


def forward(form: Form, inputs: Inputs) -> Outputs:
    """Run a sequence by the kernel of the platform for which it is compiled."""
    found: Outputs = _dispatch("forward", form, inputs, unroll=True)
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
    found = native(LIF, CHOICE, "lif")
    missing = None if found is None else neuron_triton.missing()
    on_gpu = "Triton through Pallas" if missing is None else f"plain XLA: {missing}"
    return {"cpu": told(found, CHOICE), "gpu": told(found, CHOICE) if found is None else on_gpu}


def _dispatch(name: str, form: Form, *arrays: Any, **elsewhere: bool) -> Any:
    """Run a pass; plain XLA gets the options `elsewhere` where the platform is no CPU."""
    plain, found = getattr(neuron_plain, name), native(LIF, CHOICE, "lif")
    by_platform: dict[str, Callable[..., Any]] = {"cpu": partial(plain, form)}
    if isinstance(found, Library):
        by_platform["cpu"] = partial(getattr(neuron_native, name), found, form)
    if found is not None and neuron_triton.missing() is None:
        by_platform["cuda"] = partial(getattr(neuron_triton, name), form)
    return lax.platform_dependent(*arrays, default=partial(plain, form, **elsewhere), **by_platform)
