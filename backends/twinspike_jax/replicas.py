"""Many devices as a mesh of one axis: what lies where, and the collectives of a replicated step (clauses DEV-*).

A program's functions run on each device by `jax.shard_map`, on its samples and on the whole state, so that kernels see arrays of
one device. Every rank adds its samples' contributions to loss and gradients; sums over the axis are those of the global batch.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any, final

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from numpy.typing import NDArray

from twinspike.errors import SpecError, refuse, require
from twinspike.replicas import Rendezvous
from twinspike_jax.piecewise import joint_options
from twinspike_jax.precision import arithmetic

AXIS = "replica"
WHOLE: PartitionSpec = PartitionSpec()  # type: ignore[no-untyped-call]  # JAX leaves it untyped
FIRST: PartitionSpec = PartitionSpec(AXIS)  # type: ignore[no-untyped-call]  # JAX leaves it untyped
SECOND: PartitionSpec = PartitionSpec(None, AXIS)  # type: ignore[no-untyped-call]  # JAX leaves it untyped
"""The same on every rank, or split along the first or second axis."""

PATIENCE = 30
"""Seconds without a sign of life after which a process counts as lost."""


_GONE = ("Gloo", "NCCL", "oordination", "UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL")
"""One of these words is in what JAX says where a process is lost."""


@final
class Ranks:
    """The devices of all processes, in order of rank."""

    def __init__(self, kind: str, devices: int) -> None:
        """Lay the mesh over as many devices of each process.

        Raises:
            SpecError: this process has fewer.
        """
        own = jax.local_devices(backend=kind)
        do = "start a fresh process, or set XLA_FLAGS=--xla_force_host_platform_device_count=N" if kind == "cpu" else None
        require(len(own) >= devices, f"{kind} devices of a process", expected=f"at least {devices}", got=len(own), do=do)
        self.rank, self.world_size = jax.process_index(), jax.process_count()
        first: dict[int, list[jax.Device]] = {}
        for device in jax.devices(kind):
            first.setdefault(device.process_index, []).append(device)
        chosen = [device for process in sorted(first) for device in first[process][:devices]]
        self.mesh, self.here = Mesh(np.array(chosen), (AXIS,)), Mesh(np.array(own[:devices]), (AXIS,))
        self.replicas, self.kind = len(chosen), kind

    def put(self, own: NDArray[Any], spec: PartitionSpec = WHOLE, *, here: bool = False) -> Array:
        """This process's part of an array on its devices, `here` on a mesh of these alone."""
        sharding = NamedSharding(self.here if here else self.mesh, spec)
        placed: Array = jax.make_array_from_process_local_data(sharding, own)  # type: ignore[no-untyped-call]  # JAX leaves it untyped
        return placed

    def mapped(
        self, function: Callable[..., Any], ins: Any, outs: Any, *donated: int, compiled: bool, here: bool = False
    ) -> Callable[..., Any]:
        """The function on each device, compiled; sums and means over the ranks are its own business."""
        mesh = self.here if here else self.mesh
        body = jax.shard_map(function, mesh=mesh, in_specs=ins, out_specs=outs, check_vma=False)
        return self.jit(body, *donated, compiled=compiled)

    def jit(self, function: Callable[..., Any], *donated: int, compiled: bool) -> Callable[..., Any]:
        """Compiled whole, or so that every primitive is rounded by itself."""
        options = None if compiled else joint_options(self.kind)
        found: Callable[..., Any] = jax.jit(function, donate_argnums=donated, compiler_options=options)
        return found

    def nearby(self, tree: Any) -> Any:
        """A replicated tree as one on the mesh of this process's devices, nothing copied."""
        if self.world_size == 1:
            return tree
        sharding = NamedSharding(self.here, WHOLE)

        def moved(value: Array) -> Array:
            return jax.make_array_from_single_device_arrays(value.shape, sharding, [s.data for s in value.addressable_shards])

        return jax.tree.map(moved, tree)

    def on_first(self, tree: Any) -> Any:
        """A replicated tree on this process's first device."""
        return jax.tree.map(lambda value: value.addressable_data(0), tree)

    def gather(self, values: NDArray[np.generic]) -> NDArray[np.generic]:
        """Every process's values, in order of rank along a new first axis."""
        if self.world_size == 1:
            return np.array(values)[None]
        mine = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
        with self.met():
            found = np.asarray(multihost_utils.process_allgather(mine))
        return np.frombuffer(found.tobytes(), values.dtype).reshape(self.world_size, *values.shape)

    @contextmanager
    def met(self) -> Iterator[None]:
        """Say in one line that another process is gone, wherever a value is waited for that it has a part in."""
        try:
            yield
        except (RuntimeError, ValueError) as error:  # JAX has one of its own for each way to lose a process
            said = str(error)
            if self.world_size == 1 or isinstance(error, SpecError) or not any(word in said for word in _GONE):
                raise
            atexit.register(_leave)
            raise gone(self.rank, self.world_size, error) from None

    def check_shares(self, samples: int) -> None:
        """Refuse parts of a batch that are not of one size, or that this process's devices can't share (clause DEV-1)."""
        own = self.here.size
        require(samples % own == 0, "batch", expected=f"a multiple of the {own} devices", got=f"{samples} samples")
        found = self.gather(np.array([samples], np.int64)).ravel().tolist()
        require(len(set(found)) == 1, "batch", expected="as many samples on every rank", got=found)


def _leave() -> None:
    """End a process that has lost others, with status 2, but for JAX's parting, which waits for them and then aborts."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(2)


def gone(rank: int, world_size: int, error: Exception) -> SpecError:
    """That another process does not answer, in one line."""
    got = " ".join(str(error).split())[:100]
    do = "one of them has ended or hangs; see what it said, and go on from the last checkpoint"
    return refuse(f"process {rank} of {world_size}", expected="an answer of every other one", got=got, do=do)


@contextmanager
def at_work(storage: str, device: jax.Device, ranks: Ranks | None) -> Iterator[None]:
    """Arithmetic in a storage format on a device, as `precision.arithmetic`, in which the ranks take part, if there are any."""
    with arithmetic(storage, device), nullcontext() if ranks is None else ranks.met():
        yield


def joined(kind: str, devices: int, at: Rendezvous | None) -> Ranks:
    """Meet the other processes, and see to the host's devices, as JAX allows before it has looked for devices.

    Raises:
        SpecError: the others can't be met, or this process has too few devices.
    """
    if kind == "cpu" and devices > 1:
        with suppress(RuntimeError):  # JAX has looked already: there are enough of them, or `Ranks` says that there are not
            jax.config.update("jax_num_cpu_devices", devices)  # type: ignore[no-untyped-call]  # JAX leaves it untyped
    if at is not None and at.world_size > 1 and not jax.distributed.is_initialized():
        try:
            jax.distributed.initialize(at.address, at.world_size, at.rank, heartbeat_timeout_seconds=PATIENCE)
        except Exception as error:  # as above
            got = " ".join(str(error).split())[:100]
            raise refuse("rendezvous", expected=f"{at.world_size} processes to meet at {at.address}", got=got) from None
    return Ranks(kind, devices)


def count(axis: str | None) -> int:
    """N, the ranks."""
    return 1 if axis is None else int(lax.psum(1, axis))  # type: ignore[no-untyped-call]  # JAX leaves it untyped


def total(tree: Any, axis: str | None) -> Any:
    """The sum of every array over the ranks: arrays of one format go together, since each talk of the ranks costs its time."""
    if axis is None:
        return tree
    leaves, form = jax.tree.flatten(tree)
    found = list(leaves)
    for dtype in dict.fromkeys(leaf.dtype for leaf in leaves):
        which = [i for i, leaf in enumerate(leaves) if leaf.dtype == dtype]
        flat = lax.psum(jnp.concatenate([leaves[i].reshape(-1) for i in which]), axis)  # type: ignore[no-untyped-call]  # JAX leaves it untyped
        ends = np.cumsum([leaves[i].size for i in which])
        for i, part in zip(which, jnp.split(flat, ends[:-1]), strict=True):
            found[i] = part.reshape(leaves[i].shape)
    return jax.tree.unflatten(form, found)


def average(tree: Any, axis: str | None) -> Any:
    """The mean of every array over the ranks."""
    return tree if axis is None else lax.pmean(tree, axis)  # type: ignore[no-untyped-call]  # JAX leaves it untyped


def of_first(tree: Any, axis: str | None) -> Any:
    """Rank 0's arrays."""
    if axis is None:
        return tree
    own = jax.tree.map(lambda x: jnp.where(lax.axis_index(axis) == 0, x, jnp.zeros_like(x)), tree)
    return total(own, axis)


def combined(mean: Array, var: Array, axis: str | None) -> tuple[Array, Array]:
    """Means and biased variances of all ranks' values by those of each (Chan, Golub and LeVeque, 1983)."""
    if axis is None:
        return mean, var
    means, variances = jnp.moveaxis(lax.all_gather(jnp.stack([mean, var]), axis), 1, 0)
    whole = means.mean(axis=0)
    return whole, (variances + (means - whole) ** 2).mean(axis=0)


def on_host(value: Array) -> NDArray[Any]:
    """This process's part of an array, its shards one after another along the axis that is split."""
    if value.is_fully_addressable or value.is_fully_replicated:
        return np.array(value)
    spec = value.sharding.spec  # type: ignore[attr-defined]  # of a NamedSharding
    axis = list(spec).index(AXIS)
    shards = sorted(value.addressable_shards, key=lambda shard: shard.index[axis].start or 0)
    return np.concatenate([np.array(shard.data) for shard in shards], axis=axis)
