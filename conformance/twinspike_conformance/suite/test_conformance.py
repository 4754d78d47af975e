"""Every check of the suite on the backend that the command line names."""

from __future__ import annotations

import pytest

from twinspike_conformance.checks import Check
from twinspike_conformance.plugin import Run


def test_check(check: Check, conformance_run: Run) -> None:
    """The sentence of the check holds on this backend."""
    record = conformance_run.check(check)
    if record.status in ("not supported", "not run"):
        pytest.skip(record.reason)
    if record.failure is not None:
        failure = record.failure
        reason = (f"{record.status}: {record.reason}",) if record.reason else ()
        text = "\n".join(
            (
                "",
                record.sentence,
                *reason,
                *failure.sentences,
                f"example: {failure.example}",
                f"replay: {failure.digest}",
                "",
                failure.reproduction,
            )
        )
        pytest.fail(text + "\n".join(("", *(f"suspect: {s}" for s in failure.suspects))), pytrace=False)
    if record.status != "pass":
        pytest.fail(f"{record.status}: {record.reason}", pytrace=False)
