"""Command line: `python -m twinspike_conformance BACKEND [--device ... --precision ... --profile ... --report DIR]`."""

from __future__ import annotations

import sys

from twinspike_conformance.commands.command import main

if __name__ == "__main__":
    sys.exit(main())
