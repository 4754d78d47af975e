"""Examples for every operation: configs, shapes and the filling of arrays, one module per chapter."""

from twinspike_conformance.cases import layers, losses, neuron, norm, optimizer, weights
from twinspike_conformance.cases.base import Cases, Example, Material, materialize

CASES: dict[str, Cases] = {
    case.operation: case
    for module in (neuron, weights, layers, norm, losses, optimizer)
    for case in module.CASES
}  # fmt: skip
"""Operation -> its examples; a test says that every row of the operations table is here."""

__all__ = ["CASES", "Cases", "Example", "Material", "materialize"]
