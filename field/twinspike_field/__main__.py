"""Command line: `python -m twinspike_field LIBRARY...`."""

from __future__ import annotations

import sys

from twinspike_field.command import main

if __name__ == "__main__":
    sys.exit(main())
