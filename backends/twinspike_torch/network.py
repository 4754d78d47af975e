"""Both twins of a network description as one nn.Module (methods' exact rewrites included).

Every layer runs once per batch with time folded in. What depends on a static image alone, up to the
first neurons, is computed once for all T steps; heads, being linear, follow the reduction over time.
Both are exact: sums over equal or linear terms are exchanged, nothing is approximated.
"""

from __future__ import annotations

from functools import reduce
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from twinspike.config import Method, Twin
from twinspike.network import INPUT, Activation, Conv, Layer, Linear, Network, Norm, infer_shapes
from twinspike.parameters import initial_state, is_factored, kernel_shape, layout
from twinspike_torch.compiling import stacked
from twinspike_torch.convolution import channels_last, factors_pay
from twinspike_torch.execution import Found, Held, Tap, Values, Way, run
from twinspike_torch.factorization import Factors
from twinspike_torch.lif_func import refuse_transforms
from twinspike_torch.lif_kernels import Kernel
from twinspike_torch.neuron import LIF
from twinspike_torch.norm import TwinBatchNorm
from twinspike_torch.norm_activation import serves
from twinspike_torch.plan import Node, Segment, plan
from twinspike_torch.precision import autocast_dtype
from twinspike_torch.replicas import Ranks
from twinspike_torch.weights import FactorizedConv2d, FactorizedLinear, TwinConv2d, TwinLinear

Kernels = tuple[Tensor | Factors, Tensor | Factors]
"""A layer's kernels of both twins, the artificial one's first; factors where a convolution takes these."""


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
    recompute: bool = False,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> TwinNetwork:
    """Make a network with the specification's initial values.

    Args:
        network: the graph, of `twinspike.network(...)` or one's own.
        method: all options; the default is the paper's method.
        seed: of the initial values, in [0, 2^64).
        recompute: whether each block runs again in the backward pass instead of keeping its inner values.
        device: of parameters and statistics.
        dtype: of parameters and statistics; torch's default dtype if not given.
    """
    return TwinNetwork(network, method, seed=seed, recompute=recompute, device=device, dtype=dtype)


class TwinNetwork(nn.Module):
    """A network's two twins; `state_dict()` has the names of `twinspike.layout`."""

    def __init__(
        self,
        network: Network,
        method: Method | None = None,
        *,
        seed: int = 0,
        activations: torch.dtype | None = None,
        recompute: bool = False,
        kernel: Kernel = "auto",
        ranks: Ranks | None = None,
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
            recompute: whether each block runs again in the backward pass instead of keeping its inner values:
                less memory for a third more time, and the same results.
            kernel: who computes the neurons, as of `lif`.
            ranks: those with which norms share their statistics in training, unless these are local (clause DEV-3).
            device: of parameters and statistics.
            dtype: of parameters and statistics.
        """
        super().__init__()
        self.network = network
        self.method = Method() if method is None else method
        self._activations = activations
        self._plan = plan(network)
        self.recompute = recompute
        self.kernel: Kernel = kernel
        self._ranks = ranks if self.method.batch_norm.replicas == "synchronized" else None
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
        refuse_transforms("TwinNetwork", "LIF, lif and spike alone are for torch.func; use torch.autograd.grad")
        return self.run(images, spike_rates=spike_rates)

    def extra_repr(self) -> str:
        """Sizes, for `print`."""
        trained = {name: value.numel() for name, value in self.named_parameters()}
        shared = sum(size for name, size in trained.items() if name.rpartition(".")[2] in ("U", "V", "bias"))
        shape = "x".join(map(str, self.network.input_shape))
        kind = "events" if self.network.event else "images"
        exits, neurons, statistics = (
            len(self.network.exits),
            len(self.network.activations),
            sum(b.numel() for b in self.buffers()),
        )
        return (
            f"{self.network.name}: {kind} {shape}, T = {self.method.time_steps}, {self.network.classes} classes, {exits} exits, "
            f"{neurons} layers of neurons, {sum(trained.values()):,} parameters ({shared:,} shared), {statistics:,} statistics"
        )

    def run(self, images: Tensor, *, spike_rates: bool = False, tap: Tap | None = None) -> TwinOutput:
        """As calling the network, with a tap that sees every layer's output."""
        still = images.mean(0) if self.network.event else None
        if still is not None and still.ndim == 4 and still.device.type == "cuda":
            still = channels_last(still)  # which a mean has not, though the images had
        if self._activations is not None:
            still, images = None if still is None else still.to(self._activations), images.to(self._activations)
        isolate = self.method.loss.isolate_ann
        weighted = (node for segment in self._plan for node in segment.nodes if node.kind in ("conv", "linear", "head"))
        batch = images.shape[1 if self.network.event else 0]
        kernels = {node.name: self._of(node).kernels(isolate=isolate, **self._composed(node, batch)) for node in weighted}
        ann = self._run("ann", images if still is None else still, kernels, False, tap)
        snn = self._run("snn", images, kernels, spike_rates, tap)
        ends = [(exit_.head, exit_.feature) for exit_ in self.network.exits]
        return TwinOutput(
            logits_ann=stacked([ann.logits[head] for head, _ in ends]),
            logits_snn=stacked([snn.logits[head] for head, _ in ends], dim=-3),
            features_ann=stacked([ann.features[feature] for _, feature in ends]),
            features_snn=stacked([snn.features[feature] for _, feature in ends]),
            spike_rates=stacked(list(snn.rates.values())) if snn.rates else None,
        )

    def _run(self, twin: Twin, x: Tensor, kernels: dict[str, Kernels], spike_rates: bool, tap: Tap | None) -> Found:
        """One twin's layers, segment by segment; its running statistics move, once, in training."""
        plain = tap is None and self.training and torch.is_grad_enabled()
        recompute = plain and self.recompute
        # Elsewhere computing again costs more than memory that is there; a compiler plans for itself what to keep.
        # With ranks it would ask them once more.
        thrifty = plain and self._ranks is None and not recompute and x.device.type == "cpu" and not torch.compiler.is_compiling()
        joined = tap is None and self.training and self._ranks is None and serves(self.method, self.kernel, x.device)
        way = Way(
            *(self.method, twin, self._activations, self.training, spike_rates, thrifty and not joined),
            *(self.kernel, self._ranks, joined),
        )
        values, total = Values({INPUT: x}), Found({}, {}, {}, {})
        for segment in self._plan:
            held = {node.name: self._held(node, twin, kernels) for node in segment.nodes}
            if recompute:
                found, written = _checkpointed(segment, way, held, [values.values[name] for name in segment.reads])
                values.values.update(zip(segment.writes, written, strict=True))
                values.drop(segment.last)
            else:
                found = run(segment.nodes, way, held, values, tap)
            total.update(found)
        self._move(twin, total.moved)
        return total

    @torch.no_grad()
    def _move(self, twin: Twin, moved: dict[str, tuple[Tensor, Tensor]]) -> None:
        """Take over running statistics, a few kernels for all of them."""
        if moved:  # in the order in which norms were computed, which is not that of the layers where activations compute them
            nodes = {node.name: node for segment in self._plan for node in segment.nodes}
            old: list[Tensor] = [s for name in moved for s in self._of(nodes[name]).of(twin)[2:]]
            torch._foreach_copy_(old, [value for pair in moved.values() for value in pair])

    def _composed(self, node: Node, batch: int) -> dict[str, tuple[bool, bool]]:
        """Which twins' kernels of a layer are to be composed, as an argument of its `kernels`: none where all are."""
        layer = self._of(node)
        if not isinstance(layer, FactorizedConv2d) or not self.training or not torch.is_grad_enabled():
            return {}
        reduced = self._activations is not None or autocast_dtype(layer.U.device.type) is not None
        per_tap = layer.factorization.matricize == "per_position"
        if layer.U.device.type != "cpu" or torch.compiler.is_compiling() or reduced or not per_tap:
            return {}
        steps = 1 if node.static else self.method.time_steps
        ann, snn = (not factors_pay(layer.U.shape, layer.V.shape, node.pixels * n) for n in (batch, steps * batch))
        return {"composed": (ann, snn)}

    def _held(self, node: Node, twin: Twin, kernels: dict[str, Kernels]) -> Held:
        """A layer's tensors as a twin sees them."""
        isolated = twin == "snn" and self.method.loss.isolate_ann
        if node.kind in ("conv", "linear", "head"):
            kernel = kernels[node.name][twin == "snn"]
            if isinstance(kernel, Factors):
                return kernel
            if node.kind == "conv":
                return (kernel,)
            bias = self._of(node).bias
            return kernel, bias.detach() if isolated else bias
        if node.kind == "norm":
            statistics: Held = self._of(node).of(twin)
            return statistics
        if node.kind == "activation":
            neurons = self._of(node)
            return neurons.decay, neurons.threshold
        return ()

    def _of(self, node: Node) -> Any:
        # Not through attributes: a layer may be called `train`, or `1`.
        return reduce(lambda module, part: cast(nn.Module, module._modules[part]), node.path, cast(nn.Module, self))


def _checkpointed(segment: Segment, way: Way, held: dict[str, Held], xs: list[Tensor]) -> tuple[Found, list[Tensor]]:
    """A segment that keeps nothing but what it reads, and the values that it writes."""

    def body(*xs: Tensor) -> tuple[Found, list[Tensor]]:
        values = Values(dict(zip(segment.reads, xs, strict=True)))
        found = run(segment.nodes, way, held, values, None)
        return found, [values.values[name] for name in segment.writes]

    outcome: tuple[Found, list[Tensor]] = checkpoint(body, *xs, use_reentrant=False, preserve_rng_state=False)
    return outcome


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
