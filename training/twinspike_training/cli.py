"""Entry of the command `twinspike`, which says what to install where its libraries are missing."""

from __future__ import annotations

import sys

from twinspike_training import heap


def main() -> None:
    """Run the command line."""
    heap.keep()
    try:
        from twinspike_training.commands import app  # noqa: PLC0415 - so that a missing library is one line
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0].startswith("twinspike"):
            raise
        print(f"error: package {error.name!r} is not installed; install it with: pip install 'twinspike[train]'", file=sys.stderr)
        sys.exit(2)
    app()


if __name__ == "__main__":
    main()
