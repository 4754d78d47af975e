"""What is shown to a person: a console for this moment's standard output, and lines in which a name is only a name."""

from __future__ import annotations

from rich.console import Console

from twinspike.boundary import legible


class _Console(Console):
    """Leaves a pipe that nobody reads to whoever prints, where rich would end the process."""

    def on_broken_pipe(self) -> None:
        raise  # noqa: PLE0704 - rich calls this where it handles the exception


def console(quiet: bool = False) -> Console:
    """A console for what is standard output now, which a test or a pipe may have changed; names are no markup and no emoji.

    What is piped is not broken at the 80 columns that rich assumes there.
    """
    made = _Console(markup=False, emoji=False, highlight=False, quiet=quiet)
    return made if made.is_terminal else _Console(markup=False, emoji=False, highlight=False, quiet=quiet, width=160)


def say(console: Console, text: str) -> None:
    """One line, not broken at the console's width."""
    console.print(legible(text), markup=False, emoji=False, highlight=False, soft_wrap=True)
