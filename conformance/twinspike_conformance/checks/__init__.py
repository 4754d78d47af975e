"""The checks of the suite, generated from the operations table: add a row, and it is tested."""

from twinspike_conformance.checks import (
    cells,
    laws,
    networks,
    operations,
    options,
    parts,
    protocol,
    refusals,
    relations,
    sentinels,
    sizes,
    steps,
    tensors,
)
from twinspike_conformance.checks.base import Bench, Check, Space

_MODULES = (operations, sizes, parts, sentinels, relations, options, laws, refusals, networks, steps, cells, protocol, tensors)

CHECKS: dict[str, Check] = {check.id: check for module in _MODULES for check in module.CHECKS}
"""Id -> check, in the order in which they run."""

__all__ = ["CHECKS", "Bench", "Check", "Space"]
