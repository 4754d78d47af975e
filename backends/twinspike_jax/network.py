"""A network of the specification as pure functions: `init` gives its pytrees, `apply` runs both twins.

What is computed equals the step-by-step definition, but is arranged to be cheap: layer by layer with time
folded into the batch, each twin's kernels composed once, everything that a static image feeds up to the first
neurons computed once instead of T times, and heads applied after the sum over time.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from twinspike.config import TWINS, Method
from twinspike.errors import require
from twinspike.network import Linear, Network
from twinspike.parameters import initial_state, layer_and_part, layout
from twinspike_jax import factorization, layers
from twinspike_jax.precision import DType, Policy, policy, policy_of
from twinspike_jax.residuals import spares
from twinspike_jax.twin import Statistics, Twinned, constant_layers, run_twin
from twinspike_jax.weights import Params, linear

_penalty = jax.jit(factorization.penalty)  # one unit of compilation, as those of `twin`


class Outputs(NamedTuple):
    """What `apply` gives; N exits, S slices of time that the loss sees, B samples, K classes, L activation layers."""

    logits_ann: Array
    """(N, B, K)."""
    logits_snn: Array
    """(S, N, B, K): S is T with `loss.per_step`, where each step's logits are given, else 1 and they are reduced."""
    features_ann: Array
    """(N, B, F)."""
    features_snn: Array
    """(N, B, F), reduced over time."""
    spike_rates: Array
    """(L,) spikes per neuron and time step of each activation layer, in the network's order."""


def init(
    network: Network, method: Method, seed: int = 0, dtype: DType = jnp.float32
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Parameters and statistics that a run starts from (clauses INI-*).

    Args:
        network: the graph.
        method: decides factors and learned neuron quantities.
        seed: of the run, in [0, 2^64).
        dtype: float32, or float64 where JAX has it enabled.

    Returns:
        Two flat dicts by the specification's names.

    Raises:
        SpecError: another dtype, or float64 with x64 disabled.
    """
    policy_of(dtype)
    usable = jax.dtypes.canonicalize_dtype(jnp.dtype(dtype))
    require(usable == jnp.dtype(dtype), "dtype", expected="float64 only with jax_enable_x64", got=jnp.dtype(dtype).name)
    state = initial_state(network, method, seed=seed)
    params: dict[str, Array] = {}
    statistics: dict[str, Array] = {}
    for entry in layout(network, method):
        (params if entry.trained else statistics)[entry.name] = jnp.array(state[entry.name].astype(jnp.dtype(dtype)))
    return params, statistics


def apply(
    network: Network,
    method: Method,
    params: Params,
    statistics: Statistics,
    images: Array,
    training: bool,
    *,
    precision: str | None = None,
    recompute: bool = False,
    spare: bool | None = None,
    ranks: str | None = None,
) -> tuple[Outputs, dict[str, Array]]:
    """Run both twins on a batch.

    Args:
        network: the graph; static under `jit`, like `method`, `training` and `precision`.
        method: everything else that fixes what is computed.
        params: as `init` gives them.
        statistics: likewise.
        images: (B, C, H, W), or (T, B, C, H, W) for event networks.
        training: whether norms use the batch's statistics and move the running ones.
        precision: a profile's name; by default everything is computed in the format of the parameters, without TF32.
        recompute: whether a backward pass runs each block again instead of keeping its inner values; static too.
        spare: whether it computes again what is cheap; by default where activations have 16 bits and JAX runs on a CPU; static.
        ranks: axis of a mesh, inside `jax.shard_map`, over which norms share their statistics unless these are local; static.

    Returns:
        Outputs, and the statistics after the batch (the given ones in evaluation).
    """
    casts = policy(precision) if precision else policy_of(next(iter(params.values())).dtype)
    given = params, statistics, images, training, casts
    spare = spares(casts, jax.default_backend()) if spare is None else spare
    ann, snn = (run_twin(network, method, twin, *given, recompute=recompute, spare=spare, ranks=ranks) for twin in TWINS)
    outputs = Outputs(
        *ends(network, method, params, ann, snn, casts),
        spike_rates=jnp.stack([snn.rates[name] for name in network.activations]),
    )
    return outputs, {**statistics, **ann.statistics, **snn.statistics}


def reduced_logits(method: Method, outputs: Outputs) -> Array:
    """The spiking twin's logits reduced over time, (N, B, K)."""
    if not method.loss.per_step:
        return outputs.logits_snn[0]
    return layers.readout(outputs.logits_snn, reduction=method.readout)


def total_penalty(params: Params) -> Array:
    """Sum of `penalty` over factored layers, shape (), unweighted (clause ORT-2)."""
    factored = [layer for layer, part in map(layer_and_part, params) if part == "U"]
    pairs = [(params[f"{layer}.U"], params[f"{layer}.V"]) for layer in factored]
    first = next(iter(params.values()))
    return sum((_penalty(u, v) for u, v in pairs), jnp.zeros((), first.dtype))


def ends(
    network: Network, method: Method, params: Params, ann: Twinned, snn: Twinned, casts: Policy
) -> tuple[Array, Array, Array, Array]:
    """Logits and features of both twins, shaped as in `Outputs`; readout before heads, unless the heads were run."""
    constant, steps = constant_layers(network), method.time_steps
    sums = method.readout == "sum"

    def over_time(name: str) -> Array:
        value = snn.values[name].astype(casts.storage)
        if name in constant:
            return steps * value if sums else value
        return layers.readout(value, reduction=method.readout)

    def at_each_step(name: str) -> Array:
        value = snn.values[name]
        return jnp.broadcast_to(value, (steps, *value.shape)) if name in constant else value

    logits: tuple[list[Array], list[Array]] = [], []
    for exit_ in network.exits:
        head = network.layer(exit_.head)
        if not isinstance(head, Linear):  # the description was validated; this tells the type checker
            raise TypeError(exit_.head)
        if exit_.head in snn.values:
            logits[0].append(ann.values[exit_.head])
            logits[1].append(at_each_step(exit_.head) if method.loss.per_step else over_time(exit_.head)[None])
            continue
        logits[0].append(linear(head, "ann", params, ann.values[head.input], method, casts))
        if method.loss.per_step:
            logits[1].append(linear(head, "snn", params, at_each_step(head.input), method, casts))
        else:
            z = linear(head, "snn", params, over_time(head.input), method, casts, bias_times=steps if sums else 1)
            logits[1].append(z[None])
    features = [exit_.feature for exit_ in network.exits]
    return (
        jnp.stack(logits[0]),
        jnp.stack(logits[1], axis=1),
        jnp.stack([ann.values[name].astype(casts.storage) for name in features]),
        jnp.stack([over_time(name) for name in features]),
    )
