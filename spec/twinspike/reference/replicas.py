"""What many ranks make of batch normalization (clauses DEV-3, DEV-4): all else is that of the global batch.

Arrays are those of the global batch, (T, B, C, *d), split along B among N ranks in the order of samples.
"""

from __future__ import annotations

import numpy as np

from twinspike.config import BatchNorm
from twinspike.reference import Array, norm
from twinspike.reference.norm import Normalized
from twinspike.replicas import share


def batch_norm_train(
    config: BatchNorm, x: Array, gamma: Array, beta: Array, mean: Array, var: Array, *, replicas: int
) -> Normalized:
    """`norm.batch_norm_train` of the global batch, or with local statistics of each rank's samples.

    The running statistics are the means over the ranks of what each rank makes of them.
    """
    if config.replicas == "synchronized" or replicas == 1:
        return norm.batch_norm_train(config, x, gamma, beta, mean, var)
    found = [norm.batch_norm_train(config, part, gamma, beta, mean, var) for part in split(x, replicas)]
    running_mean, running_var = (np.stack(values).mean(axis=0) for values in ([f.mean for f in found], [f.var for f in found]))
    return Normalized(np.concatenate([f.y for f in found], axis=1), running_mean, running_var)


def batch_norm_train_adjoint(config: BatchNorm, x: Array, gamma: Array, g: Array, *, replicas: int) -> tuple[Array, Array, Array]:
    """Gradients of x, gamma and beta; those of gamma and beta are the sums of the ranks'."""
    if config.replicas == "synchronized" or replicas == 1:
        return norm.batch_norm_train_adjoint(config, x, gamma, g)
    parts = zip(split(x, replicas), split(g, replicas), strict=True)
    found = [norm.batch_norm_train_adjoint(config, own, gamma, own_g) for own, own_g in parts]
    d_gamma, d_beta = (np.stack([part[i] for part in found]).sum(axis=0) for i in (1, 2))
    return np.concatenate([part[0] for part in found], axis=1), d_gamma, d_beta


def split(x: Array, replicas: int) -> list[Array]:
    """The ranks' parts of x, (T, B, ...)."""
    return [x[:, share(x.shape[1], replicas, rank)] for rank in range(replicas)]
