"""What is asked of a library: examples of the suite's kinds of numbers, one per combination of options and surrogate.

The suite pairs options, which is few examples; a library that can express a quarter of them would be asked next to nothing.
Here every combination is asked, so that each clause is asked with everything that the library can express beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from twinspike.config import Neuron, Surrogate, encode
from twinspike_conformance.cases import CASES, Example
from twinspike_conformance.cases import neuron as suite

RESETS = (("hard", 0.0), ("hard", -0.25), ("soft", 0.0))
SCOPES = (*(("constant", "constant"),) * 3, ("layer", "constant"), ("constant", "layer"), ("channel", "channel"))
"""Of decay and threshold; three times constants, which are all that some libraries have."""
SHAPES = (0, 1, 2, 3)
"""Buckets of the suite's cases that are small."""
SURROGATES: tuple[Surrogate, ...] = (*suite.SURROGATES, *suite.STEEP)
"""All that are asked, in the order in which one is chosen for the neuron."""


def of_spike() -> Iterator[Example]:
    """Every surrogate, at one threshold with few bits and one with many, on numbers of each family."""
    cases = CASES["spike"]
    for i, (form, threshold) in enumerate(product(SURROGATES, (1.0, 0.7))):
        config = encode(Neuron(surrogate=form, threshold=threshold))
        for k, family in enumerate(("normal", "heavy", "constant", "near_constant", "boundary", "far")):
            yield Example("spike", config, cases.buckets[(i + k) % 2], family, False, i + k)


def of_lif(form: Surrogate) -> Iterator[Example]:
    """Every combination of options with one surrogate, on exact numbers and on others."""
    cases, i = CASES["lif"], 0
    for (reset, v_reset), detach, share, (decay_scope, threshold_scope) in product(RESETS, (False, True), (False, True), SCOPES):
        for exact, decay, threshold in ((True, 0.5, 0.5), (True, 0.25, 1.0), (False, 0.75, 0.5), (False, 0.3, 0.7)):
            neuron = Neuron(
                decay=decay, threshold=threshold, surrogate=form, reset=reset, v_reset=v_reset, detach_reset=detach,  # type: ignore[arg-type]
                decay_input=share, decay_scope=decay_scope, threshold_scope=threshold_scope,  # type: ignore[arg-type]
            )  # fmt: skip
            families = cases.exact_families if exact else ("normal", "heavy", "boundary", "tiny")
            yield Example("lif", encode(neuron), cases.buckets[SHAPES[i % 4]], families[i // 4 % 4], exact, i)
            i += 1
