"""One network with its method and optimizer on a device: the training step as a function of an explicit state."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call

from twinspike.backend import Evaluation, Metrics
from twinspike.checks import check_batch, check_images, check_rate
from twinspike.config import Method, Optimizer, Penalty, Retract, Twin
from twinspike.errors import require
from twinspike.network import Network, infer_shapes
from twinspike.parameters import STEP, State, check_state, decays, domain, is_factored, layer_and_part, layout, slots
from twinspike.replicas import check_same, digest
from twinspike_torch import factorization, losses
from twinspike_torch.arrays import to_device, to_host
from twinspike_torch.compiling import compiled, compiler_warnings_ignored
from twinspike_torch.convolution import channels_last
from twinspike_torch.graphs import Recorder, Replayed, Step, kept
from twinspike_torch.lif_kernels import Kernel
from twinspike_torch.network import TwinNetwork, TwinOutput
from twinspike_torch.optimizer import project_, update_
from twinspike_torch.precision import activations, arithmetic, storage
from twinspike_torch.replicas import Ranks
from twinspike_torch.weights import readout

Tensors = dict[str, Tensor]


class ProgramState:
    """Parameters, statistics and optimizer slots on a device, and the number of steps taken."""

    __slots__ = ("parameters", "slots", "spent", "statistics", "step")

    def __init__(self, parameters: Tensors, statistics: Tensors, slots: Tensors, step: int) -> None:
        self.parameters = parameters
        self.statistics = statistics
        self.slots = slots
        self.step = step
        self.spent = False


class _Report(NamedTuple):
    """What the objective gives besides the loss; all detached."""

    terms: losses.Terms
    penalty: Tensor
    correct_ann: Tensor
    correct_snn: Tensor
    spike_rate: Tensor


@final
class TorchProgram:
    """One network, method and optimizer; states are independent of one another and of the program."""

    def __init__(
        self,
        network: Network,
        method: Method,
        optimizer: Optimizer,
        device: torch.device,
        precision: str,
        compile_: bool,
        recompute: bool,
        kernel: Kernel = "auto",
        ranks: Ranks | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        self._network, self._method, self._optimizer = network, method, optimizer
        self._device, self._precision, self._ranks = device, precision, ranks
        self._layout = layout(network, method, optimizer)
        form = {"activations": activations(precision), "dtype": storage(precision), "kernel": kernel}
        # Bodies without values: every call brings its own.
        self._training = TwinNetwork(network, method, recompute=recompute, ranks=ranks, device="meta", **form).train()  # type: ignore[arg-type]  # heterogeneous
        self._evaluation = TwinNetwork(network, method, device="meta", **form).eval()  # type: ignore[arg-type]  # heterogeneous
        self._factored = tuple(layer.name for layer in network.layers if is_factored(layer, method.factorization))
        wrap: Callable[[Callable[..., Any]], Callable[..., Any]] = compiled if compile_ else lambda function: function
        self._objective = wrap(_objective(self._training, self._factored, self._shares(), ranks))
        self._outputs = wrap(_outputs(self._evaluation))
        self._replayed = None if recorder is None else Replayed(self._found, recorder)
        trained = [entry for entry in self._layout if entry.trained]
        self._groups = [(flag, [e.name for e in trained if decays(e, optimizer) is flag]) for flag in (True, False)]
        self._domains = {e.name: within for e in trained if (within := domain(e, method)) is not None}

    def load(self, values: Mapping[str, NDArray[Any]]) -> ProgramState:
        """Put a state onto the device; SpecError if a name, shape or value does not fit."""
        check_state(values, self._layout)
        if self._ranks is not None:
            check_same(self._ranks, digest(values), "state")
        found: dict[str, Tensors] = {"parameter": {}, "statistic": {}, "slot": {}}
        with arithmetic(self._precision):
            for entry in self._layout:
                if entry.kind != "counter":
                    kind = "parameter" if entry.trained else entry.kind
                    tensor = to_device(values[entry.name], self._device, storage(self._precision))
                    found[kind][entry.name] = tensor.requires_grad_(entry.trained)
        return ProgramState(found["parameter"], found["statistic"], found["slot"], int(values[STEP]))

    def dump(self, state: ProgramState) -> State:
        """A copy as NumPy arrays, floats in the storage format."""
        _check_fresh(state)
        tensors = state.parameters | state.statistics | state.slots
        counter = np.asarray(state.step, dtype=np.int64)
        with arithmetic(self._precision):
            return {e.name: counter if e.kind == "counter" else to_host(tensors[e.name]) for e in self._layout}

    def train_step(
        self, state: ProgramState, images: NDArray[Any], labels: NDArray[Any], learning_rate: float
    ) -> tuple[ProgramState, Metrics]:
        """One optimizer step on one batch, and a retraction where due; the given state is used up.

        Raises:
            SpecError: the batch or the learning rate does not fit, or the state is used up.
        """
        _check_fresh(state)
        check_batch(self._network, self._method, images, labels)
        check_rate(learning_rate)
        self._check_shares(labels)
        with arithmetic(self._precision), compiler_warnings_ignored():
            found = self._found if self._replayed is None else self._replayed
            gradients, metrics = self._gradients(state.parameters, state.statistics, images, labels, found)
            state.spent = True
            step = state.step + 1
            after = ProgramState(state.parameters, state.statistics, state.slots, step)
            for flag, names in self._groups:
                update_(
                    self._optimizer,
                    [after.parameters[name] for name in names],
                    [gradients[name] for name in names],
                    {slot: [after.slots[f"optimizer/{slot}/{name}"] for name in names] for slot in slots(self._optimizer)},
                    decays=flag,
                    learning_rate=learning_rate,
                    step=step,
                )
            for name, within in self._domains.items():
                project_(after.parameters[name], within)
            self._retract(after)
            return after, metrics

    def gradients(self, state: ProgramState, images: NDArray[Any], labels: NDArray[Any]) -> tuple[State, Metrics]:
        """Gradient of the loss for every trained entry, by name; SpecError if the batch does not fit."""
        _check_fresh(state)
        check_batch(self._network, self._method, images, labels)
        self._check_shares(labels)
        with arithmetic(self._precision), compiler_warnings_ignored():
            statistics = {name: value.clone() for name, value in state.statistics.items()}
            gradients, metrics = self._gradients(state.parameters, statistics, images, labels, self._found)
            return {name: to_host(g) for name, g in gradients.items()}, metrics

    def evaluate(self, state: ProgramState, images: NDArray[Any]) -> Evaluation:
        """Both twins in evaluation mode; SpecError if the images don't fit."""
        _check_fresh(state)
        check_images(self._network, self._method, images)
        with arithmetic(self._precision), compiler_warnings_ignored():
            out: TwinOutput = self._outputs(state.parameters, state.statistics, self._images(images))
            rates = out.logits_ann.new_zeros(0) if out.spike_rates is None else out.spike_rates
            return Evaluation(logits_ann=out.logits_ann, logits_snn=_reduced(self._method, out), spike_rates=rates)

    def trace(
        self, state: ProgramState, images: NDArray[Any], *, training: bool = False, labels: NDArray[Any] | None = None
    ) -> dict[str, dict[str, NDArray[Any]]]:
        """Both twins' inner values by layer, with labels their gradients; never compiled. SpecError if the batch does not fit."""
        _check_fresh(state)
        if labels is None:
            check_images(self._network, self._method, images)
        else:
            check_batch(self._network, self._method, images, labels)
            self._check_shares(labels)
        taps: dict[str, dict[str, NDArray[Any]]] = {layer.name: {} for layer in self._network.layers}
        seen: dict[tuple[str, Twin], Tensor] = {}
        steps, shapes = self._method.time_steps, infer_shapes(self._network)

        def every_step(layer: str, twin: Twin, y: Tensor) -> bool:
            """Whether one value serves all steps of the spiking twin."""
            return twin == "snn" and y.ndim == 1 + len(shapes[layer])

        def tap(layer: str, twin: Twin, y: Tensor, u: Tensor | None) -> None:
            seen[layer, twin] = y
            taps[layer][twin] = to_host(y.expand(steps, *y.shape) if every_step(layer, twin, y) else y)
            if u is not None:
                taps[layer]["u"] = to_host(u)

        with arithmetic(self._precision, gradients=labels is not None):
            statistics = {name: value.clone() for name, value in state.statistics.items()}
            body = _Tapped(self._training if training else self._evaluation)
            values = {f"body.{name}": value for name, value in (state.parameters | statistics).items()}
            out: TwinOutput = functional_call(body, values, (self._images(images), tap))
            if labels is not None:
                y = to_device(labels, self._device, storage(self._precision))
                loss = losses.joint_loss(*out[:4], y, config=self._method.loss, replicas=self._replicas).loss
                found = torch.autograd.grad(loss, [*seen.values(), *state.parameters.values()])
                if self._ranks is not None:
                    self._ranks.sum_(found[len(seen) :])
                for ((layer, twin), value), g in zip(seen.items(), found, strict=False):
                    taps[layer][f"g_{twin}"] = to_host(g[None] if every_step(layer, twin, value) else g)
                for name, g in zip(state.parameters, found[len(seen) :], strict=True):
                    layer, part = layer_and_part(name)
                    taps[layer][f"d_{part}"] = to_host(g)
        return taps

    def _found(self, parameters: Tensors, statistics: Tensors, images: Tensor, labels: Tensor) -> tuple[list[Tensor], _Report]:
        """Gradients in the order of the parameters, of this rank; the given statistics move."""
        with torch.enable_grad():
            loss, report = self._objective(parameters, statistics, images, labels)
            found = torch.autograd.grad(loss, list(parameters.values()))
        return list(found), report._replace(terms=report.terms._replace(loss=loss.detach()))

    def _gradients(
        self, parameters: Tensors, statistics: Tensors, images: NDArray[Any], labels: NDArray[Any], step: Step
    ) -> tuple[Tensors, Metrics]:
        """Gradients by name, by a step such as `_found`; the given statistics move. Within `arithmetic`."""
        y = to_device(labels, self._device, storage(self._precision))
        found, report = step(parameters, statistics, self._images(images), y)
        if step is self._replayed:  # metrics are read later than the next step
            report = kept(report)
        if self._ranks is not None:
            self._ranks.sum_(found)
            report = _together(report, self._ranks)
            if self._method.batch_norm.replicas == "local":
                _average(list(statistics.values()), self._ranks)
        rest = {name: value for name, value in report._asdict().items() if name != "terms"}
        return dict(zip(parameters, found, strict=True)), Metrics(**report.terms._asdict(), **rest)

    def _retract(self, state: ProgramState) -> None:
        """Clause ORT-3."""
        orthogonality = self._method.factorization.orthogonality
        if isinstance(orthogonality, Retract) and state.step % orthogonality.every == 0:
            for name in self._factored:
                u, v = state.parameters[f"{name}.U"], state.parameters[f"{name}.V"]
                for old, new in zip((u, v), factorization.retract(u, v, by=orthogonality.by), strict=True):
                    old.copy_(new)
                if self._ranks is not None:  # decompositions of different processors round differently
                    self._ranks.first_((u, v))

    @property
    def _replicas(self) -> int:
        return 1 if self._ranks is None else self._ranks.world_size

    def _check_shares(self, labels: NDArray[Any]) -> None:
        if self._ranks is not None:
            self._ranks.check_shares(len(labels))

    def _images(self, images: NDArray[Any]) -> Tensor:
        x = to_device(images, self._device, storage(self._precision))
        # Tensor cores read channels last, as kernels of norms do; a copy here saves one per convolution.
        return channels_last(x) if x.device.type == "cuda" and x.ndim >= 4 else x

    def _shares(self) -> Tensor:
        """Each activation layer's share of all neurons, (L,)."""
        shapes = infer_shapes(self._network)
        sizes = torch.tensor([math.prod(shapes[name]) for name in self._network.activations], dtype=torch.float64)
        return (sizes / sizes.sum()).to(device=self._device, dtype=storage(self._precision))


class _Tapped(torch.nn.Module):
    """Calls `TwinNetwork.run` with a tap, for `functional_call`."""

    def __init__(self, body: TwinNetwork) -> None:
        super().__init__()
        self.body = body

    def forward(self, images: Tensor, tap: Callable[[str, Twin, Tensor, Tensor | None], None]) -> TwinOutput:
        return self.body.run(images, tap=tap)


def _objective(
    body: TwinNetwork, factored: tuple[str, ...], shares: Tensor, ranks: Ranks | None = None
) -> Callable[[Tensors, Tensors, Tensor, Tensor], tuple[Tensor, _Report]]:
    """The loss of a batch, or what this rank adds to it, as a function of all values; moves the statistics given to it."""
    method = body.method
    orthogonality = method.factorization.orthogonality
    replicas, penalized = (1, True) if ranks is None else (ranks.world_size, ranks.rank == 0)  # a penalty counts once

    def objective(parameters: Tensors, statistics: Tensors, images: Tensor, labels: Tensor) -> tuple[Tensor, _Report]:
        out: TwinOutput = functional_call(body, (parameters, statistics), (images,), {"spike_rates": True})
        terms = losses.joint_loss(*out[:4], labels, config=method.loss, replicas=replicas)
        penalty = torch.zeros_like(terms.loss)
        if isinstance(orthogonality, Penalty) and penalized:
            for name in factored:
                deviation = factorization.penalty(parameters[f"{name}.U"], parameters[f"{name}.V"])
                penalty = penalty + orthogonality.weight * deviation
        loss = terms.loss + penalty
        with torch.no_grad():
            rate = torch.zeros_like(terms.loss) if out.spike_rates is None else (out.spike_rates * shares).sum()
            report = _Report(
                terms=terms._replace(loss=loss.detach()),
                penalty=penalty.detach(),
                correct_ann=_correct(out.logits_ann[-1], labels),
                correct_snn=_correct(_reduced(method, out)[-1], labels),
                spike_rate=rate,
            )
        return loss, report

    return objective


def _together(report: _Report, ranks: Ranks) -> _Report:
    """The ranks' reports as that of the global batch (clause DEV-2)."""
    values = [*report.terms, *report[1:]]
    total = torch.stack([value.double() for value in values])
    ranks.sum_([total])
    total[-1] /= ranks.world_size
    terms, rest = total[: len(report.terms)], total[len(report.terms) :]
    found = [new.to(old.dtype) for new, old in zip((*terms, *rest), values, strict=True)]
    return _Report(losses.Terms(*found[: len(terms)]), *found[len(terms) :])


@torch.no_grad()
def _average(statistics: list[Tensor], ranks: Ranks) -> None:
    """The means over the ranks, in place (clause DEV-4)."""
    means = ranks.gathered(torch.cat(statistics)).double().mean(0)
    for statistic, mean in zip(statistics, torch.split(means, [s.numel() for s in statistics]), strict=True):
        statistic.copy_(mean)


def _outputs(body: TwinNetwork) -> Callable[[Tensors, Tensors, Tensor], TwinOutput]:
    def outputs(parameters: Tensors, statistics: Tensors, images: Tensor) -> TwinOutput:
        out: TwinOutput = functional_call(body, (parameters, statistics), (images,), {"spike_rates": True})
        return out

    return outputs


def _reduced(method: Method, out: TwinOutput) -> Tensor:
    """Logits of the spiking twin, (N, B, K), reduced over time."""
    return readout(out.logits_snn, method.readout) if method.loss.per_step else out.logits_snn


def _correct(logits: Tensor, labels: Tensor) -> Tensor:
    """Samples whose largest logit, the first of equals, is the label's (clause OUT-3)."""
    return (logits.argmax(-1) == labels).sum()


def _check_fresh(state: ProgramState) -> None:
    require(not state.spent, "state", expected="the state that the last train_step returned", got="one that it used up")
