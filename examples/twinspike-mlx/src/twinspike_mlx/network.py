"""Both twins over the graph, in the plainest form: a twin is (T, B, ...) throughout, the artificial one with T = 1 and ReLU.

What a layer gives can be probed: zeros that are added to it, whose gradients are those towards it. So one forward pass has the
values and the gradients that `trace` tells, and no second one can round another way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import mlx.core as mx

from twinspike.config import TWINS, Method, Twin
from twinspike.errors import refuse
from twinspike.network import INPUT, Activation, Add, AvgPool, Conv, GlobalPool, Layer, Linear, Network, Norm, infer_shapes
from twinspike.parameters import is_factored, kernel_shape
from twinspike_mlx import factorization, layers, losses, norm
from twinspike_mlx.neuron import lif

Arrays = Mapping[str, mx.array]


class Twinned(NamedTuple):
    """One twin's run, by layer."""

    values: dict[str, mx.array]
    """(T, B, ...), T = 1 in the artificial twin."""
    potentials: dict[str, mx.array]
    """(T, B, ...), of activation layers of the spiking twin."""
    statistics: dict[str, mx.array]
    """Running statistics after the batch, by name; empty in evaluation."""


class Exits(NamedTuple):
    """What the loss sees: N exits, S slices of time, B samples, K classes, F features."""

    logits_ann: mx.array
    """(N, B, K)."""
    logits_snn: mx.array
    """(S, N, B, K): S is T with `loss.per_step`, else 1."""
    features_ann: mx.array
    """(N, B, F)."""
    features_snn: mx.array
    """(N, B, F)."""


def run_twin(
    network: Network,
    method: Method,
    twin: Twin,
    params: Arrays,
    statistics: Arrays,
    images: mx.array,
    training: bool,
    probes: Arrays | None = None,
) -> Twinned:
    """One twin's layers in order.

    Args:
        network: the graph.
        method: the options.
        twin: which one.
        params: trained arrays by the specification's names.
        statistics: running means and variances likewise.
        images: (B, C, H, W), or (T, B, C, H, W) for event networks.
        training: whether norms use the batch's statistics and move the running ones.
        probes: layer -> what is added to what it gives.
    """
    run = Twinned({INPUT: _frames(network, method, twin, images)}, {}, {})
    shapes = infer_shapes(network)
    for layer in network.layers:
        x = run.values[layer.input]
        match layer:
            case Conv():
                kernel = _kernel(layer, shapes, twin, params, method)
                y = _over_time(partial(layers.conv2d, kernel=kernel, stride=layer.stride, padding=layer.padding), x)
            case Linear():
                kernel, bias = _kernel(layer, shapes, twin, params, method), _shared(params[f"{layer.name}.bias"], twin, method)
                y = _over_time(partial(layers.linear, weight=kernel, bias=bias), x)
            case Norm():
                y = _norm(layer, twin, params, statistics, x, training, method, run.statistics)
            case Activation() if twin == "ann":
                y = layers.relu(x)
            case Activation():
                learned = {q: params[f"{layer.name}.{q}"] for q in ("decay", "threshold") if f"{layer.name}.{q}" in params}
                y, run.potentials[layer.name], _ = lif(x, learned, neuron=method.neuron)
            case Add():
                y = x + run.values[layer.other]
            case AvgPool():
                y = _over_time(partial(layers.avg_pool, kernel=layer.kernel, stride=layer.stride), x)
            case GlobalPool():
                y = _over_time(layers.global_pool, x)
            case _:  # of a later specification than the backend was written for
                raise refuse(f"layer {layer.name}", expected="a kind of version 0.1.0", got=type(layer).__name__)
        run.values[layer.name] = y if probes is None else y + probes[layer.name]
    return run


def exits(network: Network, method: Method, ann: Twinned, snn: Twinned) -> Exits:
    """Both twins' ends as the loss sees them (clauses OUT-1, OUT-2, DIS-8)."""

    def reduced(y: mx.array) -> mx.array:
        return layers.readout(y, reduction=method.readout)

    heads, features = ([getattr(exit_, end) for exit_ in network.exits] for end in ("head", "feature"))
    steps = mx.stack([snn.values[name] for name in heads], axis=1)
    return Exits(
        mx.stack([ann.values[name][0] for name in heads]),
        steps if method.loss.per_step else reduced(steps)[None],
        mx.stack([ann.values[name][0] for name in features]),
        mx.stack([reduced(snn.values[name]) for name in features]),
    )


def reduced_logits(method: Method, ends: Exits) -> mx.array:
    """The spiking twin's logits reduced over time, (N, B, K)."""
    return layers.readout(ends.logits_snn, reduction=method.readout) if method.loss.per_step else ends.logits_snn[0]


def run_twins(
    network: Network,
    method: Method,
    params: Arrays,
    statistics: Arrays,
    images: mx.array,
    training: bool,
    probes: tuple[Arrays | None, Arrays | None] = (None, None),
) -> tuple[Twinned, Twinned]:
    """Both; arguments as of `run_twin`."""
    given = params, statistics, images, training
    ann, snn = (run_twin(network, method, twin, *given, probe) for twin, probe in zip(TWINS, probes, strict=True))
    return ann, snn


def joint_loss(network: Network, method: Method, ann: Twinned, snn: Twinned, labels: mx.array) -> losses.Terms:
    """The loss of a batch and its terms, without the orthogonality penalty."""
    return losses.joint_loss(*exits(network, method, ann, snn), labels, config=method.loss)


def total_penalty(network: Network, method: Method, params: Arrays) -> mx.array:
    """Sum of `penalty` over factored layers, unweighted."""
    factored = [layer.name for layer in network.layers if is_factored(layer, method.factorization)]
    return sum((factorization.penalty(params[f"{name}.U"], params[f"{name}.V"]) for name in factored), mx.zeros(()))


def _frames(network: Network, method: Method, twin: Twin, images: mx.array) -> mx.array:
    """What a twin sees, (T, B, C, H, W) (clauses INP-1, INP-2)."""
    if twin == "ann":
        return (images.sum(axis=0) / images.shape[0] if network.event else images)[None]
    return images if network.event else mx.broadcast_to(images, (method.time_steps, *images.shape))


def _over_time(function: Callable[[mx.array], mx.array], x: mx.array) -> mx.array:
    """A function of (B, ...) on (T, B, ...), with time folded into the batch."""
    y = function(x.reshape(-1, *x.shape[2:]))
    return y.reshape(*x.shape[:2], *y.shape[1:])


def _shared(value: mx.array, twin: Twin, method: Method) -> mx.array:
    """What both twins use, as one of them sees it (clause DIS-7)."""
    return mx.stop_gradient(value) if twin == "snn" and method.loss.isolate_ann else value


def _kernel(layer: Conv | Linear, shapes: Mapping[str, Any], twin: Twin, params: Arrays, method: Method) -> mx.array:
    """A layer's kernel as one twin sees it (clauses FAC-6 to FAC-8)."""
    if not is_factored(layer, method.factorization):
        return params[f"{layer.name}.weight_{twin}"]
    u, v = (_shared(params[f"{layer.name}.{part}"], twin, method) for part in ("U", "V"))
    shape = kernel_shape(layer, shapes[layer.input])
    sigma = params[f"{layer.name}.sigma_{twin}"]
    return factorization.compose(u, sigma, v, factorization=method.factorization, kernel_shape=shape)


def _norm(
    layer: Layer,
    twin: Twin,
    params: Arrays,
    statistics: Arrays,
    x: mx.array,
    training: bool,
    method: Method,
    after: dict[str, mx.array],
) -> mx.array:
    """Normalize, and note the statistics after the batch."""
    gamma, beta = (params[f"{layer.name}.{quantity}_{twin}"] for quantity in ("gamma", "beta"))
    names = [f"{layer.name}.{quantity}_{twin}" for quantity in ("mean", "var")]
    running = [statistics[name] for name in names]
    if not training:
        return norm.batch_norm_eval(x, gamma, beta, *running, config=method.batch_norm)
    y, *moved = norm.batch_norm_train(x, gamma, beta, *running, config=method.batch_norm)
    after |= zip(names, moved, strict=True)
    return y
