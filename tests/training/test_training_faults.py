"""The corpus of training faults: which of them a certified run sees, at the first judged step, and that the table says so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from certified_runs import small
from training_faults import Fault
from training_faults_of_runs import FAULTS as RUNS
from training_faults_of_steps import FAULTS as STEPS
from training_runs import quiet

from twinspike.errors import SpecError
from twinspike_training import loop

FAULTS = (*STEPS, *RUNS)
FIRST = 3
"""Step from which on steps go wrong; every second is judged, so that step 2 is right and 4 is not."""

PAGE = Path(__file__).parents[2] / "docs" / "training-faults.md"


def said(folder: Path, fault: Fault, patch: pytest.MonkeyPatch) -> str:
    """The line that a run with the fault ends with; empty where it ends well."""
    limits = ("data.limit=24", "training.epochs=1") if "data.limit=18" not in fault.changes else ("training.epochs=2",)
    config = small(folder, *limits, "training.max_steps=4", *fault.changes)
    try:
        if fault.load is not None:
            half = loop.start(small(folder, *limits, "training.max_steps=3", *fault.changes), quiet())
            fault.put(patch, FIRST)
            loop.resume(half.folder, config, quiet())
        else:
            fault.put(patch, FIRST)
            loop.start(config, quiet())
    except SpecError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.id)
def test_a_fault_ends_the_run_at_the_first_step_that_is_judged(
    fault: Fault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = said(tmp_path, fault, monkeypatch)
    if fault.blind:
        assert not found
    else:
        assert fault.seen in found
        beside = fault.load or fault.evaluate or fault.patch  # what is no step's own is told where it happens
        assert found.startswith(("state after", "evaluation of") if beside else "step 4 is not certified: ")
        assert "\n" not in found


def test_the_table_is_the_corpus_and_its_rate_is_the_one_that_is_seen() -> None:
    text = PAGE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z-]+)` \| (.*?) \| (.*?) \| (.*?) \|$", text, re.MULTILINE)
    assert [(row[0], row[1], row[2]) for row in rows] == [(f.id, f.says, f.after) for f in FAULTS]
    assert all(row[3].startswith("no: ") == fault.blind for row, fault in zip(rows, FAULTS, strict=True))
    seen = sum(not fault.blind for fault in FAULTS)
    assert f"{seen} of {len(FAULTS)} are seen" in " ".join(text.split())


def test_faults_are_told_apart() -> None:
    assert len({fault.id for fault in FAULTS}) == len(FAULTS)
