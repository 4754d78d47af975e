"""Precision profiles as torch dtypes, and what a session computes in, whatever its user's process is in (clauses PRE-*).

torch decides by switches of the process whether float32 products may be rounded, and by contexts around a call in which
format and on which device it computes. A session holds its own for the time of its own computation, and puts back what it
found. Modules keep to what is around them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch

from twinspike.errors import require
from twinspike.precision import PRECISIONS

_DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16}


def storage(precision: str) -> torch.dtype:
    """Of parameters, gradients, statistics, potentials and losses."""
    return _DTYPES[PRECISIONS[precision].storage]


def activations(precision: str) -> torch.dtype | None:
    """Of what layers hand on, where that differs from the storage format."""
    dtype = _DTYPES[PRECISIONS[precision].activations]
    return None if dtype == storage(precision) else dtype


def autocast_dtype(device: str) -> torch.dtype | None:
    """Format that an autocast around asks for on a type of device; None where there is none."""
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return None


def without_autocast(device: str) -> AbstractContextManager[object]:
    """Within it, operations on a type of device compute in their operands' formats, whatever is around, or around `backward`."""
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()


def _switches() -> list[tuple[Any, str, Any, Any]]:
    """(owner, attribute, value that keeps IEEE products, value that allows TF32), for this version of torch."""
    backends = torch.backends
    if hasattr(backends.cuda.matmul, "fp32_precision"):
        owners = [backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn]  # type: ignore[attr-defined]  # since 2.9
        host = [backends.mkldnn.matmul, backends.mkldnn.conv]  # type: ignore[attr-defined]  # since 2.9
        return [(o, "fp32_precision", "ieee", "tf32") for o in owners] + [(o, "fp32_precision", "ieee", "ieee") for o in host]
    return [(backends.cuda.matmul, "allow_tf32", False, True), (backends.cudnn, "allow_tf32", False, True)]


def flags(precision: str) -> dict[str, str]:
    """The switches as torch reports them while a profile holds."""
    with arithmetic(precision):
        labels: tuple[str, ...] = ("cuda.matmul", "cudnn.conv", "cudnn.rnn", "mkldnn.matmul", "mkldnn.conv")
        if len(_switches()) == 2:
            labels = ("cuda.matmul", "cudnn")  # torch before 2.9
        found = {f"{label}.{name}": getattr(owner, name) for label, (owner, name, *_) in zip(labels, _switches(), strict=True)}
        found["float32_matmul_precision"] = torch.get_float32_matmul_precision() if precision == "tf32" else "not set"
    return {name: str(value) for name, value in found.items()} | {"threads": str(torch.get_num_threads())}


@contextmanager
def arithmetic(precision: str, gradients: bool = False) -> Iterator[None]:
    """Hold torch to a profile and to the devices that are named, whatever settings and contexts are around.

    Held are float32 products, autocast, the default format and device, inference mode, the recording of gradients, and what
    NumPy does about overflow.
    What only watches is left on: anomaly detection, determinism, profilers.

    Args:
        precision: a profile's name.
        gradients: whether operations are recorded for a backward pass.

    Raises:
        SpecError: torch does not take a setting.
    """
    with ExitStack() as held:
        held.enter_context(torch.inference_mode(False))  # which has gradients recorded, so it comes before the next
        held.enter_context(torch.set_grad_enabled(gradients))
        for device in ("cpu", "cuda"):
            held.enter_context(without_autocast(device))
        # A default device is a mode that sees every call of torch from Python: none does in here.
        held.enter_context(torch._C.DisableTorchFunction())
        held.enter_context(_default_dtype(torch.float32))
        held.enter_context(np.errstate(all="ignore"))
        held.enter_context(_products(precision))
        yield


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    found = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(found)


@contextmanager
def _products(precision: str) -> Iterator[None]:
    """Hold the process to a profile's float32 products; SpecError if torch does not take the setting."""
    found = [(owner, name, getattr(owner, name)) for owner, name, *_ in _switches()]
    level = torch.get_float32_matmul_precision() if precision == "tf32" else None
    try:
        if level is not None:
            # torch's compiler reads the older switch, and fails where it contradicts the newer ones.
            torch.set_float32_matmul_precision("high")
        for owner, name, ieee, tf32 in _switches():
            wanted = tf32 if precision == "tf32" else ieee
            if getattr(owner, name) != wanted:
                setattr(owner, name, wanted)
            require(getattr(owner, name) == wanted, f"torch's {name}", expected=wanted, got=getattr(owner, name))
        yield
    finally:
        if level is not None:
            torch.set_float32_matmul_precision(level)
        for owner, name, value in found:
            if getattr(owner, name) != value:
                setattr(owner, name, value)
