"""The fault corpus: the reference with one thing wrong at a time, by which the suite's strength is measured.

A suite is as good as the faults it finds. Every fault is data: a clause, a line of what is wrong, where it
was seen, and the changes of the reference's text that make it. Clauses FAC-1, BN-7, ORT-1, INI-*, RND-*, SCH-*
and ENE-* have none: they bind layouts, initial values, metrics, random streams, schedules and counts, which the
specification computes itself and no backend answers for; those of the counts stand beside their test. PRE-2 has
one alone: its others need a base in bf16-mixed.
"""

from __future__ import annotations

from twinspike_conformance.faults import (
    harness,
    layers,
    losses,
    network,
    neuron,
    norm,
    optimizer,
    options,
    precision,
    protocol_sessions,
    sharing,
    sizes,
    sizes_of_learning,
    subtle,
    supervision,
    surrogate,
    values,
    values_of_learning,
    weights,
)
from twinspike_conformance.faults.base import Fault

FAULTS: tuple[Fault, ...] = tuple(
    fault
    for chapter in (
        *(neuron, surrogate, weights, layers, norm, losses, supervision, optimizer),
        *(sharing, network, precision, subtle, sizes, sizes_of_learning, values, values_of_learning),
        *(options, harness, protocol_sessions),
    )
    for fault in chapter.FAULTS
)

BY_ID: dict[str, Fault] = {fault.id: fault for fault in FAULTS}

__all__ = ["BY_ID", "FAULTS", "Fault"]
