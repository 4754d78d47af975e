"""torch.compile for functions that must not fall back: whole graphs, each with a cache of its own."""

from __future__ import annotations

import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function as one graph for the shapes that it meets; a graph break is an error.

    torch keeps compiled versions per code object and gives up after eight, counting those of every
    closure over the same code. A copy of the code per call of this function keeps them apart.
    Fused kernels skip casts to a lower precision unless told otherwise, which would move the cast points
    of clause PRE-2.
    """
    code = function.__code__.replace()
    own = types.FunctionType(code, function.__globals__, function.__name__, function.__defaults__, function.__closure__)
    return torch.compile(own, fullgraph=True, dynamic=False, options={"emulate_precision_casts": True})


def constant(function: Callable[P, R]) -> Callable[P, R]:
    """Tell the compiler that what a function gives for Python values is a constant of its graph.

    As `torch.compiler.assume_constant_result`, which takes a second to import the whole compiler, and triton with it.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


def stacked(values: Sequence[Tensor], dim: int = 0) -> Tensor:
    """As torch.stack, but of a single value a view of it, said to be one.

    Inductor of torch 2.13 makes the stack of one value the value itself unsaid. Where that is kept for the backward pass and
    the stack is handed out, the backward pass writes into the memory of what was handed out.
    """
    return values[0].unsqueeze(dim) if len(values) == 1 else torch.stack(list(values), dim)


@contextmanager
def compiler_warnings_ignored() -> Iterator[None]:
    """torch's compiler uses what torch deprecates: that is not its user's business."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield
