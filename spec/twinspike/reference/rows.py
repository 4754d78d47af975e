"""The reference in the form of the operations table: `f(config, inputs)` and `f_adjoint(config, inputs, cotangents)`.

Each function is named as its row and only unpacks; what is computed stands in the modules by subject.
An adjoint takes missing cotangents as zero and gives the gradient of every differentiable input that
was given. Configs are read by attribute, since the table that defines some of them imports this module.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twinspike.reference import factorization, layers, losses, neuron, norm, optimizer, surrogate

Values = NDArray[Any]
Arrays = dict[str, NDArray[np.generic]]
Inputs = Mapping[str, Values]

_LIF_OPTIONAL = ("v", "decay", "threshold")


def _optional(inputs: Inputs, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: inputs[name] for name in names if name in inputs}


def _scalar(cotangents: Inputs) -> Values | float:
    """The cotangent of a loss."""
    return cotangents.get("loss", 0.0)


def _all(**gradients: Values) -> Arrays:
    return {name: np.asarray(value) for name, value in gradients.items()}


def lif(config: Any, inputs: Inputs) -> Arrays:
    """Spikes, potentials before reset, and the state after the last step."""
    trace = neuron.lif(config, inputs["x"], **_optional(inputs, _LIF_OPTIONAL))
    return {"s": trace.s, "u": trace.u, "v": trace.v[-1].copy()}


def lif_adjoint(config: Any, inputs: Inputs, cotangents: Inputs) -> Arrays:
    """Gradients of x and of the state, decay and threshold that were given."""
    x, options = inputs["x"], _optional(inputs, _LIF_OPTIONAL)
    trace = neuron.lif(config, x, **options)
    g = cotangents.get("s", np.zeros_like(x))
    gradients = neuron.lif_adjoint(config, x, trace, g, cotangents.get("v"), **options)
    return {name: value for name, value in gradients._asdict().items() if name in inputs}


def spike(config: Any, inputs: Inputs) -> Arrays:
    """[u >= threshold]."""
    return {"s": neuron.fire(config, inputs["u"], config.threshold)}


def spike_adjoint(config: Any, inputs: Inputs, cotangents: Inputs) -> Arrays:
    """g h(u - threshold)."""
    u = inputs["u"]
    g = cotangents.get("s", np.zeros_like(u))
    return _all(u=g * surrogate.derivative(config.surrogate, u - config.threshold))


def relu(config: Any, inputs: Inputs) -> Arrays:
    """max(0, x)."""
    return {"y": layers.relu(inputs["x"])}


def relu_adjoint(config: Any, inputs: Inputs, cotangents: Inputs) -> Arrays:
    """g where x > 0."""
    x = inputs["x"]
    return {"x": layers.relu_adjoint(x, cotangents.get("y", np.zeros_like(x)))}


def factorize(config: Any, inputs: Inputs) -> Arrays:
    """U, sigma and V of a kernel, at the rank that the config asks for."""
    kernel = inputs["kernel"]
    u, sigma, v = factorization.factorize(config, kernel, factorization.rank_of(config, kernel))
    return _all(U=u, sigma=sigma, V=v)


def compose(config: Any, inputs: Inputs) -> Arrays:
    """The kernel of factors."""
    factors = inputs["U"], inputs["sigma"], inputs["V"]
    return _all(kernel=factorization.compose(config.factorization, *factors, config.kernel_shape))


def compose_adjoint(config: Any, inputs: Inputs, cotangents: Inputs) -> Arrays:
    """Gradients of U, sigma and V."""
    u, sigma, v = inputs["U"], inputs["sigma"], inputs["V"]
    g = cotangents.get("kernel", np.zeros(config.kernel_shape, dtype=u.dtype))
    d_u, d_sigma, d_v = factorization.compose_adjoint(config.factorization, u, sigma, v, g)
    return _all(U=d_u, sigma=d_sigma, V=d_v)


def penalty(config: Any, inputs: Inputs) -> Arrays:
    """|U'U - I|^2 + |VV' - I|^2, unweighted."""
    return _all(loss=factorization.penalty(inputs["U"], inputs["V"]))


def penalty_adjoint(config: Any, inputs: Inputs, cotangents: Inputs) -> Arrays:
    """Gradients of U and V."""
    d_u, d_v = factorization.penalty_adjoint(inputs["U"], inputs["V"])
    return _all(U=_scalar(cotangents) * d_u, V=_scalar(cotangents) * d_v)


def retract(config: Any, inputs: Inputs) -> Arrays:
    """Orthonormal U and V, whatever the step: `every` is the caller's to heed."""
    u, v = factorization.retract(config.by, inputs["U"], inputs["V"])
    return _all(U=u, V=v)


def conv2d(config: Any, inputs: Inputs) -> Arrays:
    """Cross-correlation."""
    return {"y": layers.conv2d(inputs["x"], inputs["kernel"], config.stride, config.padding)}


def conv2d_adjoint(config: Any, inputs: Inputs, cotangents: Inputs) -> Arrays:
    """Gradients of x and kernel."""
    x, kernel = inputs["x"], inputs["kernel"]
    g = cotangents.get("y", np.zeros_like(conv2d(config, inputs)["y"]))
    d_x, d_kernel = layers.conv2d_adjoint(x, kernel, g, config.stride, config.padding)
    return _all(x=d_x, kernel=d_kernel)


def avg_pool(config: Any, inputs: Inputs) -> Arrays:
    """Means over windows."""
    return {"y": layers.avg_pool(inputs["x"], config.kernel, config.stride)}


def avg_pool_adjoint(config: Any, inputs: Inputs, cotangents: Inputs) -> Arrays:
    """Gradient of x."""
    g = cotangents.get("y", np.zeros_like(avg_pool(config, inputs)["y"]))
    return {"x": layers.avg_pool_adjoint(inputs["x"], g, config.kernel, config.stride)}


def global_pool(config: Any, inputs: Inputs) -> Arrays:
    """Means over H and W."""
    return {"y": layers.global_pool(inputs["x"])}


def global_pool_adjoint(config: Any, inputs: Inputs, cotangents: Inputs) -> Arrays:
    """Gradient of x."""
    x = inputs["x"]
    g = cotangents.get("y", np.zeros(x.shape[:2], dtype=x.dtype))
    return {"x": layers.global_pool_adjoint(x, g)}


def linear(config: Any, inputs: Inputs) -> Arrays:
    """Weight x + bias."""
    return {"y": layers.linear(inputs["x"], inputs["weight"], inputs["bias"])}


def linear_adjoint(config: Any, inputs: Inputs, cotangents: Inputs) -> Arrays:
    """Gradients of x, weight and bias."""
    x, weight = inputs["x"], inputs["weight"]
    g = cotangents.get("y", np.zeros((len(x), len(weight)), dtype=x.dtype))
    d_x, d_weight, d_bias = layers.linear_adjoint(x, weight, g)
    return _all(x=d_x, weight=d_weight, bias=d_bias)


def batch_norm_train(config: Any, inputs: Inputs) -> Arrays:
    """Normalized values and the running statistics after the step."""
    names = ("x", "gamma", "beta", "mean", "var")
    return norm.batch_norm_train(config, *(inputs[name] for name in names))._asdict()


def batch_norm_train_adjoint(config: Any, inputs: Inputs, cotangents: Inputs) -> Arrays:
    """Gradients of x, gamma and beta."""
    x = inputs["x"]
    g = cotangents.get("y", np.zeros_like(x))
    d_x, d_gamma, d_beta = norm.batch_norm_train_adjoint(config, x, inputs["gamma"], g)
    return _all(x=d_x, gamma=d_gamma, beta=d_beta)


def batch_norm_eval(config: Any, inputs: Inputs) -> Arrays:
    """Values normalized by the running statistics."""
    names = ("x", "gamma", "beta", "mean", "var")
    return {"y": norm.batch_norm_eval(config, *(inputs[name] for name in names))}


def batch_norm_eval_adjoint(config: Any, inputs: Inputs, cotangents: Inputs) -> Arrays:
    """Gradients of x, gamma and beta."""
    x = inputs["x"]
    g = cotangents.get("y", np.zeros_like(x))
    d_x, d_gamma, d_beta = norm.batch_norm_eval_adjoint(config, x, inputs["gamma"], inputs["mean"], inputs["var"], g)
    return _all(x=d_x, gamma=d_gamma, beta=d_beta)


def readout(config: Any, inputs: Inputs) -> Arrays:
    """Sum or mean over time."""
    return {"y": layers.readout(inputs["x"], config.reduction)}


def readout_adjoint(config: Any, inputs: Inputs, cotangents: Inputs) -> Arrays:
    """Gradient of x."""
    x = inputs["x"]
    return {"x": layers.readout_adjoint(x, cotangents.get("y", np.zeros_like(x[0])), config.reduction)}


def cross_entropy(config: Any, inputs: Inputs) -> Arrays:
    """Mean over the batch."""
    return {"loss": losses.cross_entropy(inputs["logits"], inputs["labels"])}


def cross_entropy_adjoint(config: Any, inputs: Inputs, cotangents: Inputs) -> Arrays:
    """Gradient of the logits."""
    return _all(logits=_scalar(cotangents) * losses.cross_entropy_adjoint(inputs["logits"], inputs["labels"]))


def distillation(config: Any, inputs: Inputs) -> Arrays:
    """KD(student <- teacher), without tau^2."""
    return {"loss": losses.distillation(config, inputs["student"], inputs["teacher"])}


def distillation_adjoint(config: Any, inputs: Inputs, cotangents: Inputs) -> Arrays:
    """Gradients of student and teacher; zeros for a detached teacher."""
    d_student, d_teacher = losses.distillation_adjoint(config, inputs["student"], inputs["teacher"])
    return _all(student=_scalar(cotangents) * d_student, teacher=_scalar(cotangents) * d_teacher)


def feature_loss(config: Any, inputs: Inputs) -> Arrays:
    """F(h, f), without beta."""
    return {"loss": losses.feature_loss(config, inputs["snn"], inputs["ann"])}


def feature_loss_adjoint(config: Any, inputs: Inputs, cotangents: Inputs) -> Arrays:
    """Gradients of both features; zeros for detached ones."""
    d_snn, d_ann = losses.feature_loss_adjoint(config, inputs["snn"], inputs["ann"])
    return _all(snn=_scalar(cotangents) * d_snn, ann=_scalar(cotangents) * d_ann)


_JOINT = ("logits_ann", "logits_snn", "features_ann", "features_snn", "labels")


def joint_loss(config: Any, inputs: Inputs) -> Arrays:
    """The total and its unweighted parts."""
    return losses.joint_loss(config, *(inputs[name] for name in _JOINT))._asdict()


def joint_loss_adjoint(config: Any, inputs: Inputs, cotangents: Inputs) -> Arrays:
    """Gradients of logits and features of both twins."""
    gradients = losses.joint_loss_adjoint(config, *(inputs[name] for name in _JOINT))
    return _all(**{name: _scalar(cotangents) * g for name, g in gradients._asdict().items()})


def optimizer_step(config: Any, inputs: Inputs) -> Arrays:
    """Parameter and slots after step n = `step`, counted from 1; weight decay always applies."""
    slots = _optional(inputs, ("momentum", "m", "v"))
    p, slots = optimizer.optimizer_step(config, inputs["p"], inputs["g"], inputs["lr"], int(inputs["step"]), slots)
    return _all(p=p, **slots)
