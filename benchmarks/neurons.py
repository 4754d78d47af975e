"""One LIF layer forward and backward, by this project's backends, by a plain loop, by C, and by other libraries.

Each maker takes currents and the gradient of the spikes, NumPy (T, B, C), and gives a `Runner`. Others
are set as near to the paper's neuron (decay 1/4, threshold 1/2, hard reset, rectangle of width 1) as they
allow; `differs` says in what they are not that neuron.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

import twinspike as ts

Values = NDArray[np.float32]


class Runner(NamedTuple):
    """What is timed, and what it computes."""

    call: Callable[[], object]
    """Forward and backward once; returns when done."""
    spikes: Callable[[], Values]
    """What the forward pass gives, to hold against the reference."""
    gradient: Callable[[], Values]
    """Of the currents."""


Maker = Callable[[Values, Values], Runner]


class Variant(NamedTuple):
    """One way to compute the layer."""

    make: Maker
    package: str
    """Which must be there."""
    settings: str
    differs: str = ""
    """In what it is another neuron than the paper's."""


def torch_runner(layer: Callable[[Any], Any]) -> Maker:
    """Spikes and gradient by torch's autograd; `layer` maps currents to spikes."""

    def make(x: Values, g: Values) -> Runner:
        import torch

        leaf, seed = torch.from_numpy(x).requires_grad_(), torch.from_numpy(g)
        return Runner(
            lambda: torch.autograd.grad(layer(leaf), leaf, seed),
            lambda: np.asarray(layer(leaf).detach().numpy()),
            lambda: np.asarray(torch.autograd.grad(layer(leaf), leaf, seed)[0].numpy()),
        )

    return make


def jax_runner(layer: Callable[[Any], Any]) -> Maker:
    """The same under `jit`, forward and backward compiled together."""

    def make(x: Values, g: Values) -> Runner:
        jax: Any = import_module("jax")

        @jax.jit  # type: ignore[untyped-decorator]  # jax types parts of itself only
        def both(current: Any, seed: Any) -> Any:
            spikes, pull = jax.vjp(layer, current)
            return spikes, pull(seed)

        current, seed = jax.device_put(x), jax.device_put(g)
        return Runner(
            lambda: jax.block_until_ready(both(current, seed)),
            lambda: np.asarray(both(current, seed)[0]),
            lambda: np.asarray(both(current, seed)[1][0]),
        )

    return make


def our_torch(neuron: ts.Neuron, compiled: bool = False, kernel: Literal["auto", "plain"] = "auto") -> Maker:
    """`twinspike_torch.LIF`, by the kernel that it chooses or by torch's own operations."""

    def make(x: Values, g: Values) -> Runner:
        import torch

        from twinspike_torch import LIF

        layer = LIF(neuron, channels=x.shape[2], kernel=kernel)
        run: Callable[[Any], Any] = lambda current: layer(current).s  # noqa: E731 - one of two
        run = torch.compile(run, fullgraph=True, dynamic=False) if compiled else run
        learned = list(layer.parameters())
        runner = torch_runner(run)(x, g)
        if not learned:
            return runner
        leaf, seed = torch.from_numpy(x).requires_grad_(), torch.from_numpy(g)
        return runner._replace(call=lambda: torch.autograd.grad(run(leaf), [leaf, *learned], seed))

    return make


def our_jax(neuron: ts.Neuron) -> Maker:
    """`twinspike_jax.lif`."""

    def make(x: Values, g: Values) -> Runner:
        from twinspike_jax import lif

        jax: Any = import_module("jax")

        learned = {}
        for quantity in ("decay", "threshold"):
            scope = getattr(neuron, f"{quantity}_scope")
            if scope != "constant":
                learned[quantity] = np.full((x.shape[2],) if scope == "channel" else (), getattr(neuron, quantity), np.float32)

        @jax.jit  # type: ignore[untyped-decorator]  # as above
        def both(current: Any, quantities: Any, seed: Any) -> Any:
            spikes, pull = jax.vjp(lambda a, q: lif(a, neuron=neuron, **q)[0], current, quantities)
            return spikes, pull(seed)

        inputs = jax.device_put((x, learned, g))
        return Runner(
            lambda: jax.block_until_ready(both(*inputs)),
            lambda: np.asarray(both(*inputs)[0]),
            lambda: np.asarray(both(*inputs)[1][0]),
        )

    return make


def _plain_loop(x: Values, g: Values) -> Runner:
    """The neuron as a user of torch writes it: a surrogate as an autograd function, and a loop over time."""
    import torch

    class Fire(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, z: torch.Tensor) -> torch.Tensor:
            ctx.save_for_backward(z)
            return (z >= 0).to(z.dtype)

        @staticmethod
        def backward(ctx: Any, g: torch.Tensor) -> Any:
            (z,) = ctx.saved_tensors
            return g * (z.abs() < 0.5).to(g.dtype)

    def layer(current: torch.Tensor) -> torch.Tensor:
        v, spikes = torch.zeros_like(current[0]), []
        for step in current:
            v = 0.25 * v + step
            s: torch.Tensor = Fire.apply(v - 0.5)  # type: ignore[no-untyped-call]  # torch types no apply
            v = v * (1 - s)
            spikes.append(s)
        return torch.stack(spikes)

    return torch_runner(layer)(x, g)


def _spikingjelly(x: Values, g: Values) -> Runner:
    functional, neuron, surrogate = (
        import_module(f"spikingjelly.activation_based.{name}") for name in ("functional", "neuron", "surrogate")
    )
    settings = {"tau": 4 / 3, "decay_input": False, "v_threshold": 0.5, "v_reset": 0.0, "step_mode": "m"}
    layer = neuron.LIFNode(surrogate_function=surrogate.Rect(), **settings)

    def run(current: Any) -> Any:
        functional.reset_net(layer)
        return layer(current)

    return torch_runner(run)(x, g)


def _snntorch(x: Values, g: Values) -> Runner:
    import torch

    surrogate = import_module("snntorch.surrogate")
    layer = import_module("snntorch").Leaky(beta=0.25, threshold=0.5, spike_grad=surrogate.atan(), reset_mechanism="zero")

    def run(current: Any) -> Any:
        v, spikes = layer.reset_mem(), []
        for step in current:
            s, v = layer(step, v)
            spikes.append(s)
        return torch.stack(spikes)

    return torch_runner(run)(x, g)


def _norse(x: Values, g: Values) -> Runner:
    import torch

    box = import_module("norse.torch.functional.lif_box")
    cell = import_module("norse.torch.module.lif_box").LIFBoxCell
    layer = import_module("norse.torch").Lift(cell(box.LIFBoxParameters(tau_mem_inv=torch.tensor(750.0), v_th=torch.tensor(0.5))))
    return torch_runner(lambda current: layer(current / 0.75)[0])(x, g)


def _spyx(x: Values, g: Values) -> Runner:
    nn, boxcar = import_module("spyx.nn"), import_module("spyx.axn").boxcar
    rngs = import_module("flax.nnx").Rngs(0)
    layer = nn.LIF(x.shape[2:], beta=0.25, threshold=0.5, activation=boxcar(width=1.0, height=1.0), rngs=rngs)
    return jax_runner(lambda current: nn.run(layer, current)[0])(x, g)


@cache
def _library(openmp: bool) -> ctypes.CDLL:
    """The C file, compiled for this machine."""
    folder = Path(tempfile.mkdtemp())
    command = ["cc", "-O3", "-march=native", "-ffp-contract=off", "-shared", "-fPIC", "-o", str(folder / "lif.so")]
    source = Path(__file__).with_name("lif.c")
    subprocess.run([*command, *(["-fopenmp"] if openmp else []), str(source)], check=True)
    found = ctypes.CDLL(str(folder / "lif.so"))
    shutil.rmtree(folder)
    return found


def c_loop(threads: int) -> Maker:
    """`lif.c`, into arrays that are there beforehand."""

    def make(x: Values, g: Values) -> Runner:
        library = _library(threads > 1)
        s, dx = np.empty_like(x), np.empty_like(x)
        steps, n = ctypes.c_long(len(x)), ctypes.c_long(x[0].size)
        x_, g_, s_, dx_ = (a.ctypes.data_as(ctypes.c_void_p) for a in (x, g, s, dx))

        def call() -> None:
            library.lif_forward(steps, n, x_, s_, threads)
            library.lif_backward(steps, n, x_, g_, dx_, threads)

        def after(a: Values) -> Values:
            call()
            return a

        return Runner(call, lambda: after(s), lambda: after(dx))

    return make


def variants(threads: int) -> Mapping[str, Variant]:
    """All that can be measured here, by name; the first is what others are compared with."""
    paper = ts.Neuron()
    every = {
        "torch": Variant(our_torch(paper), "torch", "twinspike_torch.LIF, eager"),
        "torch, plain kernel": Variant(our_torch(paper, kernel="plain"), "torch", "the same by torch's own operations, eager"),
        "torch compiled": Variant(our_torch(paper, compiled=True), "torch", "twinspike_torch.LIF under torch.compile"),
        "jax": Variant(our_jax(paper), "jax", "twinspike_jax.lif under jit"),
        "C loop": Variant(c_loop(threads), "", "benchmarks/lif.c, cc -O3 -march=native, no allocation"),
        "plain torch loop": Variant(_plain_loop, "torch", "one autograd function and a Python loop over time"),
        "SpikingJelly": Variant(_spikingjelly, "spikingjelly", "LIFNode(tau=4/3, decay_input=False, Rect), multi-step, torch"),
        "snnTorch": Variant(_snntorch, "snntorch", "Leaky(beta=0.25, reset zero, atan), loop", "fires at >; arctan surrogate"),
        "Norse": Variant(
            _norse, "norse", "Lift(LIFBoxCell), current / 0.75", "fires at >; SuperSpike surrogate; one division more"
        ),
        "spyx": Variant(_spyx, "spyx", "nn.LIF(boxcar) by nn.run under jit", "fires at >; soft reset, one step late"),
    }
    return {name: v for name, v in every.items() if (find_spec(v.package) if v.package else shutil.which("cc"))}


def kernels() -> dict[str, dict[str, str]]:
    """Which kernel serves which case, as the backends say it."""
    return {name: ts.load(name).capabilities().kernels for name in ("torch", "jax") if find_spec(name)}
