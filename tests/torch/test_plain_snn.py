"""In a plain spiking network the artificial twin has no part: its gradients are there, and 0."""

from __future__ import annotations

import pytest
from plain_snn import influenced

import twinspike


@pytest.mark.parametrize("recompute", [False, True])
def test_a_plain_spiking_network_learns_as_if_it_were_alone(recompute: bool) -> None:
    assert influenced(twinspike.load("torch").session("cpu", "f64"), recompute=recompute) == []
