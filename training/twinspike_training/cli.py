"""Entry of the command `twinspike`, which says what to install where its libraries are missing.

Commands stand inside the boundary themselves; here it is drawn around the parsing of arguments and the imports too.
"""

from __future__ import annotations

import sys

from twinspike import SpecError, boundary
from twinspike_training import heap


def main() -> None:
    """Run the command line."""
    heap.keep()
    sys.exit(boundary.run(_main))


def _main() -> int:
    try:
        from twinspike_training.commands import app  # noqa: PLC0415 - so that a missing library is one line
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("twinspike"):
            raise
        raise SpecError(f"package {error.name!r} is not installed; install it with: pip install 'twinspike[train]'") from None
    app()
    return 0


if __name__ == "__main__":
    main()
