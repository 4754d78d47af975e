"""A hook of MkDocs: formulas between $$ become MathML when the site is built, which browsers typeset by themselves.

So nothing is fetched when a page is read and no script runs. A formula stands on lines of its own, with a blank line around.
"""

from __future__ import annotations

import re

from latex2mathml.converter import convert  # type: ignore[import-untyped]

_FORMULA = re.compile(r"^\$\$\n(.+?)\n\$\$$", re.MULTILINE | re.DOTALL)


def on_page_markdown(markdown: str, **_: object) -> str:
    """Replace a page's formulas."""
    return _FORMULA.sub(lambda found: f'<div class="formula">{convert(found[1], display="block")}</div>', markdown)
