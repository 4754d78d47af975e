"""Bytes and launches of one joint training step on an H100, counted without one: `python benchmarks/traffic.py jax|torch`.

XLA compiles jax's whole step for the card (`described.py`); torch's is the eager one (`traffic_torch.py`). Each kernel is
counted with all its operands and results: what it would move if nothing of them were found in a cache, and if it read all
that it is given. So the sum is a number that a change of the program can be judged by, not a time. For jax one of the GPU
machine's version with its CUDA plugin is needed, `tox run -e traffic`; for torch Triton.
"""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from described import Described
from measure import PACKAGES, ROOT, header, versions, write

WIDTHS = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "f32": 4, "s32": 4, "u32": 4, "f64": 8, "s64": 8, "u64": 8}
"""Bytes of an element by XLA's name of its format."""
FREE = {"parameter", "get-tuple-element", "tuple", "bitcast", "constant", "after-all", "partition-id"}
"""Instructions that launch nothing."""
GIGA = 1e9


class Kernel(NamedTuple):
    """One launch."""

    kind: str
    """Instruction, and its target or kind of fusion; convolutions with the format of their result."""
    source: str
    """What of the program it computes, by jax's names."""
    bytes: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("backend", choices=["jax", "torch"])
    parser.add_argument("--network", default="resnet18")
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--time-steps", type=int, default=4)
    parser.add_argument("--precision", default="bf16-mixed")
    parser.add_argument("--top", type=int, default=25, help="rows of the table of sources")
    parser.add_argument("--text", type=Path, help="jax: a file for XLA's text of the step")
    parser.add_argument("--save", action="store_true", help="into benchmarks/results")
    options = parser.parse_args()
    name = f"traffic_{options.backend}"
    found = header(name)
    sys.path[:0] = [str(ROOT / "spec"), str(ROOT / "backends")]  # where the project is not installed
    # each needs its own framework alone
    launched = list(by_xla(options) if options.backend == "jax" else importlib.import_module("traffic_torch").count(options))
    found |= {
        "precision": options.precision,
        "batch_size": options.batch_size,
        "launches": len(launched),
        "gigabytes": round(sum(kernel.bytes for kernel in launched) / GIGA, 2),
        "kinds": grouped(launched, "kind"),
        "versions": versions((*PACKAGES, "jax-cuda13-plugin")),
    }
    print(f"{found['launches']} launches, {found['gigabytes']} GB")
    for title, rows in ("kind", found["kinds"]), ("source", grouped(launched, "source")[: options.top]):
        print(f"\n{title:90s} launches     GB")
        for row in rows:
            print(f"{row[title][-90:]:90s} {row['launches']:8d} {row['gigabytes']:6.2f}")
    if options.save:
        print(write(name, found))


def by_xla(options: argparse.Namespace) -> Iterator[Kernel]:
    """Those of jax's step, and beside them what memory it takes."""
    compiled = step(Described(), options)
    text = compiled.as_text()
    if options.text:
        options.text.write_text(text, encoding="utf-8")
    print(f"{compiled.memory_analysis().temp_size_in_bytes / GIGA:.2f} GB of temporary memory")
    return kernels(text)


def step(described: Described, options: argparse.Namespace) -> Any:
    """jax's joint step with the optimizer, compiled."""
    import jax
    import jax.numpy as jnp

    import twinspike as ts
    from twinspike.network import infer_shapes
    from twinspike_jax import neuron_triton
    from twinspike_jax.precision import policy
    from twinspike_jax.program import JaxProgram

    setattr(neuron_triton, "missing", lambda: None)  # noqa: B010  # it asks a device that is there
    network, method, optimizer = ts.network(options.network), ts.Method(time_steps=options.time_steps), ts.SGD()
    casts = policy(options.precision)
    program = JaxProgram(network, method, optimizer, casts=casts, device=described.device, compiled=True)
    params = {e.name: described.array(e.shape, jnp.float32) for e in program._layout if e.trained}
    statistics = {e.name: described.array(e.shape, jnp.float32) for e in program._layout if e.kind == "statistic"}
    state = jax.eval_shape(program._transform.init, params)
    slots = jax.tree.map(lambda a: described.array(a.shape, a.dtype), state)
    images = described.array((options.batch_size, *infer_shapes(network)["input"]), jnp.float32)
    labels, rate = described.array((options.batch_size,), jnp.int32), described.array((), jnp.float32)
    return described.compile(program._update, params, statistics, slots, images, labels, rate)


def kernels(text: str) -> Iterator[Kernel]:
    """Those of XLA's entry computation, in order, with what it calls."""
    bodies = {match[1]: match[2] for match in re.finditer(r"^(?:ENTRY )?%?([\w.\-]+) \(.*?\{\n(.*?)^\}", text, re.M | re.S)}
    entry = re.search(r"^ENTRY %?([\w.\-]+)", text, re.M)
    if entry is None:
        raise ValueError("XLA's text has no entry computation")
    yield from _launched(bodies, entry[1])


def _launched(bodies: dict[str, str], name: str) -> Iterator[Kernel]:
    types: dict[str, str] = {}
    for line in bodies[name].splitlines():
        source = re.search(r'op_name="([^"]*)"', line)
        plain = re.sub(r", metadata=\{.*?\}", "", line)
        match = re.match(r"\s+(?:ROOT )?%(\S+) = (\(.*?\)|\S+) ([a-z][a-z0-9-]*)\((.*)", plain)
        if match is None:
            continue
        result, kind, rest = match[2], match[3], match[4]
        types[match[1]] = result
        if kind in FREE:
            continue
        called = re.search(r"to_apply=%?([\w.\-]+)", rest)
        if kind == "call" and called:
            yield from _launched(bodies, called[1])
            continue
        operands = re.findall(r"%([\w.\-]+)", rest.split("), ")[0])
        moved = size(result) + sum(size(types.get(operand, "")) for operand in operands)
        yield Kernel(_kind(kind, rest, result), _source(source[1] if source else "?"), moved)


def _kind(kind: str, rest: str, result: str) -> str:
    target = re.search(r'custom_call_target="([^"]+)"', rest)
    fused = re.search(r"kind=(\w+)", rest)
    described = " ".join([kind, *(match[1] for match in (target, fused) if match)])
    return f"{described} {result.lstrip('(').partition('[')[0]}" if target and "conv" in target[1] else described


def _source(name: str) -> str:
    """The innermost of jax's names: F where it is run forward, B where it is transposed."""
    way = "B" if "transpose(" in name else "F"
    return f"{way} {'/'.join(name.split('/')[-2:])}"


def size(types: str) -> int:
    """Bytes of an array, or of a tuple of them, by XLA's text of the type."""
    found = 0
    for form, shape in re.findall(r"\b([a-z]+\d*)\[([\d,]*)\]", types):
        count = 1
        for extent in shape.split(","):
            count *= int(extent) if extent else 1
        found += count * WIDTHS[form]
    return found


def grouped(launched: list[Kernel], by: str) -> list[dict[str, Any]]:
    """Launches and gigabytes by kind or source, the most bytes first."""
    totals: dict[str, list[int]] = {}
    for kernel in launched:
        total = totals.setdefault(getattr(kernel, by), [0, 0])
        total[0] += 1
        total[1] += kernel.bytes
    rows = [{by: name, "launches": count, "gigabytes": round(moved / GIGA, 2)} for name, (count, moved) in totals.items()]
    return sorted(rows, key=lambda row: -float(row["gigabytes"]))


if __name__ == "__main__":
    main()
