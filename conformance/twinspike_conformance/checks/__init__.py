"""The checks of the suite, generated from the operations table: add a row, and it is tested."""

from twinspike_conformance.checks import laws, networks, operations, options, refusals, relations, steps
from twinspike_conformance.checks.base import Bench, Check, Space

CHECKS: dict[str, Check] = {
    check.id: check for module in (operations, relations, options, laws, refusals, networks, steps) for check in module.CHECKS
}  # fmt: skip
"""Id -> check, in the order in which they run."""

__all__ = ["CHECKS", "Bench", "Check", "Space"]
