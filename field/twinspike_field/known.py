"""What is known of why libraries differ: read from `known/LIBRARY.toml`, held against that version's source, and run.

A deviation that can't be seen any more is a failure as much as one that nobody has explained.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tomllib
from pathlib import Path

import msgspec

from twinspike.clauses import BY_ID
from twinspike.errors import SpecError, require
from twinspike_field.libraries import Library
from twinspike_field.report import Deviation, Place

HERE = Path(__file__).parent / "known"
MOST_LINES = 5
"""Of code, beside imports."""
SECONDS = 300
"""The longest that a deviation's code may take: frameworks compile."""


class _File(msgspec.Struct, forbid_unknown_fields=True):
    deviation: tuple[Deviation, ...] = ()


def deviations(name: str, folder: Path = HERE) -> tuple[Deviation, ...]:
    """Those of a library, in the order of its file.

    Raises:
        SpecError: the file can't be read, or one of them is not as it must be.
    """
    path = folder / f"{name}.toml"
    try:
        found = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), _File).deviation
    except (OSError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise SpecError(f"{path.name}: {' '.join(str(error).split())}") from None
    for deviation in found:
        what = f"{path.name}: {deviation.id}"
        require(deviation.id.startswith(f"{name}-"), what, expected=f"an id that begins with {name}-", got=deviation.id)
        unknown = [clause for clause in deviation.clauses if clause not in BY_ID]
        require(not unknown, what, expected="clauses of the specification", got=unknown)
        lines = [line for line in deviation.code.splitlines() if line.strip() and not line.startswith(("import ", "from "))]
        require(0 < len(lines) <= MOST_LINES, what, expected=f"1 to {MOST_LINES} lines of code beside imports", got=len(lines))
        require(bool(deviation.where), what, expected="a line of the library's source", got="none")
        told = deviation.kind == "choice" or bool(deviation.documented)
        require(told, what, expected="where the library documents what is expected, for a fault", got="nothing")
    ids = [deviation.id for deviation in found]
    require(len(set(ids)) == len(ids), path.name, expected="ids that differ", got=ids)
    return found


def digest(line: str) -> str:
    """What stands for a line of source."""
    return hashlib.sha256(line.strip().encode()).hexdigest()[:12]


def line_of(folder: Path, file: str, number: int) -> str:
    """A line of a library's source, counted from 1; SpecError if there is none."""
    try:
        return (folder / file).read_text(encoding="utf-8").splitlines()[number - 1]
    except (OSError, IndexError) as error:
        raise SpecError(f"{file}:{number}: no such line: {' '.join(str(error).split())}") from None


def misplaced(place: Place, folder: Path) -> str:
    """What is wrong with a place, empty if its line is what it was."""
    try:
        got = digest(line_of(folder, place.file, place.line))
    except SpecError as error:
        return str(error)
    return "" if got == place.digest else f"{place.file}:{place.line}: expected the line with digest {place.digest}, got {got}"


def output_of(deviation: Deviation) -> str:
    """What its code prints in a process of its own; of what it raises, the last line."""
    done = subprocess.run(
        [sys.executable, "-P", "-W", "ignore", "-c", deviation.code], capture_output=True, text=True, timeout=SECONDS, check=False
    )
    raised = done.stderr.strip().splitlines()[-1:] if done.returncode else []
    return "\n".join([*done.stdout.strip().splitlines(), *raised])


def unseen(deviation: Deviation, library: Library) -> list[str]:
    """What of a deviation is not as it was written down; nothing if it is reproduced."""
    folder = library.folder()
    wrong = [f"{deviation.id}: {text}" for place in deviation.where if (text := misplaced(place, folder))]
    got = output_of(deviation)
    if got != deviation.prints.strip():
        wrong.append(f"{deviation.id}: expected it to print {deviation.prints.strip()!r}, got {got!r}")
    return wrong
