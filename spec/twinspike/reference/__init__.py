"""The reference: every operation in NumPy, forward and hand-written adjoint, to be read beside the clauses.

It is slow and plain on purpose: loops over time, one value at a time where that is clearer. Speed
lives in the backends, and what they compute is what stands here. It computes in the format of its
inputs, float64 unless someone studies what float32 would give.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
"""A real array of one floating format."""
