"""Both twins over the graph and the way back, in the plainest form: every layer at every time step.

The image is repeated T times, each layer is applied to one step after another, and heads are applied
at every step before their logits are reduced. A twin is (T, B, ...) throughout, the artificial one
with T = 1 and ReLU, so that one function says what a layer does in either. Nothing is shared or
folded for speed: what backends may rewrite is measured against this.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from twinspike.config import TWINS, Method, Penalty, Twin
from twinspike.network import INPUT, Activation, Add, AvgPool, Conv, GlobalPool, Layer, Linear, Network, Norm
from twinspike.parameters import is_factored, kernel_shape, layer_and_part
from twinspike.reference import Array, factorization, layers, losses
from twinspike.reference.losses import Labels, Terms
from twinspike.reference.neuron import Trace, lif, lif_adjoint
from twinspike.reference.norm import batch_norm_eval, batch_norm_eval_adjoint
from twinspike.reference.replicas import batch_norm_train, batch_norm_train_adjoint

Values = Mapping[str, NDArray[Any]]
"""A state: names as in `parameters.layout`."""

Gradients = dict[str, Array]
"""Gradient of the loss by parameter name."""

SHARED = ("U", "V", "bias")
"""What both twins use, last parts of names (clauses FAC-7, LAY-3)."""


class TwinTape(NamedTuple):
    """What one twin computed."""

    outputs: dict[str, Array]
    """Layer, or `input`, -> its output (T, B, ...)."""
    traces: dict[str, Trace]
    """Activation layer -> potentials and spikes; empty for the artificial twin."""
    statistics: dict[str, Array]
    """Running statistics after the step, by name; empty in evaluation."""


class Tape(NamedTuple):
    """What both twins computed, and in which mode."""

    ann: TwinTape
    snn: TwinTape
    training: bool
    replicas: int = 1
    """Ranks that the batch is split among."""


class Exits(NamedTuple):
    """What the loss sees: N exits, S slices of time (T with `per_step`, else 1), B, K classes, F features."""

    logits_ann: Array
    """(N, B, K)."""
    logits_snn: Array
    """(S, N, B, K)."""
    features_ann: Array
    """(N, B, F)."""
    features_snn: Array
    """(N, B, F), reduced over time."""


def frames(network: Network, method: Method, twin: Twin, images: Array) -> Array:
    """What a twin sees, (T, B, C, H, W) or with T = 1 for the artificial twin (clauses INP-1, INP-2)."""
    if twin == "ann":
        return np.stack([images.mean(axis=0) if network.event else images])
    return images if network.event else np.stack([images] * method.time_steps)


def forward(
    network: Network, method: Method, state: Values, images: Array, *, training: bool, smooth: bool = False, replicas: int = 1
) -> Tape:
    """Run both twins.

    Args:
        network: the graph.
        method: the options.
        state: every parameter and running statistic, by name; its format is computed in.
        images: (B, C, H, W), or (T, B, C, H, W) for event networks.
        training: whether norms use the batch's statistics and move the running ones.
        smooth: replace spikes by the surrogate's primitive, which makes the network differentiable.
        replicas: N, ranks that the batch is split among, of which local batch norm alone knows (clause DEV-4).
    """
    images = images.astype(_format(state))
    ann, snn = (
        forward_twin(
            network,
            method,
            twin,
            state,
            frames(network, method, twin, images),
            training=training,
            smooth=smooth,
            replicas=replicas,
        )
        for twin in TWINS
    )
    return Tape(ann, snn, training, replicas)


def forward_twin(
    network: Network,
    method: Method,
    twin: Twin,
    state: Values,
    x: Array,
    *,
    training: bool,
    smooth: bool = False,
    replicas: int = 1,
) -> TwinTape:
    """Run one twin on its frames x, (T, B, C, H, W); other arguments as in `forward`."""
    tape = TwinTape({INPUT: x}, {}, {})
    for layer in network.layers:
        x, name = tape.outputs[layer.input], layer.name
        match layer:
            case Conv(stride=stride, padding=padding):
                weight = kernel(layer, method, twin, state, x)
                y = np.stack([layers.conv2d(x_t, weight, stride, padding) for x_t in x])
            case Linear():
                weight, bias = kernel(layer, method, twin, state, x), state[f"{name}.bias"]
                y = np.stack([layers.linear(x_t, weight, bias) for x_t in x])
            case Norm():
                arrays = [state[f"{name}.{quantity}_{twin}"] for quantity in ("gamma", "beta", "mean", "var")]
                if training:
                    y, mean, var = batch_norm_train(method.batch_norm, x, *arrays, replicas=replicas)
                    tape.statistics.update({f"{name}.mean_{twin}": mean, f"{name}.var_{twin}": var})
                else:
                    y = batch_norm_eval(method.batch_norm, x, *arrays)
            case Activation() if twin == "ann":
                y = layers.relu(x)
            case Activation():
                trace = lif(method.neuron, x, None, *_learned(name, state), smooth=smooth)
                tape.traces[name], y = trace, trace.s
            case Add(other=other):
                y = x + tape.outputs[other]
            case AvgPool(kernel=size, stride=stride):
                y = np.stack([layers.avg_pool(x_t, size, stride) for x_t in x])
            case GlobalPool():
                y = np.stack([layers.global_pool(x_t) for x_t in x])
        tape.outputs[name] = y
    return tape


def backward_twin(
    network: Network,
    method: Method,
    twin: Twin,
    state: Values,
    tape: TwinTape,
    seeds: Mapping[str, Array],
    *,
    training: bool,
    replicas: int = 1,
) -> tuple[Gradients, Gradients]:
    """Gradients of one twin's parameters, by name, and of every layer's output (T, B, ...), by layer.

    Args:
        network: the graph.
        method: the options.
        twin: which one ran.
        state: as given to `forward_twin`.
        tape: what it returned.
        seeds: layer -> gradient (T, B, ...) of the loss with respect to its output.
        training: as given to `forward_twin`, like `replicas`.
        replicas: likewise.
    """
    towards = dict(seeds)
    gradients: Gradients = {}
    for layer in reversed(network.layers):
        g, x, name = towards[layer.name], tape.outputs[layer.input], layer.name
        match layer:
            case Conv(stride=stride, padding=padding):
                w = kernel(layer, method, twin, state, x)
                per_step = [layers.conv2d_adjoint(x_t, w, g_t, stride, padding) for x_t, g_t in zip(x, g, strict=True)]
                d_x = np.stack([step[0] for step in per_step])
                gradients |= _kernel_adjoint(layer, method, twin, state, sum(step[1] for step in per_step))
            case Linear():
                w = kernel(layer, method, twin, state, x)
                steps = [layers.linear_adjoint(x_t, w, g_t) for x_t, g_t in zip(x, g, strict=True)]
                d_x = np.stack([step[0] for step in steps])
                gradients |= _kernel_adjoint(layer, method, twin, state, sum(step[1] for step in steps))
                gradients[f"{name}.bias"] = np.asarray(sum(step[2] for step in steps))
            case Norm():
                gamma, mean, var = (state[f"{name}.{quantity}_{twin}"] for quantity in ("gamma", "mean", "var"))
                if training:
                    d_x, d_gamma, d_beta = batch_norm_train_adjoint(method.batch_norm, x, gamma, g, replicas=replicas)
                else:
                    d_x, d_gamma, d_beta = batch_norm_eval_adjoint(method.batch_norm, x, gamma, mean, var, g)
                gradients |= {f"{name}.gamma_{twin}": d_gamma, f"{name}.beta_{twin}": d_beta}
            case Activation() if twin == "ann":
                d_x = layers.relu_adjoint(x, g)
            case Activation():
                d_x, _, d_decay, d_threshold = lif_adjoint(
                    method.neuron, x, tape.traces[name], g, None, None, *_learned(name, state)
                )
                learned = {f"{name}.decay": d_decay, f"{name}.threshold": d_threshold}
                gradients |= {key: value for key, value in learned.items() if value is not None}
            case Add(other=other):
                d_x = g
                towards[other] = towards[other] + g if other in towards else g
            case AvgPool(kernel=size, stride=stride):
                d_x = np.stack([layers.avg_pool_adjoint(x_t, g_t, size, stride) for x_t, g_t in zip(x, g, strict=True)])
            case GlobalPool():
                d_x = np.stack([layers.global_pool_adjoint(x_t, g_t) for x_t, g_t in zip(x, g, strict=True)])
        towards[layer.input] = towards[layer.input] + d_x if layer.input in towards else d_x
    return gradients, towards


def exits(network: Network, method: Method, tape: Tape) -> Exits:
    """Logits and features of both twins as the loss sees them (clauses OUT-1, OUT-2, DIS-8)."""

    def gather(twin: TwinTape, end: str, reduce: Callable[[Array], Array]) -> Array:
        return np.stack([reduce(twin.outputs[getattr(exit_, end)]) for exit_ in network.exits])

    def reduced(y: Array) -> Array:
        return layers.readout(y, method.readout)

    if method.loss.per_step:
        logits_snn = gather(tape.snn, "head", np.asarray).swapaxes(0, 1)
    else:
        logits_snn = gather(tape.snn, "head", reduced)[None]
    return Exits(
        logits_ann=gather(tape.ann, "head", lambda y: y[0]),
        logits_snn=logits_snn,
        features_ann=gather(tape.ann, "feature", lambda y: y[0]),
        features_snn=gather(tape.snn, "feature", reduced),
    )


def loss(network: Network, method: Method, state: Values, tape: Tape, labels: Labels) -> tuple[Terms, Array]:
    """The joint loss with the orthogonality penalty added to its total, its parts, and the penalty (DIS-1, ORT-2)."""
    terms = losses.joint_loss(method.loss, *exits(network, method, tape), labels)
    penalty = np.zeros_like(terms.loss)
    orthogonality = method.factorization.orthogonality
    if isinstance(orthogonality, Penalty):
        for u, v in factors(network, method, state).values():
            penalty = penalty + orthogonality.weight * factorization.penalty(u, v)
    return terms._replace(loss=np.asarray(terms.loss + penalty)), np.asarray(penalty)


def backward(
    network: Network, method: Method, state: Values, tape: Tape, labels: Labels
) -> tuple[Gradients, dict[Twin, Gradients]]:
    """Gradient of `loss` for every parameter, by name, and for every layer's output of each twin (clauses FAC-7, DIS-7)."""
    d_a, d_z, d_f, d_h = losses.joint_loss_adjoint(method.loss, *exits(network, method, tape), labels)
    seeds_ann: dict[str, Array] = {}
    seeds_snn: dict[str, Array] = {}
    for i, exit_ in enumerate(network.exits):
        z, h = tape.snn.outputs[exit_.head], tape.snn.outputs[exit_.feature]
        d_z_steps = d_z[:, i] if method.loss.per_step else layers.readout_adjoint(z, d_z[0, i], method.readout)
        _add(seeds_ann, exit_.head, d_a[i][None])
        _add(seeds_ann, exit_.feature, d_f[i][None])
        _add(seeds_snn, exit_.head, d_z_steps)
        _add(seeds_snn, exit_.feature, layers.readout_adjoint(h, d_h[i], method.readout))
    training, replicas = tape.training, tape.replicas
    gradients, taps_ann = backward_twin(network, method, "ann", state, tape.ann, seeds_ann, training=training, replicas=replicas)
    from_snn, taps_snn = backward_twin(network, method, "snn", state, tape.snn, seeds_snn, training=training, replicas=replicas)
    for name, g in from_snn.items():
        isolated = method.loss.isolate_ann and layer_and_part(name)[1] in SHARED  # clause DIS-7
        _add(gradients, name, np.zeros_like(g) if isolated else g)
    orthogonality = method.factorization.orthogonality
    if isinstance(orthogonality, Penalty):
        for name, (u, v) in factors(network, method, state).items():
            d_u, d_v = factorization.penalty_adjoint(u, v)
            _add(gradients, f"{name}.U", orthogonality.weight * d_u)
            _add(gradients, f"{name}.V", orthogonality.weight * d_v)
    return gradients, {"ann": taps_ann, "snn": taps_snn}


def factors(network: Network, method: Method, state: Values) -> dict[str, tuple[Array, Array]]:
    """U and V of every factored layer, by the layer's name."""
    names = [layer.name for layer in network.layers if is_factored(layer, method.factorization)]
    return {name: (state[f"{name}.U"], state[f"{name}.V"]) for name in names}


def kernel(layer: Conv | Linear, method: Method, twin: Twin, state: Values, x: Array) -> Array:
    """The kernel with which a layer meets its input x, (T, B, ...): composed where factored (clauses FAC-6 to FAC-8)."""
    if not is_factored(layer, method.factorization):
        return state[f"{layer.name}.weight_{twin}"]
    u, sigma, v = (state[f"{layer.name}.{part}"] for part in ("U", f"sigma_{twin}", "V"))
    return factorization.compose(method.factorization, u, sigma, v, kernel_shape(layer, x.shape[2:]))


def _kernel_adjoint(layer: Layer, method: Method, twin: Twin, state: Values, g: Any) -> Gradients:
    """Gradients of what the kernel is made of, by name."""
    if not is_factored(layer, method.factorization):
        return {f"{layer.name}.weight_{twin}": g}
    names = [f"{layer.name}.{part}" for part in ("U", f"sigma_{twin}", "V")]
    u, sigma, v = (state[name] for name in names)
    return dict(zip(names, factorization.compose_adjoint(method.factorization, u, sigma, v, g), strict=True))


def _learned(name: str, state: Values) -> tuple[NDArray[Any] | None, NDArray[Any] | None]:
    """Learned decay and threshold of an activation layer, None where they are constants."""
    return state.get(f"{name}.decay"), state.get(f"{name}.threshold")


def _format(state: Values) -> np.dtype[Any]:
    return next(value.dtype for value in state.values() if value.dtype.kind == "f")


def _add(into: dict[str, Array], name: str, g: Array) -> None:
    into[name] = into[name] + g if name in into else g
