"""A failing example as Python code that needs NumPy and the backend alone, numbers in hexadecimal."""

from __future__ import annotations

from typing import Any

import numpy as np

from twinspike.operations import OPERATIONS, Operation
from twinspike.precision import PRECISIONS
from twinspike_conformance.cases import CASES, Example, materialize
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
        return f"# replay it with the digest\n# {example.operation} {example.config}"
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


def _asked(bench: Bench, row: Operation) -> list[str]:
    """Lines that ask one backend and print its answer."""
    session, given = bench.session, bench.given or bench.backend.name
    tensors = "{k: t(v) for k, v in inputs.items()}"
    # the registry knows neither the corpus nor files
    loader = "twinspike_conformance.run.opening" if given.startswith("mutant:") or given.endswith(".toml") else "twinspike"
    lines = [
        f"from {loader} import load",
        f"session = load({given!r}).session({session.device!r}, {session.precision!r}, {session.compiled})",
        "t = session.from_numpy",
    ]
    if row.adjoint is None:
        lines.append(f"got = session.forward({row.name!r}, config, {tensors})")
    else:
        lines += [
            f"got, found = session.vjp({row.name!r}, config, {tensors}, {{k: t(v) for k, v in g.items()}})",
            "got |= {'gradient of ' + k: v for k, v in found.items()}",
        ]
    return [*lines, f"for k, v in got.items(): print({given!r}, k, session.to_numpy(v))"]
