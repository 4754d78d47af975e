"""Backend and session: this package behind the contract of the specification.

A session places every array on its own device and runs in its own formats, whatever JAX's settings are; the user's
settings are never changed.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from typing import Any, final

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

import twinspike
from twinspike.backend import Capabilities
from twinspike.checks import check_claim, check_cotangents, check_differentiable, check_finite, check_operation, shapes_of
from twinspike.config import Method, Optimizer
from twinspike.errors import require
from twinspike.network import Network
from twinspike.operations import OPERATIONS, operation
from twinspike.precision import PRECISIONS
from twinspike.replicas import Rendezvous
from twinspike_jax import factorization, neuron_kernels, products
from twinspike_jax.compile_cache import keep_compiled, obstacle
from twinspike_jax.operations import ROWS
from twinspike_jax.piecewise import Pieces
from twinspike_jax.precision import Policy, arithmetic, policy
from twinspike_jax.program import JaxProgram
from twinspike_jax.replicas import Ranks, at_work, joined

Values = NDArray[Any]
Arrays = dict[str, Array]

PROGRAMS = 64
"""How many programs a session keeps, the latest; each holds what was compiled for it."""
ROWS_KEPT = 256
"""How many operations with a config a session that is not compiled keeps, forward and with gradients, likewise."""


def _devices(kind: str) -> list[jax.Device]:
    try:
        found: list[jax.Device] = jax.local_devices(backend=kind)
        return found
    except RuntimeError:  # JAX's way to say that there is none
        return []


@final
class JaxBackend:
    """JAX on the CPU and on CUDA devices that it sees."""

    name = "jax"
    launcher: tuple[str, ...] = ()

    def capabilities(self) -> Capabilities:
        """All operations and networks; tf32 only where there is a CUDA device."""
        cuda = _devices("cuda")
        versions = {
            "jax": jax.__version__,
            "jaxlib": version("jaxlib"),
            "optax": version("optax"),
            "numpy": np.__version__,
            "python": platform.python_version(),
            "twinspike": twinspike.__version__,
        }
        if cuda:
            versions["cuda device"] = cuda[0].device_kind
        return Capabilities(
            operations=frozenset(ROWS),
            networks=True,
            precisions=frozenset(PRECISIONS) if cuda else frozenset(PRECISIONS) - {"tf32"},
            devices=("cpu", "cuda") if cuda else ("cpu",),
            compiled=True,
            replicas="devices",
            prefers_compiled=True,
            versions=versions,
            kernels={
                f"{what} on {where}": kernel
                for what, module in (("lif", neuron_kernels), ("products", products))
                for where, kernel in module.served().items()
            }
            | ({} if (why := obstacle()) is None else {"compiled sessions": f"XLA, compiled anew by each process: {why}"}),
            specification=twinspike.__version__,
        )

    def session(self, device: str = "cpu", precision: str = "f32-ieee", compiled: bool = False) -> JaxSession:
        """Open a device.

        Args:
            device: `cpu`, or `cuda`, or `cuda:1` and so on.
            precision: a profile's name; `tf32` is for CUDA devices.
            compiled: whether programs are compiled whole, with all optimizations; else so that they answer soon.

        Raises:
            SpecError: the device or precision is not there.
        """
        check_claim(self.name, self.capabilities(), device, precision, compiled)
        kind, _, index = device.partition(":")
        there = _devices(kind)
        do = "see JAX_PLATFORMS and jax.config.jax_platforms"
        require(bool(there), f"device of backend {self.name!r}", expected=f"a {kind} that JAX can use", got="none", do=do)
        inside = not index or (index.isdecimal() and int(index) < len(there))
        require(inside, f"device of backend {self.name!r}", expected=f"{kind}:0 to {kind}:{len(there) - 1}", got=device)
        require(precision != "tf32" or kind == "cuda", f"precision of device {device!r}", expected="no tf32", got=precision)
        if compiled:
            keep_compiled()
        return JaxSession(device, precision, compiled, there[int(index or 0)])

    def join(self, device: str, devices: int, at: Rendezvous | None) -> None:
        """Meet the others and see to the host's devices, before JAX looks for any."""
        joined(device, devices, at)

    def replicated(
        self,
        device: str = "cpu",
        precision: str = "f32-ieee",
        compiled: bool = False,
        *,
        devices: int = 1,
        at: Rendezvous | None = None,
    ) -> JaxSession:
        """Open devices of this process, together with those of the others that meet.

        JAX counts the devices of a host once: where several of the CPU are wanted, this must come before all else that asks
        for devices, or XLA_FLAGS have said their number. What is not compiled whole is compiled so that each primitive is
        rounded by itself.

        Raises:
            SpecError: the devices, the precision or the mode are not there, or the others can't be met.
        """
        require(devices >= 1, f"devices of a process of backend {self.name!r}", expected="a whole number >= 1", got=devices)
        require(device in ("cpu", "cuda"), f"device of backend {self.name!r}", expected="cpu or cuda", got=device)
        ranks = joined(device, devices, at)
        check_claim(self.name, self.capabilities(), device, precision, compiled)
        if compiled:
            keep_compiled()
        return JaxSession(device, precision, compiled, ranks.here.devices.flat[0], ranks)


@final
class JaxSession:
    """Operations on `jax.Array`s of one device in one precision."""

    def __init__(self, device: str, precision: str, compiled: bool, placed: jax.Device, ranks: Ranks | None = None) -> None:
        self.device = device
        self.precision = precision
        self.compiled = compiled
        self._placed, self._ranks = placed, ranks
        self.rank, self.world_size = 0 if ranks is None else ranks.rank, 1 if ranks is None else ranks.world_size
        self.replicas = 1 if ranks is None else ranks.replicas
        self._casts = policy(precision)
        self._pieces: dict[Any, Pieces] = {}
        self._programs: dict[Any, JaxProgram] = {}

    def gather(self, values: Values) -> Values:
        """Every process's values, in order of rank along a new first axis."""
        return np.array(values)[None] if self._ranks is None else self._ranks.gather(np.asarray(values))

    def close(self) -> None:
        """Leave the other processes."""
        if self._ranks is not None and self.world_size > 1:
            jax.distributed.shutdown()  # type: ignore[no-untyped-call]  # JAX leaves it untyped

    def flags(self) -> dict[str, str]:
        """The widest format and the precision of products inside this session's entry points."""
        with arithmetic(self._casts.storage, self._placed):
            widest = jax.dtypes.canonicalize_dtype(np.float64).name
        return {"widest format": widest, "product precision": self._casts.product.name}

    def from_numpy(self, values: Values) -> Array:
        """A copy on the device: floats in the storage format, integers as int64, or int32 outside `f64`."""
        values = np.asarray(values)
        require(values.dtype.kind in "fiu", "array", expected="floats or integers", got=str(values.dtype))
        with arithmetic(self._casts.storage, self._placed):
            whole = np.int64 if self._casts.storage == "float64" else np.int32
            kind = np.dtype(self._casts.storage) if values.dtype.kind == "f" else np.dtype(whole)
            # copied before, since JAX may share the memory of a NumPy array that its owner still changes
            placed: Array = jax.device_put(np.array(values, dtype=kind, order="C"), self._placed)
            return placed

    def to_numpy(self, tensor: Array) -> Values:
        """A copy on the host; bfloat16 comes as float32."""
        with at_work(self._casts.storage, self._placed, self._ranks):
            return np.array(tensor.astype(jnp.float32) if tensor.dtype == jnp.bfloat16 else tensor)

    def forward(self, operation: str, config: Any, inputs: Mapping[str, Array]) -> Arrays:
        """Outputs by name.

        Raises:
            SpecError: config or inputs don't fit the operation's row.
        """
        _check(operation, config, inputs)
        with arithmetic(self._casts.storage, self._placed):
            check_finite(operation, lambda key: bool(jnp.isfinite(inputs[key]).all()))
            if operation == "factorize":  # its rank may depend on values, which jit does not see
                rank = factorization.rank_of(inputs["kernel"], factorization=config)
                config = twinspike.Factorization(**{**_fields(config), "rank": rank})
            return dict(self._run(_forward, operation, config, dict(inputs)))

    def vjp(
        self, operation: str, config: Any, inputs: Mapping[str, Array], cotangents: Mapping[str, Array]
    ) -> tuple[Arrays, Arrays]:
        """Outputs, and the gradients of the differentiable inputs that were given.

        Raises:
            SpecError: config, inputs or cotangents don't fit the row, or it has no gradient.
        """
        _check(operation, config, inputs)
        check_differentiable(operation)
        with arithmetic(self._casts.storage, self._placed):
            shapes = jax.eval_shape(lambda a: _forward(operation, config, self._casts, a), dict(inputs))
            floating = {name: bool(jnp.issubdtype(g.dtype, jnp.floating)) for name, g in cotangents.items()}
            check_cotangents(operation, shapes_of(cotangents), floating, shapes_of(shapes))
            outputs, gradients = self._run(_vjp, operation, config, dict(inputs), dict(cotangents))
            return dict(outputs), dict(gradients)

    def _run(self, function: Callable[..., Any], operation: str, config: Any, *arrays: Arrays) -> Any:
        """A row forward or with gradients, compiled whole or as a plan of small programs."""
        if self.compiled:
            return _COMPILED[function](operation, config, self._casts, *arrays)
        key = function, operation, config
        if key not in self._pieces:
            if len(self._pieces) == ROWS_KEPT:
                del self._pieces[next(iter(self._pieces))]
            self._pieces[key] = Pieces(partial(function, operation, config, self._casts), self._placed)
        return self._pieces[key](*arrays)

    def program(self, network: Network, method: Method, optimizer: Optimizer, *, recompute: bool = False) -> JaxProgram:
        """The network, ready to train; `recompute` has each block run again in the backward pass.

        Programs are pure, so that one serves all who ask for the same.
        """
        key = network, method, optimizer, recompute
        if key not in self._programs:
            if len(self._programs) == PROGRAMS:
                del self._programs[next(iter(self._programs))]
            form: dict[str, Any] = {
                "casts": self._casts,
                "device": self._placed,
                "compiled": self.compiled,
                "recompute": recompute,
            }
            form["ranks"] = self._ranks
            with arithmetic(self._casts.storage, self._placed):
                self._programs[key] = JaxProgram(network, method, optimizer, **form)
        return self._programs[key]


def _fields(config: Any) -> dict[str, Any]:
    return {name: getattr(config, name) for name in config.__struct_fields__}


def _check(name: str, config: Any, inputs: Mapping[str, Array]) -> None:
    operation(name)
    for key, value in inputs.items():
        fits = isinstance(value, jax.Array)
        require(fits, f"{name}.{key}", expected="an array of this session", got=type(value).__name__)
    floating = {key: bool(jnp.issubdtype(value.dtype, jnp.floating)) for key, value in inputs.items()}
    check_operation(name, config, shapes_of(inputs), floating)


def _forward(name: str, config: Any, casts: Policy, inputs: Arrays) -> Arrays:
    return ROWS[name](config, inputs, casts)


def _vjp(name: str, config: Any, casts: Policy, inputs: Arrays, cotangents: Arrays) -> tuple[Arrays, Arrays]:
    row = OPERATIONS[name]
    moving = {key: value for key, value in inputs.items() if key in row.differentiable}
    fixed = {key: value for key, value in inputs.items() if key not in row.differentiable}

    def run(moving: Arrays) -> tuple[Arrays, Arrays]:
        outputs = _forward(name, config, casts, {**fixed, **moving})
        return {key: outputs[key] for key in row.cotangents}, outputs

    ends, pull, outputs = jax.vjp(run, moving, has_aux=True)
    given = {key: cotangents[key].astype(end.dtype) if key in cotangents else jnp.zeros_like(end) for key, end in ends.items()}
    return outputs, pull(given)[0]


_COMPILED: dict[Callable[..., Any], Callable[..., Any]] = {
    function: jax.jit(function, static_argnums=(0, 1, 2)) for function in (_forward, _vjp)
}
