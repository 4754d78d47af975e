"""The reference behind the Backend protocol: float64 on the CPU, as plain and as slow as the reference itself.

It is what the other backends are measured against, and what runs where no framework is installed.
It claims `f64` and nothing else: a precision that NumPy only imitated would measure nothing.
"""

from twinspike.backend import Backend
from twinspike_numpy.backend import NumpyBackend, NumpyProgram, NumpySession

backend: Backend = NumpyBackend()

__all__ = ["NumpyBackend", "NumpyProgram", "NumpySession", "backend"]
