"""A training step's gradients as one CUDA graph: the host then starts one thing a step, not some thousand.

A graph reads and writes the memory that it was recorded with, so it serves one state and one shape of batch; others run as they
are. Steps are recorded after `WARM` that were run, which compile kernels and choose algorithms; recording runs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

WARM = 3
"""Steps of a state and a shape that are run before one is recorded."""

Tensors = dict[str, Tensor]
Step = Callable[[Tensors, Tensors, Tensor, Tensor], Any]
"""A function of parameters, statistics, images and labels; it moves statistics in place, and its results are of tensors."""
Recorder = Callable[[Callable[[], Any]], tuple[Any, Callable[[], None]]]
"""Records a function: its results, filled by each call of what it also returns."""


class _Recorded(NamedTuple):
    images: Tensor
    labels: Tensor
    results: Any
    replay: Callable[[], None]


class Replayed:
    """A step that is recorded and replayed; called as it is."""

    def __init__(self, step: Step, recorder: Recorder) -> None:
        self._step, self._recorder = step, recorder
        self._state: tuple[Tensors, Tensors] | None = None
        self._recorded: _Recorded | None = None
        self._seen: dict[tuple[torch.Size, torch.Size], int] = {}

    def __call__(self, parameters: Tensors, statistics: Tensors, images: Tensor, labels: Tensor) -> Any:
        """The step's results; those of a replay are overwritten by the next."""
        self._of(parameters, statistics)
        found = self._recorded
        if found is None:
            shapes = images.shape, labels.shape
            self._seen[shapes] = self._seen.get(shapes, 0) + 1
            if self._seen[shapes] <= WARM:
                return self._step(parameters, statistics, images, labels)
            own = images.clone(), labels.clone()
            results, replay = self._recorder(lambda: self._step(parameters, statistics, *own))
            self._recorded = found = _Recorded(*own, results, replay)
        elif (images.shape, labels.shape) != (found.images.shape, found.labels.shape):
            return self._step(parameters, statistics, images, labels)
        found.images.copy_(images)
        found.labels.copy_(labels)
        found.replay()
        return found.results

    def _of(self, parameters: Tensors, statistics: Tensors) -> None:
        """Begin anew where it is another state: its memory is held as long as it is this one's turn."""
        if self._state is None or self._state[0] is not parameters or self._state[1] is not statistics:
            self._state, self._recorded, self._seen = (parameters, statistics), None, {}


def by_cuda(device: torch.device, function: Callable[[], Any]) -> tuple[Any, Callable[[], None]]:
    """Record on a CUDA device; what another one's streams are given would not be in the graph, and nothing would say so."""
    torch.cuda.empty_cache()  # what steps before it held would stay beside the graph's own memory
    with torch.cuda.device(device):
        graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # untyped in torch
        with torch.cuda.graph(graph, stream=stream):
            results = function()
    return results, graph.replay


def kept(results: Any) -> Any:
    """Copies of a replay's results, for who holds them longer than a step."""
    return tree_map(lambda value: value.clone() if isinstance(value, Tensor) else value, results)
