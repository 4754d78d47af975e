"""The record of a run brought back to a checkpoint: never shortened without a word, and nothing of it thrown away."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from twinspike.errors import refuse, require
from twinspike_training import metrics
from twinspike_training.files import FILE, found

TAKEN_BACK = "taken-back.jsonl"
"""File beside the record that gets what is cut off."""


def tells_of_steps(path: Path) -> bool:
    """Whether a record has lines of more than the beginnings of sessions; SpecError if it is none."""
    return os.path.lexists(path) and any(line["kind"] != "session" for line in metrics.read(path))


def require_plain(path: Path) -> None:
    """Refuse a record, or what gets its end, that is no plain file: a pipe would be waited for, a link written through."""
    for file in (path, path.with_name(TAKEN_BACK)):
        what = found(file, follow=False)
        require(what == FILE or not os.path.lexists(file), str(file), expected="a plain file", got=what, do="move it away")


def rewind(path: Path, length: int, step: int, before_cut: Callable[[], object] = lambda: None) -> list[str]:
    """Cut a record back to a checkpoint, at the end of a line; what is cut off is added to `TAKEN_BACK` beside it.

    Args:
        path: of `metrics.jsonl`, which need not be there.
        length: of the record when the checkpoint was written, in bytes.
        step: of the checkpoint, for the lines.
        before_cut: called once the end is kept and before it is cut off: what must not happen if that fails.

    Returns:
        Lines that say what was done and what is missing; none where the record is as it was.

    Raises:
        SpecError: the record, or what gets its end, is no plain file or can't be read and written.
    """
    require_plain(path)
    beside = path.with_name(TAKEN_BACK)
    try:
        content = path.read_bytes() if os.path.lexists(path) else b""
        kept = content.rfind(b"\n", 0, length) + 1
        taken = content[kept:]
        if taken:
            # First there, then no longer here: a kill between the two doubles lines in a file that nothing is read from.
            with beside.open("ab") as end:
                end.write(taken.removesuffix(b"\n") + b"\n")
                end.flush()
                os.fsync(end.fileno())
        before_cut()
        if taken:
            os.truncate(path, kept)
    except OSError as error:
        got = f"{error.strerror}: {error.filename}"
        raise refuse(str(path), expected="a record that can be read and cut back", got=got) from None
    said = []
    if kept < length:
        said.append(f"{path}: {kept:,} bytes in whole lines are left of {length:,} that were written by step {step:,}")
    if taken:
        lines = len(taken.splitlines())
        said.append(f"{path}: {lines:,} {'line' if lines == 1 else 'lines'} after step {step:,} taken back, kept in {beside}")
    return said
