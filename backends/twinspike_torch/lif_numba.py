"""The neuron on the CPU by Numba: tensors as flat memory, and blocks of neurons shared out to threads.

As many threads as torch uses; a neuron's numbers don't depend on who computes it. float16 and other formats without
a loop of their own go through float32 copies. Importing this module imports Numba.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from twinspike_torch import lif_memory, lif_numba_blocks, lif_numba_cache, lif_threads
from twinspike_torch import lif_numba_loops as loops
from twinspike_torch import lif_numba_numbers as numbers
from twinspike_torch.lif_form import Form, Gradients, Outputs, channel_run, potential_dtype, run, runs, shared_by

BLOCK = 1024
"""Neurons that go through time together, at most; half as many in float64."""
POTENTIALS = 1 << 16
"""Potentials of a block that may be kept for its backward pass: they stay in a core's second-level cache."""
SHARE = 1 << 18
"""Least number of neuron-steps that is worth a thread: some 80 us; waking one takes 20, and as much is lost afterwards to
Python's lock, which it wants back."""
STORED: dict[torch.dtype, Any] = {torch.float32: np.float32, torch.float64: np.float64, torch.bfloat16: np.uint16}
"""Formats that have loops, as these name them."""


def works_on(device: str) -> bool:
    """Whether tensors of a device can be read."""
    return device == "cpu"


def remark() -> str:
    """What is to be said where this kernel serves; empty: nothing."""
    obstacle = lif_numba_cache.obstacle()
    return f", compiled anew by each process: {obstacle}" if obstacle else ""


def forward(x: Tensor, v: Tensor | None, decay: Tensor | None, threshold: Tensor | None, form: Form, traced: bool) -> Outputs:
    """Run a sequence; arguments as of `twinspike_torch.lif`, `traced` for potentials."""
    dtype, wide = potential_dtype(x), _supported(x)
    steps, layout = x.shape[0], _layout(wide)
    s, after = layout.sequence(steps, wide.dtype), layout.step(dtype)
    u = layout.sequence(steps, dtype) if traced else None
    values, apart = layout.steps_of(wide)
    state = layout.step_of(v, dtype)
    alpha, gain, theta = _quantities(decay, threshold, form, dtype)
    block = _block(dtype, 0)
    loop = loops.forward(STORED[wide.dtype], STORED[dtype])
    counts = (
        *(steps, layout.neurons, apart, layout.run, 0 if v is None else layout.neurons, alpha.numel(), gain.numel()),
        *(theta.numel(), int(traced), int(form.hard), 0x3F80 if wide.dtype == torch.bfloat16 else 1),
    )
    addresses = [_address(a) for a in (values, state, alpha, gain, theta, s, after, u)]
    _share_out(steps, layout.neurons, block, loops.ROWS, dtype, loop, *counts, form.v_reset, *addresses)
    return Outputs(s if s.dtype == x.dtype else s.to(x.dtype), after, u)


def backward(
    x: Tensor,
    v: Tensor | None,
    decay: Tensor | None,
    threshold: Tensor | None,
    g: Tensor | None,
    e: Tensor | None,
    form: Form,
    wanted: tuple[bool, bool],
) -> Gradients:
    """Gradients of a sequence from those of its spikes and of the state after it; `wanted` of decay and threshold."""
    dtype, wide = potential_dtype(x), _supported(x)
    steps, layout = x.shape[0], _layout(wide)
    d_x = layout.sequence(steps, wide.dtype)
    d_v = None if v is None else layout.step(dtype)
    block, surrogate = _block(dtype, steps), int(form.surrogate)
    values, apart = layout.steps_of(wide)
    towards, g_apart = (
        (torch.zeros(layout.neurons, dtype=wide.dtype), 0)
        if g is None
        else layout.steps_of(g if g.dtype == wide.dtype else g.to(wide.dtype))
    )
    state, end = layout.step_of(v, dtype), layout.step_of(e, dtype)
    alpha, gain, theta = _quantities(decay, threshold, form, dtype)
    sums = [_sums(q, layout, block, dtype) if asked else None for q, asked in zip((decay, threshold), wanted, strict=True)]
    learned = sum(flag for flag, part in zip((loops.DECAY, loops.THRESHOLD), sums, strict=True) if part is not None)
    loop = loops.backward(STORED[wide.dtype], STORED[dtype], surrogate, learned)
    counts = (
        *(steps, layout.neurons, apart, g_apart, layout.run, 0 if v is None else layout.neurons),
        *(0 if e is None else layout.neurons, alpha.numel(), gain.numel(), theta.numel()),
        *(int(form.hard), int(form.detach_reset), int(form.decay_input)),
    )
    reals = (form.v_reset, *numbers.constants(surrogate, form.width))
    addresses = [_address(a) for a in (values, towards, state, end, alpha, gain, theta, d_x, d_v, *sums)]
    room = loops.ROWS + block * steps
    _share_out(steps, layout.neurons, block, room, dtype, loop, *counts, *reals, *addresses)
    return Gradients(d_x if d_x.dtype == x.dtype else d_x.to(x.dtype), d_v, *map(_shared_by, (decay, threshold), sums))


# --- tensors as addresses --------------------------------------------------------------------------------


class _Layout:
    """How one step's outputs lie in memory: as `torch.empty_like` of a step of the input."""

    def __init__(self, shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
        like = torch.empty_like(torch.empty_strided(shape, strides, device="meta"))
        self.shape, self.strides = tuple(like.shape), like.stride()
        self.neurons, self.run = like.numel(), channel_run(like)

    def sequence(self, steps: int, dtype: torch.dtype) -> Tensor:
        """An unfilled (T, B, C, ...), one step after the other."""
        return lif_memory.empty((steps, *self.shape), (self.neurons, *self.strides), dtype)

    def step(self, dtype: torch.dtype) -> Tensor:
        """An unfilled (B, C, ...)."""
        return lif_memory.empty(self.shape, self.strides, dtype)

    def steps_of(self, values: Tensor) -> tuple[Tensor, int]:
        """A sequence in this layout, copied only if it has to be, and how far apart its steps lie."""
        if values.stride()[1:] == self.strides:
            return values, values.stride(0)
        return runs(values, torch.empty_strided(self.shape, self.strides, dtype=values.dtype))

    def step_of(self, values: Tensor | None, dtype: torch.dtype) -> Tensor | None:
        """One step in this layout and format, copied only if it has to be."""
        if values is None or (values.dtype == dtype and values.stride() == self.strides):
            return values
        return run(values.detach(), torch.empty_strided(self.shape, self.strides, dtype=dtype))


def _layout(x: Tensor) -> _Layout:
    return _known_layout(x.shape[1:], x.stride()[1:])


_known_layout = lru_cache(maxsize=1024)(_Layout)


def _sums(quantity: Tensor | None, layout: _Layout, block: int, dtype: torch.dtype) -> Tensor:
    """Room for a learned quantity's sums over time: each neuron's, or each block's for a quantity of one value."""
    if quantity is None or quantity.numel() > 1:
        return layout.step(dtype)
    return torch.empty(-(-layout.neurons // block), dtype=dtype)


def _shared_by(quantity: Tensor | None, sums: Tensor | None) -> Tensor | None:
    """As `lif_form.shared_by`, of `_sums`."""
    if quantity is None or sums is None or quantity.numel() > 1:
        return shared_by(quantity, sums)
    # NumPy's: the last bits of torch's own differ with the number of threads.
    return torch.full(quantity.shape, sums.numpy().sum().item(), dtype=quantity.dtype)


def _address(values: Tensor | None) -> int:
    return 0 if values is None else values.data_ptr()


def _share_out(
    steps: int, neurons: int, block: int, room: int, dtype: torch.dtype, loop: Callable[..., int], *arguments: Any
) -> None:
    """Run a loop on all blocks, in as many threads as torch uses and the work is worth; `room` numbers for each of them."""
    blocks = -(-neurons // block)
    threads = max(1, min(torch.get_num_threads(), blocks, steps * neurons // SHARE))
    counters = (ctypes.c_int64 * lif_numba_blocks.counters(threads))()
    rows = _room.take(threads * room, dtype)

    def work(share: int) -> int:
        return loop(share, threads, ctypes.addressof(counters), block, *arguments, rows)

    lif_threads.run(work, blocks, threads)


def _block(dtype: torch.dtype, kept: int) -> int:
    """Neurons of a block: `kept` numbers of each must stay in cache."""
    most = BLOCK if dtype == torch.float32 else BLOCK // 2
    return max(64, min(most, POTENTIALS // max(1, kept) // 64 * 64))


class _Room(threading.local):
    """A thread's memory for one block at a time: fresh pages would cost more than what is done on them."""

    def __init__(self) -> None:
        self._held: dict[torch.dtype, Tensor] = {}

    def take(self, numbers: int, dtype: torch.dtype) -> int:
        """Address of so many numbers, until the next call."""
        held = self._held.get(dtype)
        if held is None or held.numel() < numbers:
            held = self._held[dtype] = torch.empty(numbers, dtype=dtype)
        return held.data_ptr()


_room = _Room()


def _supported(x: Tensor) -> Tensor:
    """A current in a format that the loops read, which read its memory alone."""
    return x if x.dtype in STORED else x.detach().to(torch.float32)


def _quantities(decay: Tensor | None, threshold: Tensor | None, form: Form, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Decay, weight of the current and threshold, of one value or one per channel."""
    theta = _constant(form.threshold, 1, dtype) if threshold is None else _flat(threshold, dtype)
    weighted = bool(form.decay_input)
    if decay is None:
        return _constant(form.decay, 1, dtype), _constant(1.0 - form.decay if weighted else 1.0, 1, dtype), theta
    alpha = _flat(decay, dtype)
    return alpha, 1.0 - alpha if weighted else _constant(1.0, 1, dtype), theta


@cache
def _constant(value: float, count: int, dtype: torch.dtype) -> Tensor:
    return torch.full((count,), value, dtype=dtype)


def _flat(quantity: Tensor, dtype: torch.dtype) -> Tensor:
    return quantity.detach().to(dtype).reshape(-1).contiguous()
