"""The page: libraries beside clauses, and below it each deviation with the lines that show it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from twinspike_field.clauses import ASKED
from twinspike_field.report import Cell, Deviation, Field, Judged

SIGNS = {"agrees": "✓", "choice": "choice", "fault": "**fault**", "cannot": "n/a", "unexplained": "**?**"}
"""Word -> how a cell shows it."""

INTRODUCTION = """\
# The field, judged

What the suite's bounds say of neurons and surrogates that nobody here wrote. A deviation from the
[specification](specification.md) is no error of a library that never claimed it: it is what changes when a model moves from
one to the other. It is called a **fault** only where a library does not do what its own documentation says, or gives no
number where its formula has one; else it is a *choice*.

Each library has one adapter, which maps options to the arguments that the library documents for them and corrects nothing.
Every clause is asked alone: each step is judged from the library's own values before it, and gradients of the neuron with a
surrogate that agrees. `✓` agrees in all examples that can be expressed, `n/a` can't be expressed. Every deviation below is run,
and its line of source held against its digest, by `tox run -e field`, on a CPU. snnax 0.0.1 is not here: its import fails.
"""


def page(field: Field) -> str:
    """The page in Markdown."""
    lines = [INTRODUCTION]
    precisions = tuple(dict.fromkeys(cell.precision for one in field.libraries for cell in one.cells))
    for precision in precisions:
        lines += [f"## {precision}\n", *_table(field, precision), ""]
    lines += ["## What can't be expressed\n", *_refusals(field), ""]
    lines += ["## Differences by choice\n", *_told(field, "choice")]
    faults = sum(deviation.kind == "fault" for one in field.libraries for deviation in one.deviations)
    lines += ["## Faults\n", f"{faults}, each a text that its authors can be given; none has been filed by this project.\n"]
    lines += [*_told(field, "fault")]
    return "\n".join(lines).rstrip() + "\n"


def _table(field: Field, precision: str) -> Iterator[str]:
    shown = [one for one in field.libraries if any(cell.precision == precision for cell in one.cells)]
    yield "| clause | " + " | ".join(f"{one.title} {one.version}" for one in shown) + " |"
    yield "| --- |" + " --- |" * len(shown)
    for clause, text in ASKED.items():
        signs = (_sign(one, _cell(one, clause, precision)) for one in shown)
        yield f"| [{clause}](specification.md#{clause.lower()}) {text} | " + " | ".join(signs) + " |"


def _cell(one: Judged, clause: str, precision: str) -> Cell | None:
    return next((cell for cell in one.cells if cell.clause == clause and cell.precision == precision), None)


def _sign(one: Judged, cell: Cell | None) -> str:
    if cell is None or cell.outcome == "cannot":
        return SIGNS["cannot"]
    if cell.outcome == "agrees":
        return SIGNS["agrees"]
    why = next((d for d in one.deviations if d.explains(cell) and d.kind == one.kind(cell)), None)
    return SIGNS["unexplained"] if why is None else f"[{SIGNS[why.kind]}](#{why.id})"


def _refusals(field: Field) -> Iterator[str]:
    yield "| library | what its arguments don't express |"
    yield "| --- | --- |"
    for one in field.libraries:
        reasons = dict.fromkeys(reason.partition(", got ")[0] for cell in one.cells for reason in cell.refusals)
        yield f"| {one.title} | {'<br>'.join(reasons) or 'nothing'} |"


def _told(field: Field, kind: str) -> Iterator[str]:
    for one in field.libraries:
        chosen = [deviation for deviation in one.deviations if deviation.kind == kind]
        if chosen:
            yield f"### {one.title} {one.version}\n"
        for deviation in chosen:
            yield from _deviation(one, deviation)


def _deviation(one: Judged, deviation: Deviation) -> Iterator[str]:
    yield f"#### {deviation.title} {{#{deviation.id}}}\n"
    yield from _facts(one, deviation)
    yield f"\n```python\n{deviation.code.strip()}\n```\n"
    yield f"prints\n\n```text\n{deviation.prints.strip()}\n```\n"


def _facts(one: Judged, deviation: Deviation) -> Iterable[str]:
    yield f"- Expected: {deviation.expected}{f' (`{deviation.documented}`)' if deviation.documented else ''}"
    yield f"- Got: {deviation.got}"
    yield f"- Where: {', '.join(f'`{place.file}:{place.line}`' for place in deviation.where)} of {one.title} {one.version}"
    if deviation.clauses:
        precisions = f", in {', '.join(deviation.precisions)}" if deviation.precisions else ""
        yield f"- Clauses: {', '.join(deviation.clauses)}{precisions}"
    if deviation.setting:
        yield f"- Agrees with: {deviation.setting}"
