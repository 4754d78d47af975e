"""Both twins of a network description as one nn.Module (methods' exact rewrites included).

Every layer runs once per batch with time folded in. What depends on a static image alone, up to the
first neurons, is computed once for all T steps; heads, being linear, follow the reduction over time.
Both are exact: sums over equal or linear terms are exchanged, nothing is approximated.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from twinspike.config import Method, Twin
from twinspike.network import INPUT, Activation, Add, AvgPool, Conv, Layer, Linear, Network, Norm, infer_shapes, inputs_of
from twinspike.parameters import initial_state, is_factored, kernel_shape, layout
from twinspike_torch.factorization import Factors
from twinspike_torch.neuron import LIF
from twinspike_torch.norm import TwinBatchNorm
from twinspike_torch.weights import FactorizedConv2d, FactorizedLinear, TwinConv2d, TwinLinear, fold, readout, unfold

Tap = Callable[[str, Twin, Tensor, Tensor | None], None]
"""Receives a layer's name, the twin, its output, and potentials of neurons; the spiking twin's output is
(T, B, ...), or (B, ...) where it is the same at every step."""


class TwinOutput(NamedTuple):
    """What a network gives; N exits, B samples, K classes, F features, L activation layers."""

    logits_ann: Tensor
    """(N, B, K)."""
    logits_snn: Tensor
    """(N, B, K), reduced over time; (T, N, B, K), unreduced, where the method's loss is per step."""
    features_ann: Tensor
    """(N, B, F)."""
    features_snn: Tensor
    """(N, B, F), reduced over time."""
    spike_rates: Tensor | None
    """(L,) spikes per neuron and time step of each activation layer, where asked for."""


def build(
    network: Network,
    method: Method | None = None,
    *,
    seed: int = 0,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> TwinNetwork:
    """Make a network with the specification's initial values.

    Args:
        network: the graph, of `twinspike.network(...)` or one's own.
        method: all options; the default is the paper's method.
        seed: of the initial values, in [0, 2^64).
        device: of parameters and statistics.
        dtype: of parameters and statistics; torch's default dtype if not given.
    """
    return TwinNetwork(network, method, seed=seed, device=device, dtype=dtype)


class TwinNetwork(nn.Module):
    """A network's two twins; `state_dict()` has the names of `twinspike.layout`."""

    def __init__(
        self,
        network: Network,
        method: Method | None = None,
        *,
        seed: int = 0,
        activations: torch.dtype | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Make a network with the specification's initial values (none are drawn on device `meta`).

        Args:
            network: the graph.
            method: all options; the default is the paper's method.
            seed: of the initial values.
            activations: dtype of what layers hand on, where it is lower than that of the parameters
                (clause PRE-2); None leaves it to the parameters' dtype or to autocast.
            device: of parameters and statistics.
            dtype: of parameters and statistics.
        """
        super().__init__()
        self.network = network
        self.method = Method() if method is None else method
        self._activations = activations
        self._plan = _plan(network)
        dtype = torch.get_default_dtype() if dtype is None else dtype
        entries = layout(network, self.method)
        if device is not None and torch.device(device).type == "meta":
            values = {e.name: torch.empty(e.shape, device="meta", dtype=dtype) for e in entries}
        else:
            drawn = initial_state(network, self.method, seed=seed)
            values = {name: torch.from_numpy(value).to(device=device, dtype=dtype) for name, value in drawn.items()}
        shapes = infer_shapes(network)
        for layer in network.layers:
            module = _module(layer, self.method, shapes, values, activations)
            if module is not None:
                _install(self, layer.name, module)
        if values[entries[0].name].device.type != "meta":
            self.load_state_dict(values)

    def forward(self, images: Tensor, *, spike_rates: bool = False) -> TwinOutput:
        """Run both twins; in training mode the running statistics of all norms move.

        Args:
            images: (B, C, H, W), or (T, B, C, H, W) for event networks.
            spike_rates: whether to measure them, one reduction per activation layer.
        """
        return self.run(images, spike_rates=spike_rates)

    def run(self, images: Tensor, *, spike_rates: bool = False, tap: Tap | None = None) -> TwinOutput:
        """As calling the network, with a tap that sees every layer's output."""
        still = images.mean(0) if self.network.event else images
        if self._activations is not None:
            still, images = still.to(self._activations), images.to(self._activations)
        logits_ann, features_ann = self._run_ann(still, tap)
        logits_snn, features_snn, rates = self._run_snn(images, spike_rates, tap)
        ends = [(exit_.head, exit_.feature) for exit_ in self.network.exits]
        return TwinOutput(
            logits_ann=torch.stack([logits_ann[head] for head, _ in ends]),
            logits_snn=torch.stack([logits_snn[head] for head, _ in ends], dim=-3),
            features_ann=torch.stack([features_ann[feature] for _, feature in ends]),
            features_snn=torch.stack([features_snn[feature] for _, feature in ends]),
            spike_rates=torch.stack(rates) if rates else None,
        )

    def _run_ann(self, x: Tensor, tap: Tap | None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        values, logits, features = {INPUT: x}, {}, {}
        for node in self._plan:
            x = values[node.inputs[0]]
            if node.kind == "activation":
                y = functional.relu(x)
            elif node.kind == "norm":
                y = self._of(node)(x, "ann")
            else:
                y = self._stateless(node, [values[name] for name in node.inputs], "ann")
            if node.kind == "head":
                logits[node.name] = _wide(y)
            if node.feature:
                features[node.name] = _wide(y)
            if tap is not None:
                tap(node.name, "ann", y, None)
            values[node.name] = y
            for name in node.last:
                del values[name]
        return logits, features

    def _run_snn(
        self, x: Tensor, spike_rates: bool, tap: Tap | None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], list[Tensor]]:
        """Values are (T, B, ...), or (B, ...) where `node.static` says that they are the same at every step."""
        steps, reduction = self.method.time_steps, self.method.readout
        values, logits, features = {INPUT: x}, {}, {}
        rates: list[Tensor] = []

        def reduced(y: Tensor, static: bool) -> Tensor:
            if static:
                return _wide(y) * steps if reduction == "sum" else _wide(y)
            return readout(_wide(y), reduction)

        for node in self._plan:
            x, static = values[node.inputs[0]], node.static_inputs[0]
            u: Tensor | None = None
            if node.kind == "activation":
                neurons = cast(LIF, self._of(node))
                x = x.expand(steps, *x.shape) if static else x
                if tap is None:
                    y = neurons(x).s
                else:
                    y, _, u = neurons.traced(x)
                if spike_rates:
                    rates.append(_wide(y.detach()).mean() if y.dtype != torch.bfloat16 else y.detach().mean(dtype=torch.float32))
            elif node.kind == "norm":
                y = self._of(node)(x, "snn", repeats=steps if static else None)
            elif node.kind == "head" and tap is None and not self.method.loss.per_step:
                times = steps if reduction == "sum" else 1
                y = self._of(node)(reduced(x, static), "snn", isolate=self.method.loss.isolate_ann, times=times)
                logits[node.name] = _wide(y)
            else:
                y = self._stateless(node, [values[name] for name in node.inputs], "snn")
                if node.kind == "head":
                    every_step = _wide(y.expand(steps, *y.shape) if node.static else y)
                    logits[node.name] = every_step if self.method.loss.per_step else readout(every_step, reduction)
            if node.feature:
                features[node.name] = reduced(y, node.static)
            if tap is not None:
                tap(node.name, "snn", y, u)
            values[node.name] = y
            for name in node.last:
                del values[name]
        return logits, features, rates

    def _stateless(self, node: _Node, xs: list[Tensor], twin: Twin) -> Tensor:
        """A layer that treats every sample and step alike."""
        x = xs[0]
        if node.kind == "add":
            return x + xs[1]
        if node.kind == "avg_pool":
            return unfold(functional.avg_pool2d(fold(x), *node.window), x.shape[:-3])
        if node.kind == "global_pool":
            return x.mean((-2, -1))
        y: Tensor = self._of(node)(x, twin, isolate=twin == "snn" and self.method.loss.isolate_ann)
        return y.to(self._activations) if self._activations is not None and node.kind == "linear" else y

    def _of(self, node: _Node) -> nn.Module:
        # Not through attributes: a layer may be called `train`, or `1`.
        return reduce(lambda module, part: cast(nn.Module, module._modules[part]), node.path, cast(nn.Module, self))


class _Node(NamedTuple):
    """One layer as the forward pass needs it."""

    name: str
    path: tuple[str, ...]
    kind: str
    inputs: tuple[str, ...]
    static_inputs: tuple[bool, ...]
    static: bool
    """Whether the spiking twin's output is the same at every step."""
    feature: bool
    """Whether an exit takes its feature from here."""
    window: tuple[int, int]
    """Kernel and stride of a pooling layer."""
    last: tuple[str, ...]
    """Values that no later layer reads."""


_KINDS = {Conv: "conv", Linear: "linear", Norm: "norm", Activation: "activation", Add: "add", AvgPool: "avg_pool"}


def _plan(network: Network) -> tuple[_Node, ...]:
    static = {INPUT: not network.event}
    heads, features = ({getattr(e, end) for e in network.exits} for end in ("head", "feature"))
    final = {name: i for i, layer in enumerate(network.layers) for name in (layer.name, *inputs_of(layer))}
    nodes = []
    for i, layer in enumerate(network.layers):
        inputs = inputs_of(layer)
        static[layer.name] = not isinstance(layer, Activation) and all(static[name] for name in inputs)
        nodes.append(
            _Node(
                name=layer.name,
                path=tuple(layer.name.split(".")),
                kind="head" if layer.name in heads else _KINDS.get(type(layer), "global_pool"),
                inputs=inputs,
                static_inputs=tuple(static[name] for name in inputs),
                static=static[layer.name],
                feature=layer.name in features,
                window=(layer.kernel, layer.stride) if isinstance(layer, AvgPool) else (1, 1),
                last=tuple(name for name in (layer.name, *dict.fromkeys(inputs)) if final[name] == i),
            )
        )
    return tuple(nodes)


def _module(
    layer: Layer, method: Method, shapes: dict[str, tuple[int, ...]], values: dict[str, Tensor], activations: torch.dtype | None
) -> nn.Module | None:
    """The module that holds a layer's parameters, shaped as `values` are; None where there are none to hold."""
    name, f = layer.name, method.factorization
    match layer:
        case Conv() | Linear():
            shape = kernel_shape(layer, shapes[layer.input])
            if is_factored(layer, f):
                factors = Factors(values[f"{name}.U"], values[f"{name}.sigma_ann"], values[f"{name}.V"])
                if isinstance(layer, Linear):
                    return FactorizedLinear(factors, shape, values[f"{name}.bias"], f)
                return FactorizedConv2d(factors, shape, f, stride=layer.stride, padding=layer.padding, operands=activations)
            kernel = values[f"{name}.weight_ann"]
            if isinstance(layer, Linear):
                return TwinLinear(kernel, values[f"{name}.bias"])
            return TwinConv2d(kernel, stride=layer.stride, padding=layer.padding, operands=activations)
        case Norm():
            gamma = values[f"{name}.gamma_ann"]
            return TwinBatchNorm(len(gamma), method.batch_norm, device=gamma.device, dtype=gamma.dtype)
        case Activation():
            like = next(iter(values.values()))
            return LIF(method.neuron, shapes[name][0], device=like.device, dtype=like.dtype)
        case _:
            return None


def _install(root: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module where its dotted name says, whatever came first: `main.hidden.act` or `main.hidden`."""
    *path, last = name.split(".")
    for part in path:
        root = cast(nn.Module, root._modules.setdefault(part, nn.Module()))
    container = root._modules.get(last)
    if container is not None:
        module._modules.update(container._modules)
    root._modules[last] = module


def _wide(y: Tensor) -> Tensor:
    """Readout, logits and losses are never of less than float32."""
    return y.to(torch.promote_types(y.dtype, torch.float32))
