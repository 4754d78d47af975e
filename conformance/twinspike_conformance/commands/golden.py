"""Golden vectors: examples of every operation as files, for implementations that no Python can call.

`python -m twinspike_conformance golden DIR` writes them; `DIR --check` proves that the files there hold
what the reference computes; `DIR --answers DIR2` judges an implementation's answers to them by the
suite's own rules, certificates included. The format is told in the documentation, page Conformance.
"""

from __future__ import annotations

import argparse
import math
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

import twinspike
from twinspike.config import Neuron, Rectangle
from twinspike.errors import refuse, require
from twinspike.operations import OPERATIONS, TABLE, Operation
from twinspike.precision import PRECISIONS
from twinspike_conformance.bounds.finding import Finding, compare
from twinspike_conformance.bounds.tracked import Tracked
from twinspike_conformance.cases import CASES, Example, Material, materialize
from twinspike_conformance.cases.base import config_of
from twinspike_conformance.checks.base import Space, space_of
from twinspike_conformance.judges import certificates
from twinspike_conformance.judges.operations import GRADIENT, Answer, allowed, ask, judge, proved_exact, roundoff_of, track
from twinspike_conformance.judges.variant import tracked
from twinspike_conformance.strength.innocent import InnocentBackend

Values = NDArray[Any]
Arrays = dict[str, Values]

SCHEMA = 1
INDEX = "golden.json"
PRECISION = PRECISIONS["f32-ieee"]
"""What the bounds hold for, and the format that the inputs are exact in."""

PER_LANE = 3
"""Examples per operation and lane, each of another config where there are as many."""
MOST = 400
"""Numbers that go into one example, so that all files together stay small."""
SIZES = {"conv2d": {"B": 2, "I": 3, "O": 2, "H": 5, "W": 4, "k": 2}}
"""Shapes of operations whose cases are all larger than that."""

GROUPS = ("inputs", "cotangents", "outputs", "gradients", "output_bounds", "gradient_bounds")
WHOLE = ("labels", "step")
"""Inputs that are integers."""

CERTIFIED = ("factorize", "retract")
"""Operations whose result is not unique: properties are demanded, not values."""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One example in the index; its numbers are one float64 array in `file`, named by the example's id."""

    id: str
    operation: str
    config: Any
    clauses: tuple[str, ...]
    comparison: str
    """exact: bit for bit. bound: within `output_bounds` and `gradient_bounds`. properties: see there."""
    file: str
    arrays: tuple[tuple[str, str, tuple[int, ...]], ...]
    """(group, name, shape) of what lies in that array, one after the other, each in row-major order."""
    properties: dict[str, float] = {}
    """Of results that are not unique: what must hold -> the largest deviation allowed."""


class Index(msgspec.Struct, frozen=True, kw_only=True):
    """What `golden.json` holds."""

    schema: int
    specification: str
    precision: str
    examples: tuple[Entry, ...]


class Vector(msgspec.Struct, frozen=True):
    """One example with its arrays: group -> name -> array."""

    entry: Entry
    arrays: dict[str, Arrays]


# --- making them -------------------------------------------------------------------------------------


def vectors() -> Iterator[Vector]:
    """Every golden vector, in the order of the operations table."""
    for row in TABLE:
        for exact in (True, False):
            space = space_of(row.name, exact)
            if space is not None:
                lane = "exact" if exact else "rounded"
                for i, (example, material) in enumerate(_chosen(row, space)):
                    yield _vector(row, f"{row.name}-{lane}-{i}", example, material)


def _chosen(row: Operation, space: Space) -> Iterator[tuple[Example, Material]]:
    """The first small examples, each of another config while there are some, which decide nothing by a hair."""
    found, step = 0, max(1, len(space.configs) // PER_LANE)
    for i in range(64 * len(space.configs)):
        if found == PER_LANE:
            return
        example = space.at(found * step, i, found + i // 8, i)
        example = msgspec.structs.replace(example, sizes=SIZES.get(row.name, example.sizes))
        material = materialize(CASES[row.name], example, PRECISION.activations)
        size = sum(v.size for v in (*material.inputs.values(), *material.cotangents.values()))
        fits = size <= MOST and max(example.sizes.values()) > 1
        if fits and (proved_exact(example, material, PRECISION) if example.exact else _decided(row, material)):
            found += 1
            yield example, material
    raise AssertionError(f"{row.name}: no {PER_LANE} examples of at most {MOST} numbers")


def _decided(row: Operation, material: Material) -> bool:
    """Whether no spike and no window's edge is within rounding, so that all implementations decide alike."""
    neuron = material.config
    if not isinstance(neuron, Neuron):
        return True
    if any(np.ndim(material.inputs.get(name, 0.0)) for name in ("decay", "threshold")):
        return False  # a bound of the whole is there for one number alone
    unit = roundoff_of(PRECISION)
    if row.name == "spike":
        u: Any = Tracked(material.inputs["u"], roundoff=unit)
        theta = u._lift(neuron.threshold)
    else:
        u = tracked()["rows"].lif(neuron, track(material.inputs, PRECISION))["u"]
        theta = certificates.quantities_of(neuron, material.inputs, unit)[1]
    z = u - theta
    sure = bool((np.abs(z.value) > z.error).all())
    if isinstance(neuron.surrogate, Rectangle):
        sure = sure and bool((np.abs(np.abs(z.value) - neuron.surrogate.width / 2) > z.error).all())
    return sure


def _vector(row: Operation, name: str, example: Example, material: Material) -> Vector:
    config = material.config
    groups: dict[str, Arrays] = {group: {} for group in GROUPS} | {
        "inputs": material.inputs,
        "cotangents": material.cotangents,
        "outputs": dict(row.forward(config, material.inputs)),
    }
    if row.adjoint is not None:
        groups["gradients"] = dict(row.adjoint(config, material.inputs, material.cotangents))
    comparison = "exact" if example.exact else "properties" if row.name in CERTIFIED else "bound"
    properties = {}
    if comparison == "bound":
        groups |= _bounds(row, material)
    if comparison == "properties":
        session = InnocentBackend("plain", None).session()
        found = judge(row, example, material, ask(session, row, material), PRECISION)
        properties = {f.quantity: _up(np.asarray(f.bound)).item() for f in found if f.rung == "certificate"}
    entry = Entry(
        id=name,
        operation=row.name,
        config=msgspec.json.decode(msgspec.json.encode(example.config)),  # as it is read again
        clauses=row.clauses,
        comparison=comparison,
        file=f"{row.name}.npz",
        arrays=tuple((group, k, np.shape(v)) for group, named in groups.items() for k, v in named.items()),
        properties=properties,
    )
    return Vector(entry, groups)


def _bounds(row: Operation, material: Material) -> dict[str, Arrays]:
    """How far a right implementation in float32 may be from each number."""
    right = allowed(row, material.config, material.inputs, material.cotangents, PRECISION)
    results: dict[str, Arrays] = {}
    for name, (_, bound) in right.items():
        group = "gradient_bounds" if name.startswith(GRADIENT) else "output_bounds"
        results.setdefault(group, {})[name.removeprefix(GRADIENT)] = _up(bound)
    return results


def _up(bound: Values) -> Values:
    """To float32, never below."""
    near = np.asarray(bound).astype(np.float32)
    return np.where(near < bound, np.nextafter(near, np.float32(np.inf)), near)


# --- files -------------------------------------------------------------------------------------------


def write(folder: Path) -> Index:
    """Write all vectors: the index and one file of arrays per operation."""
    folder.mkdir(parents=True, exist_ok=True)
    made = list(vectors())
    files: dict[str, Arrays] = {}
    for vector in made:
        numbers = [np.ravel(vector.arrays[group][name]) for group, name, _ in vector.entry.arrays]
        files.setdefault(vector.entry.file, {})[vector.entry.id] = np.concatenate(numbers, dtype=np.float64)
    for file, held in files.items():
        np.savez_compressed(folder / file, allow_pickle=False, **held)
    index = Index(
        schema=SCHEMA,
        specification=twinspike.__version__,
        precision=PRECISION.name,
        examples=tuple(vector.entry for vector in made),
    )
    head, _, _ = msgspec.json.encode(msgspec.structs.replace(index, examples=())).partition(b"]")
    lines = b",\n".join(map(msgspec.json.encode, index.examples))  # a line each, so that a change shows as such
    (folder / INDEX).write_bytes(head + b"\n" + lines + b"\n]}\n")
    return index


def read(folder: Path) -> list[Vector]:
    """Read vectors; SpecError if the index or an array is missing, damaged or of another schema."""
    index = _index(folder / INDEX)
    require(index.schema == SCHEMA, str(folder / INDEX), expected=f"schema {SCHEMA}", got=index.schema)
    files = {file: arrays(folder / file) for file in sorted({entry.file for entry in index.examples})}
    return [Vector(entry, _apart(entry, files[entry.file], GROUPS)) for entry in index.examples]


def _index(path: Path) -> Index:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Index)
    except (OSError, ValueError, RecursionError) as error:  # a DecodeError is a ValueError
        raise refuse(str(path), expected="the index of golden vectors", got=" ".join(str(error).split())) from None


def arrays(path: Path) -> Arrays:
    """The arrays of an npz file; SpecError if it is none."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise refuse(str(path), expected="a file of arrays (npz)", got=" ".join(str(error).split())) from None


def _apart(entry: Entry, held: Mapping[str, Values], groups: Sequence[str]) -> dict[str, Arrays]:
    """The arrays of some groups of an example from the flat one that holds them."""
    wanted = [(group, name, shape) for group, name, shape in entry.arrays if group in groups]
    size = sum(math.prod(shape) for *_, shape in wanted)
    require(entry.id in held, entry.id, expected=f"{size} numbers in {entry.file}", got="nothing")
    flat = held[entry.id]
    require(flat.shape == (size,), entry.id, expected=f"{size} numbers", got=f"shape {flat.shape}")
    found: dict[str, Arrays] = {group: {} for group in groups}
    for group, name, shape in wanted:
        part, flat = flat[: math.prod(shape)], flat[math.prod(shape) :]
        found[group][name] = part.reshape(shape)
    return found


# --- judging -----------------------------------------------------------------------------------------


def judged(vector: Vector, outputs: Arrays, gradients: Arrays, precision: str) -> list[Finding]:
    """What the suite says about an answer to a vector, formats and all.

    Args:
        vector: as `read` gives it.
        outputs: name -> array in the storage format.
        gradients: likewise; empty for operations that have none.
        precision: `f32-ieee` or `f64`.
    """
    row, example, material = _stored(vector)
    beside = outputs if row.adjoint is not None else {}
    answer = Answer(outputs, gradients, outputs, beside, material.inputs, material.cotangents)
    return judge(row, example, material, answer, PRECISIONS[precision])


def _stored(vector: Vector) -> tuple[Operation, Example, Material]:
    """The example that a vector holds; its numbers are in the files, so that no family or seed is wanted."""
    entry = vector.entry
    require(entry.operation in OPERATIONS, entry.id, expected="an operation of the table", got=entry.operation)
    example = Example(entry.operation, entry.config, {}, "stored", entry.comparison == "exact", 0)
    inputs = {k: v.astype(np.int64) if k in WHOLE else v for k, v in vector.arrays["inputs"].items()}
    material = Material(config_of(CASES[entry.operation], example), inputs, vector.arrays["cotangents"])
    return OPERATIONS[entry.operation], example, material


def check(folder: Path) -> Iterator[str]:
    """Everything that is wrong with written vectors, in sentences.

    The stored outputs are an answer in float64, and judged as one. Stored bounds were rounded up to float32;
    a library that rounds otherwise in float64 can shift that by one place, 2^-23 of the bound, and no more.
    """
    found = read(folder)
    missing = sorted(set(OPERATIONS) - {vector.entry.operation for vector in found})
    if missing:
        yield f"examples: expected some of every operation, got none of {', '.join(missing)}"
    for vector in found:
        name, (row, example, material) = vector.entry.id, _stored(vector)
        right = _vector(row, name, example, material)
        if _without_numbers(vector.entry) != _without_numbers(right.entry):
            yield f"{name}: its entry in {INDEX} is not what its config and inputs give"
            continue
        if example.exact and not proved_exact(example, material, PRECISION):
            yield f"{name}: its numbers are not exact in {PRECISION.name}"
        if vector.entry.comparison == "bound" and not _decided(row, material):
            yield f"{name}: rounding in {PRECISION.name} may decide a spike of it"
        got = judged(vector, vector.arrays["outputs"], vector.arrays["gradients"], "f64")
        properties = [np.array(list(v.entry.properties.values())) for v in (vector, right)]
        pairs = [("properties", properties[0], properties[1])]
        for group in ("output_bounds", "gradient_bounds"):
            pairs += [(f"{group} of {k}", v, right.arrays[group][k]) for k, v in vector.arrays[group].items()]
        got += [compare(what, a, b, 2.0**-23 * np.abs(b), rung="bound", clauses=()) for what, a, b in pairs]
        yield from (f"{name}: {finding.sentence()}" for finding in got if not finding.ok)


def _without_numbers(entry: Entry) -> bytes:
    """The entry as it is written, but for the deviations that properties allow."""
    return msgspec.json.encode(msgspec.structs.replace(entry, properties=dict.fromkeys(entry.properties, 0.0)))


def answers(folder: Path, given: Path, precision: str) -> Iterator[str]:
    """What is wrong with an implementation's answers, in sentences; operations without a file are not judged.

    Args:
        folder: of the vectors.
        given: of the answers, files and names as in `folder`; arrays hold outputs and gradients in the index's order.
        precision: of the implementation, `f32-ieee` or `f64`.
    """
    for vector in read(folder):
        entry = vector.entry
        if (given / entry.file).exists():
            answer = _apart(entry, arrays(given / entry.file), ("outputs", "gradients"))
            got = judged(vector, answer["outputs"], answer["gradients"], precision)
            yield from (f"{entry.id}: {finding.sentence()}" for finding in got if not finding.ok)


def main(words: list[str]) -> int:
    """0 if all is well, 1 if something is wrong with vectors or answers.

    Raises:
        SpecError: what can't be read.
    """
    parser = argparse.ArgumentParser(prog="twinspike_conformance golden", description=__doc__, allow_abbrev=False)
    parser.add_argument("folder", type=Path, help="of the vectors")
    parser.add_argument("--check", action="store_true", help="verify the files there instead of writing them")
    parser.add_argument("--answers", type=Path, default=None, help="judge the answers in this folder instead")
    parser.add_argument("--precision", default="f32-ieee", choices=("f32-ieee", "f64"), help="of the answers")
    given = parser.parse_args(words)
    if not given.check and given.answers is None:
        index = write(given.folder)
        size = sum(path.stat().st_size for path in given.folder.iterdir())
        print(f"{given.folder}: {len(index.examples)} examples, {math.ceil(size / 1000)} kB")
        return 0
    if not given.check:
        missing = [name for name in OPERATIONS if not (given.answers / f"{name}.npz").exists()]
        require(len(missing) < len(OPERATIONS), str(given.answers), expected="answers, such as lif.npz", got="none")
        print(f"not answered: {', '.join(missing) or 'nothing'}")
    wrong = list(check(given.folder) if given.check else answers(given.folder, given.answers, given.precision))
    print(*wrong, f"{len(wrong)} wrong" if wrong else "all right", sep="\n")
    return 1 if wrong else 0
