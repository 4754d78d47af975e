"""Faults of what ranks do are found, and a right implementation over ranks is accused of nothing (clauses DEV-*)."""

from __future__ import annotations

from collections import Counter

import pytest

from twinspike.clauses import BY_ID
from twinspike_conformance.faults.ranks import FAULTS, RankFault
from twinspike_conformance.strength.ranks import asked, bench, killers


def test_right_ranks_are_accused_of_nothing() -> None:
    for what, found in asked(bench(None)):
        assert found, what
        assert [finding.sentence() for finding in found if not finding.ok] == [], what


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.id)
def test_every_fault_of_ranks_is_found_twice(fault: RankFault) -> None:
    assert len(killers(fault)) == 2


def test_every_clause_of_many_devices_has_two_faults() -> None:
    """But for DEV-6, which is a matter of the data that are handed in."""
    assert len({fault.id for fault in FAULTS}) == len(FAULTS) >= 40
    counts = Counter(fault.clause for fault in FAULTS)
    must = {name for name, clause in BY_ID.items() if name.startswith("DEV-") and clause.level == "MUST"}
    assert {name for name in must if counts[name] < 2} == {"DEV-6"}
    assert set(counts) <= must
