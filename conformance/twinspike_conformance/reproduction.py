"""A failing example as Python code that needs NumPy and the backend alone, numbers in hexadecimal."""

from __future__ import annotations

from typing import Any

import numpy as np

from twinspike.operations import OPERATIONS
from twinspike.precision import PRECISIONS
from twinspike_conformance.cases import CASES, Example, materialize
from twinspike_conformance.checks.base import Bench

MOST = 4000
"""Numbers that are written out; a larger array is given by the example's digest alone."""


def _array(name: str, value: np.ndarray[Any, Any]) -> str:
    flat = ", ".join(str(int(v)) if value.dtype.kind in "iu" else f'h("{float(v).hex()}")' for v in value.ravel())
    form = value.dtype if value.dtype.kind in "iu" else "FORM"
    return f"{name} = np.array([{flat}], dtype={'np.int64' if form != 'FORM' else 'FORM'}).reshape({value.shape})"


def reproduction(bench: Bench, example: Example) -> str:
    """Code that runs the example's operation and prints the answer beside the reference's."""
    if example.operation not in CASES:
        return f"# a whole network: replay it with the digest\n# {example.operation} {example.config}"
    session = bench.session
    storage = PRECISIONS[session.precision].storage
    material = materialize(CASES[example.operation], example, PRECISIONS[session.precision].activations)
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
        f"h, FORM = float.fromhex, np.{storage}",
        f"config = decode({kind.__name__}, {example.config!r})",
        *(_array(name, value) for name, value in arrays.items()),
        f"backend = twinspike.load({bench.backend.name!r})",
        f"session = backend.session({session.device!r}, {session.precision!r}, {session.compiled})",
        "t = session.from_numpy",
        f"inputs = {{{', '.join(f'{n!r}: {n}' for n in material.inputs)}}}",
        f"row = twinspike.OPERATIONS[{row.name!r}]",
    ]
    tensors = "{k: t(v) for k, v in inputs.items()}"
    if row.adjoint is None:
        lines += [
            f"got = session.forward({row.name!r}, config, {tensors})",
            "for k, v in row.forward(config, inputs).items(): print(k, session.to_numpy(got[k]), v)",
        ]
    else:
        lines += [
            f"g = {{{', '.join(f'{n!r}: g_{n}' for n in material.cotangents)}}}",
            f"got, gradients = session.vjp({row.name!r}, config, {tensors}, {{k: t(v) for k, v in g.items()}})",
            "f64 = lambda d: {k: v.astype(np.float64) if v.dtype.kind == 'f' else v for k, v in d.items()}",
            "for k, v in row.forward(config, f64(inputs)).items(): print(k, session.to_numpy(got[k]), v)",
            "right = row.adjoint(config, f64(inputs), f64(g))",
            "for k, v in right.items(): print('gradient of', k, session.to_numpy(gradients[k]), v)",
        ]
    return "\n".join(lines)
