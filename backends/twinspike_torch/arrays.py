"""Moving arrays between the host and a device; copies always, so that nothing is ever aliased."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twinspike.errors import require


def to_device(values: NDArray[Any], device: torch.device, floats: torch.dtype) -> Tensor:
    """A copy on the device: floats in the format `floats`, integers as int64."""
    kind = np.asarray(values).dtype.kind
    require(kind in "fiu", "array", expected="floats or integers", got=str(np.asarray(values).dtype))
    own = np.array(values, dtype=None if kind == "f" else np.int64, order="C")
    if own.dtype.kind == "f" and own.dtype.itemsize not in (2, 4, 8):
        own = own.astype(np.float64)
    host = torch.from_numpy(own)
    if device.type == "cuda":  # of other memory a copy is waited for; torch keeps this until the device has read it
        host = host.pin_memory()
    return host.to(device=device, dtype=floats if kind == "f" else torch.int64, non_blocking=True)


def to_host(tensor: Tensor) -> NDArray[Any]:
    """Wait, and copy to the host; bfloat16, which NumPy lacks, comes as float32."""
    plain = tensor.detach()
    if plain.dtype == torch.bfloat16:
        plain = plain.to(torch.float32)
    return np.array(plain.cpu().numpy())
