"""Command line: `python -m twinspike_conformance BACKEND [--device ... --precision ... --profile ... --report DIR]`."""

from __future__ import annotations

import sys
from io import TextIOWrapper

from twinspike_conformance.commands.command import main

if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that lacks a sign must not cost the report
    sys.exit(main())
