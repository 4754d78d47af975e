"""A realistic report, made by hand: what the tests of the suite's reports and its page's screenshots show."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from twinspike.operations import OPERATIONS
from twinspike_conformance.report.record import Failure, Header, KillRow, Record, Report, Side, Waiver

REPRODUCTION = """\
import numpy as np
from twinspike import load
from twinspike.config import Neuron

session = load("torch").session(device="cpu", precision="f32-ieee")
x = np.array([float.fromhex("0x1.0000000000000p-1")], np.float32).reshape(1, 1, 1)  # exactly the threshold
out = session.forward("lif", Neuron(threshold=0.5), {"x": session.from_numpy(x)})
assert session.to_numpy(out["s"])[0, 0, 0] == 1.0  # <LIF-2>: equality fires
"""

FAILURE = Failure(
    digest="operation[lif-exact]:eNqrViouSSxJVbJSUMrJTFOqBQAxAgV1",
    sentences=(
        "s[0, 0, 0]: expected exactly 0x1.0000000000000p+0 (1), got 0x0.0p+0 (0), error/bound inf",
        "gradient of x[0, 1, 2]: expected exactly 0x1.8p-3 (0.1875), got 0x1.0p-2 (0.25), error/bound inf",
    ),
    reproduction=REPRODUCTION,
    suspects=("lif-strict: fires where u > threshold instead of u >= threshold",),
    clauses=("LIF-2", "LIF-6"),
    example="lif {} {'T': 1} dyadic seed 0",
)


def header(**changes: Any) -> Header:
    """A run of torch on a CPU, with changes."""
    base = Header(
        suite_version="0.1.0",
        spec_version="0.1.0",
        backend="torch",
        given="torch",
        versions={"torch": "2.13.0", "numpy": "2.3.1"},
        device="cpu",
        device_name="a CPU <of 2 cores>",
        precision="f32-ieee",
        compiled=False,
        flags={"float32_matmul_precision": "highest", "deterministic_algorithms": "True", "cudnn.allow_tf32": "False"},
        profile="ci",
        seed=7,
        python="3.11.7",
        platform="Linux-6.1-x86_64",
        packages=("numpy==2.3.1", "torch==2.13.0", "twinspike==0.1.0"),
        started="2026-05-04T10:20:30+00:00",
        seconds=192.4,
    )
    return msgspec.structs.replace(base, **changes)


def side(**changes: Any) -> Side:
    """The second backend of a cross run, jax on the same CPU, with changes."""
    base = Side(
        backend="jax",
        given="jax",
        versions={"jax": "0.10.2", "numpy": "2.3.1"},
        device="cpu",
        device_name="a CPU <of 2 cores>",
        compiled=False,
        flags={"jax_enable_x64": "True"},
    )
    return msgspec.structs.replace(base, **changes)


def operations() -> list[Record]:
    """An exact and a bounded test per operation of the table, all passed, with numbers of a plausible size."""
    found = []
    for i, row in enumerate(OPERATIONS.values()):
        rung = "certificate" if row.name in ("lif", "spike", "factorize", "retract") else "bound"
        spread = (0, 2 * i, 40 + 9 * i, 260 - 5 * i, 300 - 11 * i, 80 + i, 12 if i % 3 else 0, 0)
        worst = 0.31 / (1 + i % 5) if spread[6] else 0.08 / (1 + i % 4)
        if row.name == "compose":
            spread, worst = (500, 80, 21, 0, 0, 0, 0, 0), 7.4e-4
        exact = Record(
            id=f"operation[{row.name}-exact]",
            sentence=f"On dyadic data {row.name} agrees bit for bit with the reference.",
            clauses=row.clauses,
            rung="exact",
            status="pass",
            examples=48,
            comparisons=192 + i,
            seconds=0.8 + 0.37 * (i % 7),
            compile_seconds=0.5 + 0.1 * (i % 7),
        )
        rounded = Record(
            id=f"operation[{row.name}-rounded]",
            sentence=f"On any data {row.name} is as near as its rounding allows.",
            clauses=row.clauses,
            rung=rung,
            status="pass",
            examples=60,
            comparisons=sum(spread),
            worst_ratio=worst,
            ratios=spread,
            seconds=2.1 + 0.9 * (i % 5),
            compile_seconds=0.9,
        )
        found += [exact, rounded]
    return found


KILLS = (
    KillRow(
        fault="lif-strict", description="fires where u > threshold", origin="a library's documentation says >= and its code >",
        clause="LIF-2", base="numpy", killers=("operation[lif-exact]", "operation[spike-exact]", "network[tiny-conv]"),
        rungs=("exact", "exact", "certificate"), examples=(1, 2, 9),
    ),
    KillRow(
        fault="bn-biased", description="running variance with n in the place of n - 1", origin="", clause="BN-4", base="torch",
        killers=("operation[batch_norm_train-rounded]", "step[sgd]"), rungs=("bound", "property"), examples=(3, 40),
    ),
    KillRow(
        fault="sur-closed", description="window |z| <= width/2", origin="", clause="SUR-2", base="jax",
        killers=("operation[spike-exact]",), rungs=("exact",), examples=(12,),
    ),
    KillRow(
        fault="dis-shift", description="softmax of logits shifted by one", origin="", clause="DIS-2", base="numpy",
        killers=(), rungs=(), examples=(), equivalent="softmax(x + c) = softmax(x) for every c, and c = 1 is exact on the grid.",
    ),
    KillRow(
        fault="opt-late", description="decay applied after momentum", origin="an issue of 2019", clause="OPT-1", base="torch",
        killers=(), rungs=(), examples=(),
    ),
)  # fmt: skip


def passing(**changes: Any) -> Report:
    """Everything passes."""
    return Report(header=header(**changes), records=tuple(operations()))


def report(**changes: Any) -> Report:
    """Of every status one or more: a failure with a reproduction, waivers, an inconclusive test, survivors among the faults."""
    records = {record.id: record for record in operations()}
    lif = records["operation[lif-exact]"]
    records[lif.id] = msgspec.structs.replace(lif, status="fail", worst_ratio=math.inf, failure=FAILURE)
    step = records["operation[optimizer_step-rounded]"]
    records[step.id] = msgspec.structs.replace(
        step, status="error", reason="RuntimeError: expected scalar type Float but found Double", ratios=(), worst_ratio=0.0
    )
    conv = records["operation[conv2d-rounded]"]
    records[conv.id] = msgspec.structs.replace(
        conv,
        status="waived",
        worst_ratio=3.2,
        ratios=(0, 0, 20, 300, 280, 90, 11, 4),
        comparisons=705,
        reason="the accelerator's library uses TF32 in spite of the flag",
        waiver=Waiver(status="fail", url="https://example.org/issues/12", expires="2026-06-01"),
    )
    for name in ("operation[factorize-rounded]", "operation[retract-exact]", "operation[retract-rounded]"):
        records[name] = msgspec.structs.replace(
            records[name], status="not supported", reason="not among the operations that the backend claims", examples=0,
            comparisons=0, ratios=(), worst_ratio=0.0, seconds=0.0, compile_seconds=0.0,
        )  # fmt: skip
    more = (
        Record(
            id="network[resnet19-spikes]", sentence="A network's spikes follow from its potentials.", clauses=("LIF-2", "LIF-5"),
            rung="certificate", status="inconclusive", reason="0.4 % of decisions were open, above the cap of 0.1 %",
            examples=6, comparisons=400, ambiguous=0.004, seconds=31.0, compile_seconds=24.0,
        ),
        Record(
            id="device[cuda]", sentence="Results are on the device asked for.", clauses=("PRE-4",), rung="property",
            status="not run", reason="the run was limited to -k operation",
        ),
    )  # fmt: skip
    return Report(header=header(**changes), records=(*records.values(), *more), kills=KILLS)
