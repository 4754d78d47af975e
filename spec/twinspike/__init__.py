"""Twinspike: what joint training of an artificial and a spiking network means, and what implements it.

This package is the specification: configs, clauses, the network description, parameters and their
initial values, the operations table, the backend contract and the float64 reference. It needs NumPy
and msgspec alone and loads no framework.
"""

from twinspike.backend import Backend, Capabilities, Evaluation, Metrics, Program, Session
from twinspike.clauses import CLAUSES, Clause
from twinspike.config import (
    SGD,
    Adam,
    AdamW,
    Arctan,
    BatchNorm,
    Constant,
    Cosine,
    Factorization,
    FastSigmoid,
    Free,
    Loss,
    Method,
    Neuron,
    Optimizer,
    Penalty,
    Rectangle,
    Retract,
    Schedule,
    Sigmoid,
    Surrogate,
    Tanh,
    Triangle,
    Twin,
)
from twinspike.errors import SpecError
from twinspike.mark import Mark, read_marks
from twinspike.network import Network
from twinspike.operations import OPERATIONS, Operation
from twinspike.parameters import Entry, State, initial_state, layout
from twinspike.precision import PRECISIONS, Precision
from twinspike.registry import load, names, survey
from twinspike.schedule import learning_rate
from twinspike.zoo import ZOO, network

__version__ = "0.1.0"

__all__ = [
    "CLAUSES", "OPERATIONS", "PRECISIONS", "SGD", "ZOO", "Adam", "AdamW", "Arctan", "Backend", "BatchNorm",
    "Capabilities", "Clause", "Constant", "Cosine", "Entry", "Evaluation", "Factorization", "FastSigmoid", "Free",
    "Loss", "Mark", "Method", "Metrics", "Network", "Neuron", "Operation", "Optimizer", "Penalty", "Precision", "Program",
    "Rectangle", "Retract", "Schedule", "Session", "Sigmoid", "SpecError", "State", "Surrogate", "Tanh", "Triangle",
    "Twin", "initial_state", "layout", "learning_rate", "load", "names", "network", "read_marks", "survey",
]  # fmt: skip
