"""The command line: judge libraries, one after another, and hold what comes out against what is known."""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import twinspike
from twinspike.errors import SpecError
from twinspike_field.judge import judge
from twinspike_field.known import deviations, digest, line_of, unseen
from twinspike_field.libraries import LIBRARIES, Library, library
from twinspike_field.page import page
from twinspike_field.report import Cell, Field, Judged, read, write


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        0 if everything is as it is known; 1 if a clause differs and nobody has said why, or a known deviation is not seen;
        2 if it can't be run.
    """
    options = _options(arguments)
    try:
        match options.command:
            case "judge" if len(options.libraries) == 1:
                return _judge(options.libraries[0], options.out)
            case "judge":
                return _judge_each(options.libraries or tuple(LIBRARIES), options.out)
            case "merge":
                write(_merged([read(path) for path in options.results]), options.out)
            case "page":
                options.out.write_text(page(read(options.results)), encoding="utf-8")
            case _:
                return _line(library(options.library), options.file, options.line)
    except SpecError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m twinspike_field", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("judge", help="judge libraries that are installed")
    one.add_argument("libraries", nargs="*", help=f"among {', '.join(LIBRARIES)}; all by default")
    one.add_argument("--out", type=Path, required=True, help="the JSON file to write")
    one = commands.add_parser("merge", help="put results together")
    one.add_argument("results", type=Path, nargs="+")
    one.add_argument("--out", type=Path, required=True, help="the JSON file to write")
    one = commands.add_parser("page", help="results as a page in Markdown")
    one.add_argument("results", type=Path)
    one.add_argument("--out", type=Path, required=True)
    one = commands.add_parser("line", help="a line of a library's source and its digest, for a known deviation")
    one.add_argument("library")
    one.add_argument("file")
    one.add_argument("line", type=int)
    return parser.parse_args(arguments)


def _judge(name: str, out: Path) -> int:
    one = library(name)
    judged = judge_library(one)
    wrong = troubles(judged, one)
    print(_summary(judged), flush=True)
    write(Field(specification=twinspike.__version__, libraries=(judged,)), out)
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


def _judge_each(names: Sequence[str], out: Path) -> int:
    """Each library in a process of its own: several set their framework's precision for all who are in theirs."""
    for name in names:
        library(name)
    with TemporaryDirectory() as folder:
        parts = [Path(folder) / f"{name}.json" for name in names]
        command = [sys.executable, "-W", "ignore", "-m", "twinspike_field", "judge"]
        statuses = [
            subprocess.run([*command, name, "--out", str(part)], check=False).returncode
            for name, part in zip(names, parts, strict=True)
        ]
        found = [read(part) for part in parts if part.is_file()]
    if found:
        write(_merged(found), out)
    return max(2 if status < 0 else status for status in statuses)


def judge_library(one: Library) -> Judged:
    """Everything about one library that is installed here.

    Raises:
        SpecError: it isn't, or what is known of it can't be read.
    """
    known = deviations(one.name)
    backend = one.backend()
    cells: tuple[Cell, ...] = ()
    for precision in backend.adapter.precisions:
        cells += judge(backend, precision, difference=backend.adapter.watches_difference)
    return Judged(
        name=one.name,
        title=one.title,
        version=one.version,
        versions=backend.capabilities().versions,
        python=platform.python_version(),
        machine=platform.machine(),
        cells=cells,
        deviations=known,
    )


def troubles(judged: Judged, one: Library) -> list[str]:
    """Cells that nothing explains, and deviations that are not seen."""
    wrong = [
        f"{judged.name}: {cell.clause} in {cell.precision} differs, and known/{judged.name}.toml does not say why: {cell.first}"
        for cell in judged.cells
        if cell.outcome == "differs" and judged.kind(cell) is None
    ]
    differs = [cell for cell in judged.cells if cell.outcome == "differs"]
    for deviation in judged.deviations:
        wrong += unseen(deviation, one)
        seen = {cell.clause for cell in differs if deviation.explains(cell)}
        wrong += [f"{deviation.id}: {clause} does not differ" for clause in deviation.clauses if clause not in seen]
    return wrong


def _summary(judged: Judged) -> str:
    outcomes = [cell.outcome for cell in judged.cells]
    kinds = [deviation.kind for deviation in judged.deviations]
    counts = ", ".join(f"{outcome} {outcomes.count(outcome)}" for outcome in ("agrees", "differs", "cannot"))
    return f"{judged.title} {judged.version}: cells: {counts}; faults {kinds.count('fault')}, choices {kinds.count('choice')}"


def _merged(fields: Sequence[Field]) -> Field:
    """The libraries of all, in the table's order; of one that is in several, the last."""
    found = {one.name: one for field in fields for one in field.libraries}
    return Field(specification=fields[-1].specification, libraries=tuple(found[name] for name in LIBRARIES if name in found))


def _line(one: Library, file: str, number: int) -> int:
    text = line_of(one.folder(), file, number)
    print(f'{{ file = "{file}", line = {number}, digest = "{digest(text)}" }}  # {text.strip()}')
    return 0
