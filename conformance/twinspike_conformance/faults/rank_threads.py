"""N ranks as threads of this process, each on the reference: a right implementation, or one with a fault of `faults.ranks`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, final

import msgspec
import numpy as np
from numpy.typing import NDArray

from twinspike.backend import Evaluation, Metrics, Program, Session
from twinspike.config import Method, Optimizer
from twinspike.network import Network
from twinspike.parameters import State
from twinspike.replicas import portion, share
from twinspike_conformance.faults.ranks import RIGHT, Dealt, RankFault
from twinspike_conformance.faults.within import Within
from twinspike_conformance.judges import variant
from twinspike_conformance.judges.alike import joined, same

Values = NDArray[Any]


@final
class Ranks:
    """What a rank asks of the others; which rank asks is told by its thread."""

    def __init__(self, size: int, local: bool) -> None:
        self.size, self.local = size, local
        self.norm_size = 1 if local else size
        self._own = threading.local()
        self._slots: list[Any] = [None] * size
        self._barrier = threading.Barrier(size)

    @property
    def rank(self) -> int:
        """Of the thread that asks."""
        rank: int = self._own.rank
        return rank

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value."""
        self._slots[self.rank] = value
        self._barrier.wait()
        found = list(self._slots)
        self._barrier.wait()
        return found

    def sum(self, value: Any) -> Any:
        """Over the ranks, in their order."""
        return np.asarray(np.stack(self.gather(value)).sum(axis=0))

    def mean(self, value: Any) -> Any:
        """Likewise."""
        return self.sum(value) / self.size

    def norm_mean(self, value: Any) -> Any:
        """What a norm takes over the ranks: nothing where it is local."""
        return value if self.local else self.mean(value)

    def run(self, body: Callable[[int], Any]) -> list[Any]:
        """What the body gives on every rank; what the first one raises is raised."""
        found: list[Any] = [None] * self.size
        raised: list[BaseException] = []

        def one(rank: int) -> None:
            self._own.rank = rank
            try:
                with np.errstate(all="ignore"):
                    found[rank] = body(rank)
            except threading.BrokenBarrierError:
                pass
            except Exception as error:  # of a faulty implementation: it is its answer
                raised.append(error)
                self._barrier.abort()

        threads = [threading.Thread(target=one, args=(rank,)) for rank in range(self.size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if raised:
            self._barrier.reset()
            raise raised[0]
        return found


@final
class RankSession(Within):
    """The session within, but for programs, which train over ranks."""

    def __init__(self, inner: Session, replicas: int, fault: RankFault | None = None) -> None:
        super().__init__(inner)
        self._replicas, self._fault = replicas, fault
        self._edits = tuple(RIGHT.values()) if fault is None else fault.edits()

    def program(self, network: Network, method: Method, optimizer: Optimizer, *, recompute: bool = False) -> Program:
        """The reference's, on N ranks."""
        modules = variant.load(self._edits)
        ranks = Ranks(self._replicas, method.batch_norm.replicas == "local")
        for module in modules.values():
            module.__dict__["ranks"] = ranks
        return RankProgram(modules["step"], ranks, self._fault, network, method, optimizer)


@final
class RankProgram:
    """A program whose state is each rank's copy."""

    def __init__(
        self, step: Any, ranks: Ranks, fault: RankFault | None, network: Network, method: Method, optimizer: Optimizer
    ) -> None:
        self._step, self._ranks, self._fault = step, ranks, fault
        self._network, self._method, self._optimizer = network, method, optimizer

    def load(self, values: Mapping[str, Values]) -> list[State]:
        """A copy on every rank."""
        return [{name: np.array(value) for name, value in values.items()} for _ in range(self._ranks.size)]

    def dump(self, state: list[State]) -> State:
        """That of rank 0, if it is every other's."""
        return dict(same("state", state))

    def train_step(self, state: list[State], images: Values, labels: Values, learning_rate: float) -> tuple[list[State], Metrics]:
        """A step of the global batch."""
        parts, form = self._parts(images, labels), (self._network, self._method, self._optimizer)
        found = self._ranks.run(lambda r: self._step.train_step(*form, state[r], *parts[r], learning_rate))
        return [after for after, _ in found], self._metrics([metrics for _, metrics in found])

    def gradients(self, state: list[State], images: Values, labels: Values) -> tuple[dict[str, Values], Metrics]:
        """Gradients of the global batch."""
        parts = self._parts(images, labels)
        found = self._ranks.run(lambda r: self._step.gradients(self._network, self._method, state[r], *parts[r]))
        return same("gradients", [by_name for by_name, _, _ in found]), self._metrics([metrics for _, _, metrics in found])

    def evaluate(self, state: list[State], images: Values) -> Evaluation:
        """Each rank's portion, put together."""
        axis, size = int(self._network.event), self._ranks.size
        samples = images.shape[axis]
        how = "once" if self._fault is None else self._fault.evaluated
        if how == "dropped":
            samples -= samples % size
        indices = np.arange(samples)
        if how == "padded":
            indices = np.concatenate([indices, indices[: -samples % size]])
        parts = [images.take(indices[portion(len(indices), size, r)], axis=axis) for r in range(size)]
        found = [
            self._step.evaluate(self._network, self._method, state[r], part) for r, part in enumerate(parts) if part.shape[axis]
        ]
        sizes = [part.shape[axis] for part in parts if part.shape[axis]]
        rates = sum(one.spike_rates * n for one, n in zip(found, sizes, strict=True)) / sum(sizes)
        logits = {name: np.concatenate([getattr(one, name) for one in found], axis=1) for name in ("logits_ann", "logits_snn")}
        return Evaluation(**logits, spike_rates=np.asarray(rates))

    def trace(
        self, state: list[State], images: Values, *, training: bool = False, labels: Values | None = None
    ) -> dict[str, dict[str, Values]]:
        """The ranks' values one after another, and the gradients of parameters."""
        parts = self._parts(images, labels)
        form = self._network, self._method
        found = self._ranks.run(lambda r: self._step.trace(*form, state[r], parts[r][0], training=training, labels=parts[r][1]))
        return joined(found)

    def _parts(self, images: Values, labels: Values | None) -> list[tuple[Values, Any]]:
        axis = int(self._network.event)
        samples, size = images.shape[axis], self._ranks.size
        share(samples, size, 0)
        own = [_dealt("in order" if self._fault is None else self._fault.dealt, samples, size, r) for r in range(size)]
        return [(images.take(index, axis=axis), None if labels is None else labels[index]) for index in own]

    def _metrics(self, found: list[Metrics]) -> Metrics:
        return Metrics(**same("metrics", [msgspec.structs.asdict(metrics) for metrics in found]))


def _dealt(how: Dealt, samples: int, size: int, rank: int) -> Values:
    """The samples of a rank."""
    index = np.arange(samples)
    match how:
        case "in order":
            return index[share(samples, size, rank)]
        case "twice":
            return index[share(samples, size, 0)]
        case "by turns":
            return index[rank::size]
        case "overlapping":
            return index[share(samples, size, rank)] - min(1, rank)
        case "reversed":
            return index[share(samples, size, size - 1 - rank)]
