"""The neuron on the CPU by Numba: tensors as flat memory, and blocks of neurons shared out to threads.

Threads are Python's own, as many as torch uses: Numba's, and OpenMP's, end a process that forks or that calls
them from two threads at once. float16 and other formats without a loop of their own go through float32 copies.
Importing this module imports Numba.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from twinspike_torch import lif_numba_loops as loops
from twinspike_torch.lif_form import (
    Form,
    Gradients,
    Outputs,
    channel_run,
    empty_sequence,
    empty_step,
    potential_dtype,
    run,
    runs,
    shared_by,
)
from twinspike_torch.lif_numba_loops import Array

BLOCK = 1024
"""Neurons that go through time together, and fewer where many steps would not stay in cache."""
POTENTIALS = 1 << 18
"""Potentials of a block that may be kept for its backward pass: 1 MiB of float32, a core's second-level cache."""
SHARE = 1 << 15
"""Least number of neuron-steps that is worth a thread."""


def works_on(device: str) -> bool:
    """Whether tensors of a device can be read."""
    return device == "cpu"


def forward(x: Tensor, v: Tensor | None, decay: Tensor | None, threshold: Tensor | None, form: Form, traced: bool) -> Outputs:
    """Run a sequence; arguments as of `twinspike_torch.lif`, `traced` for potentials."""
    dtype, wide = potential_dtype(x), _supported(x)
    s, after = empty_sequence(wide, wide.dtype), empty_step(wide, dtype)
    u = empty_sequence(wide, dtype) if traced else None
    flat, apart = runs(wide, after)
    arguments = (
        *(apart, _numpy(flat), wide.dtype == torch.bfloat16, _optional(v, after), _quantities(decay, threshold, form, dtype)),
        *(channel_run(after), (bool(form.hard), form.v_reset), _flat(s), _flat(after), _flat(u, dtype)),
    )
    _share_out(loops.forward, (x.shape[0], after.numel()), arguments)
    return Outputs(s.to(x.dtype), after, u)


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
    d_x, step = empty_sequence(wide, wide.dtype), empty_step(wide, dtype)
    d_v = None if v is None else step
    parts = [torch.zeros_like(step) if asked else None for asked in wanted]
    flat, apart = runs(wide, step)
    flat_g, apart_g = (_none(wide.dtype), 0) if g is None else runs(g.to(wide.dtype), step)
    arguments = (
        *((apart, apart_g), _numpy(flat), _numpy(flat_g), wide.dtype == torch.bfloat16, _optional(v, step), _optional(e, step)),
        *(_quantities(decay, threshold, form, dtype), channel_run(step)),
        (bool(form.hard), form.v_reset, bool(form.detach_reset), bool(form.decay_input)),
        (int(form.surrogate), form.width),
        *(_flat(d_x), _flat(d_v, dtype), *(_flat(part, dtype) for part in parts)),
    )
    _share_out(loops.backward, (x.shape[0], step.numel()), arguments)
    return Gradients(d_x.to(x.dtype), d_v, *map(shared_by, (decay, threshold), parts))


def _share_out(kernel: Callable[..., None], size: tuple[int, int], arguments: tuple[Any, ...]) -> None:
    """Run a kernel on all blocks, in as many threads as torch uses and the work is worth."""
    steps, neurons = size
    block = max(64, min(BLOCK, POTENTIALS // steps))
    blocks = -(-neurons // block)
    threads = max(1, min(torch.get_num_threads(), blocks, steps * neurons // SHARE))
    bounds = [blocks * i // threads for i in range(threads + 1)]
    shares = list(pairwise(bounds))
    waiting = [_pool(threads - 1).submit(kernel, share, block, size, *arguments) for share in shares[1:]]
    kernel(shares[0], block, size, *arguments)
    for future in waiting:
        future.result()


@cache
def _pool(workers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers, thread_name_prefix="lif")


# A forked process has none of its parent's threads.
os.register_at_fork(after_in_child=_pool.cache_clear)


def _supported(x: Tensor) -> Tensor:
    """A current in a format that the loops read."""
    return x.detach() if x.dtype in (torch.float32, torch.float64, torch.bfloat16) else x.detach().to(torch.float32)


def _quantities(decay: Tensor | None, threshold: Tensor | None, form: Form, dtype: torch.dtype) -> tuple[Array, Array, Array]:
    """Decay, weight of the current and threshold as arrays, of one value or one per channel."""
    weighted = bool(form.decay_input)
    if decay is None:
        alpha, gain = _constant(form.decay, dtype), _constant(1.0 - form.decay if weighted else 1.0, dtype)
    else:
        wide = decay.detach().to(dtype).reshape(-1).contiguous()
        alpha, gain = _numpy(wide), _numpy(1.0 - wide) if weighted else _constant(1.0, dtype)
    if threshold is None:
        return alpha, gain, _constant(form.threshold, dtype)
    return alpha, gain, _numpy(threshold.detach().to(dtype).reshape(-1).contiguous())


@cache
def _constant(value: float, dtype: torch.dtype) -> Array:
    return _numpy(torch.tensor([value], dtype=dtype))


def _none(dtype: torch.dtype) -> Tensor:
    return torch.empty(0, dtype=dtype)


def _flat(values: Tensor | None, dtype: torch.dtype = torch.float32) -> Array:
    """An output's memory in storage order, an empty array where there is none."""
    return _numpy(_none(dtype) if values is None else values.as_strided((values.numel(),), (1,)))


def _optional(values: Tensor | None, like: Tensor) -> Array:
    return _numpy(_none(like.dtype) if values is None else run(values.detach(), like))


def _numpy(flat: Tensor) -> Array:
    """The same memory as an array, bfloat16 as its bits."""
    array: Array = (flat.view(torch.uint16) if flat.dtype == torch.bfloat16 else flat).numpy()
    return array
