"""The command `twinspike` before it has commands: how they are registered, and the options that several of them have."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Annotated, ParamSpec

import typer

from twinspike import boundary
from twinspike_training.config import Change, embedded

app = typer.Typer(
    name="twinspike",
    help="Joint training of artificial and spiking twin networks, with any backend.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Arguments = ParamSpec("Arguments")

STOPPED = 130
"""Exit code of a run stopped by a signal, as shells use it."""

ConfigName = Annotated[
    str | None, typer.Argument(help=f"A .toml or .json file, or one of: {', '.join(embedded())}. Default: digits.")
]
BackendName = Annotated[str | None, typer.Option(help="A registered backend (see `twinspike backends`) or module:object.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...")]
Compiled = Annotated[bool | None, typer.Option("--compile/--eager", help="Whether the backend compiles the step.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one key, such as method.time_steps=6.")]
PrecisionOption = Annotated[str | None, typer.Option(help="f64, f32-ieee, tf32 or bf16-mixed.")]
RunPath = Annotated[str, typer.Argument(metavar="RUN", help="Folder of a run.")]


def command(function: Callable[Arguments, int | None]) -> Callable[Arguments, None]:
    """Register a command, which gives its exit status or None for 0, by the function's name without an underscore behind it."""

    @functools.wraps(function)
    def guarded(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        try:
            status = boundary.run(lambda: function(*args, **kwargs) or 0)
        except KeyboardInterrupt as error:
            typer.echo(str(error) or "interrupted", err=True)
            status = STOPPED
        raise typer.Exit(status)

    app.command(function.__name__.rstrip("_"))(guarded)
    return guarded


def overrides(set_: Sequence[str] | None = None, **given: object) -> list[Change]:
    """Overrides: the options that were given, then those of `--set`."""
    return [*((key, value) for key, value in given.items() if value is not None), *(set_ or [])]
