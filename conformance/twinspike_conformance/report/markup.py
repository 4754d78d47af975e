"""HTML and SVG as values: what is not `Html` is escaped, so that no text of a report becomes markup."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

VOID = frozenset({"meta", "link", "br"})


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


Child = str | Iterable[str] | None
Attribute = str | int | float | bool | None


def tag(name: str, /, *children: Child, **attributes: Attribute) -> Html:
    """An element.

    Args:
        name: of the element.
        children: text, which is escaped; Html; iterables of both; None, which is nothing.
        attributes: `class_` is class and `data_x` is data-x; True is an attribute without a value, None and False none.
    """
    shown = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in VOID:
        return Html(f"<{name}{shown}>")
    return Html(f"<{name}{shown}>{join(*children)}</{name}>")


def join(*children: Child) -> Html:
    """Children in a row."""
    return Html("".join(_child(child) for child in children))


def _child(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, Html):
        return child
    if isinstance(child, str):
        return escape(child, quote=False)
    return "".join(_child(item) for item in child)


def _attribute(key: str, value: Attribute) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{escape(str(value))}"'


def table(heads: Iterable[str], rows: Iterable[Iterable[str]], caption: str, *, class_: str = "") -> Html:
    """A table that scrolls by itself where it is too wide; the first cell of a row is its header.

    Args:
        heads: column headers.
        rows: cells, text or Html; a cell that is a whole `td` stays one.
        caption: what the table shows, for those who don't see it.
        class_: of the table.
    """
    head = tag("tr", (tag("th", h, scope="col") for h in heads))
    body = (tag("tr", (_cell(cell, i == 0) for i, cell in enumerate(row))) for row in rows)
    inner = tag("table", tag("caption", caption), tag("thead", head), tag("tbody", body), class_=class_ or None)
    return tag("div", inner, class_="scroll", tabindex="0", role="region", aria_label=caption)


def _cell(cell: str, first: bool) -> Html:
    if isinstance(cell, Html) and cell.startswith("<td"):
        return cell
    return tag("th", cell, scope="row") if first else tag("td", cell)


def details(summary: Child, *body: Child, open_: bool = False, class_: str | None = None) -> Html:
    """What opens on demand, without a script."""
    return tag("details", tag("summary", summary), *body, open=open_, class_=class_)
