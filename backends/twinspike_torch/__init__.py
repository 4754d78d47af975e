"""Twinspike in PyTorch: modules and functions for any training loop, and the backend behind the specification.

`build` makes a network; `lif`, `LIF`, `FactorizedConv2d`, `TwinBatchNorm` and the losses stand on their
own. `backend` is what `twinspike.load("torch")` gives.
"""

from twinspike_torch import surrogate
from twinspike_torch.backend import backend
from twinspike_torch.factorization import Factors, compose, deviation, factorize, penalty, retract
from twinspike_torch.losses import Terms, cross_entropy, distillation, feature_loss, joint_loss
from twinspike_torch.network import TwinNetwork, TwinOutput, build
from twinspike_torch.neuron import LIF, Spikes, Traced, lif, lif_traced, spike
from twinspike_torch.norm import TwinBatchNorm
from twinspike_torch.surrogate import derivative
from twinspike_torch.weights import FactorizedConv2d, FactorizedLinear, TwinConv2d, TwinLinear

__all__ = [
    "LIF", "FactorizedConv2d", "FactorizedLinear", "Factors", "Spikes", "Terms", "Traced", "TwinBatchNorm",
    "TwinConv2d", "TwinLinear", "TwinNetwork", "TwinOutput", "backend", "build", "compose", "cross_entropy", "derivative",
    "deviation", "distillation", "factorize", "feature_loss", "joint_loss", "lif", "lif_traced",
    "penalty", "retract", "spike", "surrogate",
]  # fmt: skip
