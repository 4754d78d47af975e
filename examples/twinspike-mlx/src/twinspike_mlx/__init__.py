"""Twinspike's operations and networks on MLX, written from the specification's clauses alone."""

from twinspike_mlx.backend import backend

__version__ = "0.1.0"

__all__ = ["backend"]
