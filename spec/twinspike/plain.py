"""Plain data from outside, as TOML and JSON: whatever a file or an argument holds, it gives data or one SpecError.

Both parsers raise more than their own errors: for numbers of thousands of digits, for nesting deeper than their recursion, for
bytes that are no text. Readers come here, so that none of them has to know.
"""

from __future__ import annotations

import codecs
import json
import tomllib
from pathlib import Path
from typing import Any

from twinspike.errors import refuse, require

_MARKS = {codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16"}
"""First bytes of texts in other encodings."""


def read_table(path: Path) -> dict[str, Any]:
    """The table of a file: JSON if its name ends in `.json`, in whatever case, else TOML.

    Raises:
        SpecError: it can't be read, is no UTF-8 (a byte order mark may stand in front), or holds something else.
    """
    what = str(path)
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a name with a null character
        raise refuse(what, expected="a file that can be read", got=getattr(error, "strerror", None) or str(error)) from None
    data = from_json(content, what) if path.suffix.lower() == ".json" else from_toml(_text(content, what), what)
    require(isinstance(data, dict), what, expected="a table of keys", got=type(data).__name__)
    return dict(data)


def from_toml(text: str, what: str) -> dict[str, Any]:
    """The table of a TOML text; SpecError, which names it `what`, if it is none."""
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits are a ValueError
        raise refuse(what, expected="TOML", got=_reason(error)) from None


def from_json(content: bytes | str, what: str) -> Any:
    """The data of a JSON text, as bytes or decoded; SpecError, which names it `what`, if it is none."""
    text = _text(content, what) if isinstance(content, bytes) else content
    try:
        return json.loads(text)  # not msgspec: a name that is no UTF-8 is half a surrogate pair, which json writes and reads
    except (ValueError, RecursionError) as error:
        raise refuse(what, expected="JSON", got=_reason(error)) from None


def _text(content: bytes, what: str) -> str:
    for mark, name in _MARKS.items():
        require(not content.startswith(mark), what, expected="text in UTF-8", got=name, do="save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        byte, line = content[error.start], content.count(b"\n", 0, error.start) + 1
        got = f"byte 0x{byte:02x} in line {line}, as Latin-1 and Windows-1252 have it"
        raise refuse(what, expected="text in UTF-8", got=got, do="save it as UTF-8") from None


def _reason(error: Exception) -> str:
    return "lists or tables nested too deeply" if isinstance(error, RecursionError) else str(error) or type(error).__name__
