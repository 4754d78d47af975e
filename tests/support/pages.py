"""The Python of a page of the documentation, run block after block as a reader would."""

from __future__ import annotations

import io
import re
from contextlib import redirect_stdout
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"


def run(page: str) -> list[str]:
    """Run a page's blocks in one namespace.

    Returns:
        What was printed, line by line; where a `print` has a comment behind it, the two are the same but for what follows in
        the comment.
    """
    blocks = re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 2
    namespace: dict[str, object] = {}
    printed: list[str] = []
    for block in blocks:
        out = io.StringIO()
        with redirect_stdout(out):
            exec(compile(block, page, "exec"), namespace)
        lines = out.getvalue().splitlines()
        said = [line for line in block.splitlines() if line.startswith("print(")]
        assert len(lines) == len(said)
        for line, statement in zip(lines, said, strict=True):
            _, _, comment = statement.partition("  # ")
            assert not comment or line in comment, (line, comment)
        printed += lines
    return printed
