"""The JAX backend: joint artificial and spiking networks as pure functions over pytrees.

Everything here jits, differentiates and vmaps; configs and networks are static arguments. `backend` is the same
behind the specification's contract.
"""

from twinspike_jax.factorization import compose, deviation, factorize, penalty, retract
from twinspike_jax.layers import avg_pool, conv2d, conv2d_mixed, global_pool, linear, readout, relu
from twinspike_jax.losses import Terms, cross_entropy, distillation, feature_loss, joint_loss
from twinspike_jax.network import Outputs, apply, init, reduced_logits
from twinspike_jax.neuron import lif, lif_traced
from twinspike_jax.norm import batch_norm_eval, batch_norm_train, batch_norm_train_constant
from twinspike_jax.optimizer import decay_mask, make_optimizer
from twinspike_jax.program import JaxProgram, TrainState
from twinspike_jax.session import JaxBackend, JaxSession
from twinspike_jax.surrogate import derivative, spike

backend = JaxBackend()

__all__ = [
    "JaxBackend", "JaxProgram", "JaxSession", "Outputs", "Terms", "TrainState", "apply", "avg_pool", "backend",
    "batch_norm_eval", "batch_norm_train", "batch_norm_train_constant", "compose", "conv2d", "conv2d_mixed",
    "cross_entropy", "decay_mask", "derivative", "deviation", "distillation", "factorize", "feature_loss",
    "global_pool", "init", "joint_loss", "lif", "lif_traced", "linear", "make_optimizer", "penalty",
    "readout", "reduced_logits", "relu", "retract", "spike",
]  # fmt: skip
