"""Learned quantities of the neuron stay in their domain (clause OPT-8)."""

from __future__ import annotations

import pytest
import torch

from twinspike_torch.optimizer import project_


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_leaves_the_interval_becomes_its_ends_and_all_else_stays_to_the_bit(dtype: torch.dtype, device: str) -> None:
    """A NaN stays one, so that a run that diverged is seen to."""
    given = torch.tensor([-3.0, 0.1, 0.3, 7.0, torch.nan], dtype=dtype, device=device, requires_grad=True)
    for domain, wanted in (((0.2, 1.0), [0.2, 0.2, 0.3, 1.0, torch.nan]), ((0.2, torch.inf), [0.2, 0.2, 0.3, 7.0, torch.nan])):
        parameter = given.detach().clone().requires_grad_()
        project_(parameter, domain)
        assert torch.equal(parameter.nan_to_num(99.0), torch.tensor(wanted, dtype=dtype, device=device).nan_to_num(99.0))
