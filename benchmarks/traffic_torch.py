"""Bytes and operations of one eager training step of torch on a CUDA device, counted without one.

The step runs on device `meta`, where tensors have shapes and strides alone. Each operation is counted with all its operands
and results, each of Triton's kernels with what it reads and writes; views are free. An operation is at least one launch.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import twinspike as ts
from twinspike.network import infer_shapes
from twinspike.parameters import slots
from twinspike_torch import lif_kernels, lif_triton, norm, norm_activation_kernels, norm_triton
from twinspike_torch.optimizer import update_
from twinspike_torch.program import TorchProgram

FREE = ("empty", "new_empty", "lift_fresh", "detach")
"""Beginnings of names of operations that launch nothing."""


class Operation(NamedTuple):
    """As `traffic.Kernel`."""

    kind: str
    source: str
    """Its kind behind F forward, B backward or O in the optimizer."""
    bytes: int


class Counted(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """Notes each operation inside."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # likewise
        self.found: list[Operation] = []
        self.part = "F"

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        name = function.overloadpacket.__name__
        if name == "convolution":  # cuDNN's results have their operands' layout, those of `meta` have not
            result = _like(result, args[0])
        elif name == "convolution_backward":
            result = (_like(result[0], args[1]), *result[1:])
        given, made = _tensors((args, kwargs)), _tensors(result)
        held = {a.untyped_storage()._cdata for a in given}
        view = not function._schema.is_mutable and all(a.untyped_storage()._cdata in held for a in made)
        if not (view or name.startswith(FREE)):
            self._note(name, [*given, *made])
        return result

    def kernel(self, name: str, args: tuple[Any, ...]) -> None:
        """Note a launch of one of Triton's kernels with all tensors that it is given: what it reads and what it writes."""
        held = {id(a): a for a in _tensors(args)}
        self._note(name, list(held.values()))

    def _note(self, name: str, arrays: list[Tensor]) -> None:
        self.found.append(Operation(name, f"{self.part} {name}", sum(map(_size, arrays))))


class Launched:
    """Stands for one of Triton's kernels: its launches are noted."""

    def __init__(self, name: str, counted: Counted) -> None:
        self.name, self.counted = name, counted

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        return lambda *args, **options: self.counted.kernel(self.name, args)


KERNELS = {
    "lif": (lif_triton, ("_forward", "_backward")),
    "norm": (norm_triton, ("_statistics", "_apply", "_sums", "_to_inputs")),
    "norm activation": (norm_activation_kernels, ("_activate", "_sums", "_to_inputs", "_finish", "_finish_sums")),
}
"""Beginning of their names -> the module that has them, and which."""


def count(options: argparse.Namespace) -> list[Operation]:
    """The operations of a step; for good, Triton's kernels of this process then count and do not compute."""
    counted, meta = Counted(), torch.device("meta")
    for beginning, (module, names) in KERNELS.items():
        for name in names:
            setattr(module, name, Launched(f"{beginning} {name.strip('_')}", counted))
    setattr(lif_kernels, "choose", lambda *_: "triton")  # noqa: B010  # mypy knows it as it was
    setattr(norm, "_fused", lambda x: norm_triton if norm_triton.fits(x) else None)  # noqa: B010  # likewise
    network, method, optimizer = ts.network(options.network), ts.Method(time_steps=options.time_steps), ts.SGD()
    program = TorchProgram(network, method, optimizer, meta, options.precision, False, False, "triton")
    state = program.load(ts.initial_state(network, method, optimizer))
    images = torch.empty(options.batch_size, *infer_shapes(network)["input"], device=meta)
    labels = torch.empty(options.batch_size, dtype=torch.int64, device=meta)
    with counted:
        loss, _ = program._objective(state.parameters, state.statistics, images.to(memory_format=torch.channels_last), labels)
        counted.part = "B"
        gradients = dict(zip(state.parameters, torch.autograd.grad(loss, list(state.parameters.values())), strict=True))
        counted.part = "O"
        for flag, group in program._groups:
            kept = {slot: [state.slots[f"optimizer/{slot}/{name}"] for name in group] for slot in slots(optimizer)}
            given = [state.parameters[name] for name in group], [gradients[name] for name in group], kept
            with torch.no_grad():
                update_(optimizer, *given, decays=flag, learning_rate=0.1, step=1)
    return counted.found


def _tensors(values: Any) -> list[Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]


def _like(made: Any, given: Tensor) -> Any:
    """With channels last, where the other array's are."""
    last = made is not None and given.is_contiguous(memory_format=torch.channels_last)
    return torch.empty_like(made, memory_format=torch.channels_last) if last else made


def _size(array: Tensor) -> int:
    """Bytes that are different: an expanded axis is read again, out of a cache."""
    count = array.element_size()
    for extent, stride in zip(array.shape, array.stride(), strict=True):
        count *= extent if stride else 1
    return count
