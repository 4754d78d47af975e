"""A failing example as Python code that needs NumPy and the backend alone: numbers in hexadecimal, a network's in a file."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from twinspike.config import encode
from twinspike.operations import OPERATIONS, Operation
from twinspike.precision import PRECISIONS
from twinspike.setting import write
from twinspike_conformance.cases import CASES, Example, materialize
from twinspike_conformance.cases.networks import setting
from twinspike_conformance.checks.base import Bench

MOST = 4000
"""Numbers that are written out; a larger array is given by the example's digest alone."""


def _array(name: str, value: np.ndarray[Any, Any]) -> str:
    flat = ", ".join(str(int(v)) if value.dtype.kind in "iu" else f'h("{float(v).hex()}")' for v in value.ravel())
    form = value.dtype if value.dtype.kind in "iu" else "FORM"
    return f"{name} = np.array([{flat}], dtype={'np.int64' if form != 'FORM' else 'FORM'}).reshape({value.shape})"


def reproduction(bench: Bench, example: Example, *others: Bench) -> str:
    """Code that runs the example's operation on one backend or several and prints the answers beside the reference's."""
    if example.operation not in CASES:
        return f"# replay it with the digest; --code writes its numbers and a script\n# {example.operation} {example.config}"
    precision = PRECISIONS[bench.session.precision]
    material = materialize(CASES[example.operation], example, precision.activations)
    row = OPERATIONS[example.operation]
    kind = type(material.config)
    arrays = {f"{n}": v for n, v in material.inputs.items()} | {f"g_{n}": v for n, v in material.cotangents.items()}
    if sum(v.size for v in arrays.values()) > MOST:
        return f"# more than {MOST} numbers: replay it with the digest"
    lines = [
        "import numpy as np, twinspike",
        "from twinspike.config import decode",
        f"from {kind.__module__} import {kind.__name__}",
        "",
        f"h, FORM = float.fromhex, np.{precision.storage}",
        f"config = decode({kind.__name__}, {example.config!r})",
        *(_array(name, value) for name, value in arrays.items()),
        f"inputs = {{{', '.join(f'{n!r}: {n}' for n in material.inputs)}}}",
        f"g = {{{', '.join(f'{n!r}: g_{n}' for n in material.cotangents)}}}",
        f"row = twinspike.OPERATIONS[{row.name!r}]",
        "f64 = lambda d: {k: v.astype(np.float64) if v.dtype.kind == 'f' else v for k, v in d.items()}",
        "want = row.forward(config, f64(inputs))",
    ]
    if row.adjoint is not None:
        lines.append("want |= {'gradient of ' + k: v for k, v in row.adjoint(config, f64(inputs), f64(g)).items()}")
    lines.append("for k, v in want.items(): print('reference', k, v)")
    return "\n".join([*lines, *(line for side in (bench, *others) for line in _asked(side, row))])


def _opened(bench: Bench) -> list[str]:
    """Lines that open one backend's session."""
    session, given = bench.session, bench.given or bench.backend.name
    # the registry knows neither the corpus nor files
    loader = "twinspike_conformance.run.opening" if given.startswith("mutant:") or given.endswith(".toml") else "twinspike"
    return [
        f"from {loader} import load",
        f"session = load({given!r}).session({session.device!r}, {session.precision!r}, {session.compiled})",
    ]


def _asked(bench: Bench, row: Operation) -> list[str]:
    """Lines that ask one backend and print its answer."""
    given, tensors = bench.given or bench.backend.name, "{k: t(v) for k, v in inputs.items()}"
    lines = [*_opened(bench), "t = session.from_numpy"]
    if row.adjoint is None:
        lines.append(f"got = session.forward({row.name!r}, config, {tensors})")
    else:
        lines += [
            f"got, found = session.vjp({row.name!r}, config, {tensors}, {{k: t(v) for k, v in g.items()}})",
            "got |= {'gradient of ' + k: v for k, v in found.items()}",
        ]
    return [*lines, f"for k, v in got.items(): print({given!r}, k, session.to_numpy(v))"]


_NETWORK = """# What a backend computes of one network, state and batch, beside the reference in float64.
# Needs NumPy, twinspike and the backend. A spike that rounding turns moves all that is behind it.
from pathlib import Path

import numpy as np
from twinspike.config import Method, {optimizer}, decode
from twinspike.network import Network
from twinspike.reference import step

network = decode(Network, {network!r})
method = decode(Method, {method!r})
optimizer = decode({optimizer}, {constants!r})
RATE = 0.125
with np.load(Path(__file__).with_suffix(".npz")) as file:
    state = dict(file)
images, labels = state.pop("images")[0], state.pop("labels")[0]
del state["config"]


def arrays(trace, gradients, after, evaluation, numpy=np.array):
    found = {{f"trace {{layer}} {{k}}": v for layer, tap in trace.items() for k, v in tap.items()}}
    found |= {{f"gradient of {{k}}": v for k, v in gradients.items()}}
    found |= {{f"after a step {{k}}": v for k, v in after.items()}}
    found |= {{f"evaluation {{k}}": numpy(getattr(evaluation, k)) for k in ("logits_ann", "logits_snn", "spike_rates")}}
    return {{k: np.asarray(v, np.float64) for k, v in found.items()}}


batch = (images, labels)
want = arrays(
    step.trace(network, method, state, images, training=True, labels=labels),
    step.gradients(network, method, state, *batch)[0],
    step.train_step(network, method, optimizer, state, *batch, RATE)[0],
    step.evaluate(network, method, state, images),
)
"""

_NETWORK_ASKED = """program = session.program(network, method, optimizer)
got = arrays(
    program.trace(program.load(state), images, training=True, labels=labels),
    program.gradients(program.load(state), *batch)[0],
    program.dump(program.train_step(program.load(state), *batch, RATE)[0]),
    program.evaluate(program.load(state), images),
    session.to_numpy,
)
for k, v in want.items():
    v = v if v.shape == got[k].shape else v.sum(axis=0, keepdims=True)  # over steps that see the same, as one gradient
    print({given!r}, k, "largest difference", np.abs(got[k] - v).max(initial=0.0), "of", np.abs(v).max(initial=0.0))"""


def write_network(folder: Path, bench: Bench, example: Example, *others: Bench) -> tuple[Path, Path]:
    """Write the numbers of an example of networks, and a script that shows it without the suite.

    Args:
        folder: made where it is not there.
        bench: the backend that is asked.
        example: of a check of networks.
        others: more backends to ask.

    Returns:
        The script, and the file of numbers that lies beside it.
    """
    s = setting(example, PRECISIONS[bench.session.precision].storage)
    name = f"network-{hashlib.blake2b(example.digest().encode(), digest_size=4).hexdigest()}"
    script, numbers = folder / f"{name}.py", folder / f"{name}.npz"
    folder.mkdir(parents=True, exist_ok=True)
    write(numbers, s)
    described = {"network": encode(s.network), "method": encode(s.method), "constants": encode(s.optimizer)}
    parts = [_NETWORK.format(optimizer=type(s.optimizer).__name__, **described)]
    for side in (bench, *others):
        parts += [*_opened(side), _NETWORK_ASKED.format(given=side.given or side.backend.name)]
    script.write_text("\n".join(parts) + "\n", encoding="utf-8")
    return script, numbers
