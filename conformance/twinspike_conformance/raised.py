"""What a backend raises, which is its answer: anything at all, with any text."""

from __future__ import annotations

import re
import signal

from twinspike_conformance.interrupts import Interrupt

LONGEST = 400
"""Characters of a text that are kept."""


def said(error: BaseException) -> str:
    """An exception in one line that any encoding can hold, without addresses, which differ from run to run."""
    name = type(error).__name__
    try:
        text = legible(str(error))
    except Exception:  # the exception is anyone's, and so is what makes its text
        text = "a text that can't be had"
    text = re.sub(r" at 0x[0-9a-fA-F]+", "", text)
    return f"{name}: {text if len(text) <= LONGEST else text[: LONGEST - 3] + '...'}" if text else name


def legible(text: str) -> str:
    """One line without what can't be encoded, such as half a pair of UTF-16."""
    return " ".join(text.split()).encode("utf-8", "backslashreplace").decode()


def interrupted(error: BaseException) -> bool:
    """Whether the user wants to end it all; where interrupts are ignored it was the backend that raised one."""
    if isinstance(error, Interrupt):
        return True
    return isinstance(error, KeyboardInterrupt) and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
