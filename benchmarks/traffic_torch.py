"""Bytes and operations of one eager training step of torch on a CUDA device, counted without one.

The step runs on device `meta`, where tensors have shapes and strides alone. Each operation is counted with all its operands
and results, each of Triton's kernels with what it reads and writes; views are free. An operation is at least one launch.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import twinspike as ts
from twinspike.network import infer_shapes
from twinspike.parameters import slots
from twinspike_torch import lif_kernels, norm, norm_triton
from twinspike_torch.lif_form import Gradients, Outputs, empty_sequence, empty_step, potential_dtype
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
        self._inside = False

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
        if not (self._inside or view or name.startswith(FREE)):
            self._note(name, [*given, *made])
        return result

    def kernel(self, name: str, given: Iterable[Any], body: Callable[[], Any]) -> Any:
        """What a kernel gives, noted as one operation."""
        self._inside = True
        result = body()
        self._inside = False
        self._note(name, [*_tensors(list(given)), *_tensors(result)])
        return result

    def _note(self, name: str, arrays: list[Tensor]) -> None:
        self.found.append(Operation(name, f"{self.part} {name}", sum(map(_size, arrays))))

    # --- Triton's kernels: empty results, and what they read --------------------------------------------

    def lif_forward(self, kernel: str, x: Tensor, v: Any, decay: Any, threshold: Any, form: Any, traced: bool) -> Any:
        """As `lif_kernels.forward`."""
        return self.kernel(
            "lif forward", [x, v], lambda: Outputs(empty_sequence(x, x.dtype), empty_step(x, potential_dtype(x)), None)
        )

    def lif_backward(
        self, kernel: str, x: Tensor, v: Any, decay: Any, threshold: Any, g: Any, e: Any, form: Any, wanted: Any
    ) -> Any:
        """As `lif_kernels.backward`."""
        return self.kernel("lif backward", [x, g, e], lambda: Gradients(empty_sequence(x, x.dtype), None, None, None))

    def normalize(self, x: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> Any:
        """As `norm_triton.normalize`."""
        statistics = self.kernel("norm statistics", [x], lambda: [gamma.new_empty(x.shape[0], x.shape[2]) for _ in range(3)])
        return self.kernel("norm apply", [x], lambda: torch.empty_like(x)), *statistics

    def gradients(self, g: Tensor, x: Tensor, gamma: Tensor, mean: Tensor, inverse: Tensor, eps: float) -> Any:
        """As `norm_triton.gradients`."""
        g = g if g.stride() == x.stride() else torch.empty_like(x).copy_(g)
        d_gamma, d_beta = self.kernel("norm sums", [g, x], lambda: [torch.empty_like(mean), torch.empty_like(mean)])
        return self.kernel("norm to_inputs", [g, x], lambda: torch.empty_like(x)), d_gamma, d_beta


def count(options: argparse.Namespace) -> list[Operation]:
    """The operations of a step; for good, neurons and norms of this process then count and do not compute."""
    counted, meta = Counted(), torch.device("meta")
    served = {"forward": counted.lif_forward, "backward": counted.lif_backward, "choose": lambda *_: "triton"}
    for name, value in served.items():
        setattr(lif_kernels, name, value)
    setattr(norm, "_fused", lambda x: counted if norm_triton.fits(x) else None)  # noqa: B010  # mypy knows it as it was
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
        for flag, names in program._groups:
            kept = {slot: [state.slots[f"optimizer/{slot}/{name}"] for name in names] for slot in slots(optimizer)}
            given = [state.parameters[name] for name in names], [gradients[name] for name in names], kept
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
