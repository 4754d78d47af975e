"""The authors' arrays under the specification's names, and how far a backend's are from them, group by group.

Both start from one state of the specification and take the same steps on the same batches in float64. What is compared
after the first: logits, features, the loss and every gradient; after the first and the last: every parameter and every
running statistic. A deviation is the largest difference over an array's largest element, of a group the worst array's.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import twinspike as ts
from twinspike.backend import Program, Session
from twinspike.config import TWINS
from twinspike.parameters import initial_state, layout

Arrays = dict[str, NDArray[Any]]
Table = dict[str, float]
"""Group -> deviation."""

NETWORK = ts.network("resnet18", classes=10)
METHOD = ts.Method(linear_init="fan_out")
"""The defaults of the method are those of their code; the heads' initial values only put the loss where theirs is."""
OPTIMIZER = ts.SGD(weight_decay=5e-4)

_MODULES = (
    (r"stem\.conv", "conv1"),
    (r"stem\.norm", "bn1"),
    (r"stage(\d)\.(\d)\.(\d)\.conv", lambda m: f"layer{m[1]}.{int(m[2]) - 1}.conv{m[3]}"),
    (r"stage(\d)\.(\d)\.(\d)\.norm", lambda m: f"layer{m[1]}.{int(m[2]) - 1}.bn{m[3]}"),
    (r"stage(\d)\.(\d)\.shortcut\.conv", lambda m: f"layer{m[1]}.{int(m[2]) - 1}.downsample.0"),
    (r"stage(\d)\.(\d)\.shortcut\.norm", lambda m: f"layer{m[1]}.{int(m[2]) - 1}.downsample.1"),
    (r"branch(\d)\.(\d)\.conv", lambda m: f"bottleneck{m[1]}_1.{3 * int(m[2]) - 3}"),
    (r"branch(\d)\.(\d)\.norm", lambda m: f"bottleneck{m[1]}_1.{3 * int(m[2]) - 2}"),
    (r"branch(\d)\.head", lambda m: f"middle_fc{m[1]}"),
    (r"main\.head", "fc"),
)
"""Layer of the specification -> their module."""

_QUANTITIES = {"gamma": "weight", "beta": "bias", "mean": "running_mean", "var": "running_var"}

_OUTPUTS = (1, 2, 3, 0)
"""Where the exits, in order of depth, lie among their outputs; features follow four places later."""


def their_name(name: str) -> str:
    """Their name of an array, from the specification's, as in `their_name("stem.norm.mean_snn") == "bn1.bn_snn.running_mean"`."""
    layer, _, part = name.rpartition(".")
    (module,) = (re.sub(pattern, to, layer) for pattern, to in _MODULES if re.fullmatch(pattern, layer))
    quantity, _, twin = part.partition("_")
    return f"{module}.bn_{twin}.{_QUANTITIES[quantity]}" if quantity in _QUANTITIES else f"{module}.{part}"


def group(name: str) -> str:
    """What an array is, without its layer."""
    part = name.rpartition(".")[2]
    return {"weight": "heads", "bias": "heads' biases"}.get(part.partition("_")[0], part)


class Theirs:
    """Their model in the specification's terms."""

    def __init__(self, loaded: Any, state: Mapping[str, NDArray[Any]]) -> None:
        """Put a state into a loaded model (`authors.Authors`)."""
        self._loaded, self._seen = loaded, []  # type: ignore[var-annotated]
        self._names = [entry.name for entry in layout(NETWORK, METHOD)]
        arrays = {**dict(loaded.model.named_parameters()), **dict(loaded.model.named_buffers())}
        self._arrays = {name: arrays[their_name(name)] for name in self._names}
        with torch.no_grad():
            for name, array in self._arrays.items():
                array.copy_(torch.from_numpy(np.array(state[name])))
        loaded.model.register_forward_hook(lambda *a: self._seen.append(a[-1]))

    def step(self, images: NDArray[Any], labels: NDArray[Any]) -> Arrays:
        """One step; the loss, logits and features that it saw."""
        self._seen.clear()
        found: Arrays = {"loss": np.asarray(self._loaded.step(images, labels))}
        for twin, outputs in zip(TWINS, self._seen[0], strict=True):
            found[f"logits_{twin}"] = np.stack([outputs[i].detach().numpy() for i in _OUTPUTS])
            found[f"features_{twin}"] = np.stack([outputs[i + 4].detach().flatten(1).numpy() for i in _OUTPUTS])
        return found

    def gradients(self) -> Arrays:
        """Of the last step."""
        return {name: array.grad.numpy().copy() for name, array in self._arrays.items() if array.grad is not None}

    def state(self) -> Arrays:
        """Parameters and statistics."""
        return {name: array.detach().numpy().copy() for name, array in self._arrays.items()}


def _outputs(session: Session, program: Program, state: Any, images: Any, labels: Any) -> tuple[Arrays, Arrays]:
    """(loss, logits and features; gradients) of a backend."""
    gradients, metrics = program.gradients(state, images, labels)
    taps = program.trace(state, images, training=True)
    found: Arrays = {"loss": session.to_numpy(metrics.loss)}
    for end in ("logits", "features"):
        for twin in TWINS:
            layers = [exit_.head if end == "logits" else exit_.feature for exit_ in NETWORK.exits]
            values = [np.asarray(taps[layer][twin]) for layer in layers]
            found[f"{end}_{twin}"] = np.stack([v.sum(axis=0) if twin == "snn" else v for v in values])
    return found, {name: np.asarray(g) for name, g in gradients.items()}


def deviations(found: Arrays, want: Arrays, prefix: str = "") -> Table:
    """By group; arrays that only one side has are an error."""
    assert found.keys() == want.keys(), sorted(found.keys() ^ want.keys())
    worst: dict[str, float] = defaultdict(float)
    for name, right in want.items():
        assert found[name].shape == right.shape, name
        worst[prefix + group(name)] = max(
            worst[prefix + group(name)], float(np.abs(found[name] - right).max() / np.abs(right).max())
        )
    return dict(worst)


def compared(
    loaded: Any, backend: str, batches: list[tuple[Any, Any]], rate: float, time_steps: int
) -> tuple[Table, Table, Table]:
    """A backend beside their code.

    Args:
        loaded: `authors.load` of precision f64, fresh.
        backend: which.
        batches: of as many steps.
        rate: learning rate of every step, as `loaded` has it.
        time_steps: T, likewise.

    Returns:
        Deviations of the first step's outputs and gradients, of the arrays after it, and after the last.
    """
    method = ts.Method(time_steps=time_steps, linear_init=METHOD.linear_init)
    start = initial_state(NETWORK, method, OPTIMIZER, seed=0)
    theirs = Theirs(loaded, start)
    session = ts.load(backend).session("cpu", "f64")
    program = session.program(NETWORK, method, OPTIMIZER)
    state = program.load(start)
    after: list[Table] = []
    first: Table = {}
    for number, (images, labels) in enumerate(batches):
        want = theirs.step(images, labels)
        if number == 0:
            outputs, gradients = _outputs(session, program, state, images, labels)
            first = deviations(outputs, want) | deviations(gradients, theirs.gradients(), "gradient of ")
        state, _ = program.train_step(state, images, labels, rate)
        if number in (0, len(batches) - 1):
            right = theirs.state()
            values = program.dump(state)
            after.append(deviations({name: np.asarray(values[name]) for name in right}, right))
    return first, after[0], after[-1]
