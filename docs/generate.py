"""Write the pages that say what the code says, and what was measured: clauses, operations, configs, the protocol, performance,
the field.

`python docs/generate.py` writes them beside this file; `--check` refuses pages that are out of date.
Configs are read from their source, where the docstring of a field stands below it.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path

from twinspike.clauses import CHAPTERS, CLAUSES
from twinspike.config import SURROGATES
from twinspike.operations import OPERATIONS, Operation
from twinspike_field.page import page
from twinspike_field.report import read

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
NOTE = "<!-- Written by docs/generate.py; change the code that it reads instead. -->\n"

CONFIGS = {
    "A run": ("training/twinspike_training/config.py", "RunConfig", "Training"),
    "Data": ("training/twinspike_training/data/config.py", "DataConfig"),
    "Method": ("spec/twinspike/config.py", "Method", "Neuron", "Factorization", "BatchNorm", "Loss"),
    "Surrogates": ("spec/twinspike/config.py", *(kind.__name__ for kind in SURROGATES)),
    "Orthogonality": ("spec/twinspike/config.py", "Free", "Penalty", "Retract"),
    "Optimizers": ("spec/twinspike/config.py", "SGD", "Adam", "AdamW"),
    "Schedules": ("spec/twinspike/config.py", "Cosine", "Constant"),
}
"""Section -> the file and the classes that it tells of."""

FORMULAS = {
    "LIF": (
        r"u_t = \lambda\, v_{t-1} + x_t \qquad s_t = \begin{cases} 1 & u_t \ge \theta \\ 0 & \text{else} \end{cases} \qquad "
        r"v_t = (1 - s_t)\, u_t + s_t\, v_{\text{reset}}",
        r"\frac{\partial L}{\partial u_t} = \left( g_t + e_{t+1} (v_{\text{reset}} - u_t) \right) h(u_t - \theta) "
        r"+ e_{t+1} (1 - s_t) "
        r"\qquad e_t = \lambda\, \frac{\partial L}{\partial u_t}",
    ),
    "SUR": (r"\frac{\partial s}{\partial u} = h(u - \theta) \qquad h(-z) = h(z) \ge 0 \qquad \int h(z)\, dz = 1",),
    "FAC": (r"W_{ij} = U_{ij}\, \operatorname{diag}(\sigma^{\text{twin}}_{ij})\, V_{ij} \qquad \text{at each position } (i, j)",),
    "ORT": (r"\sum_{\text{layers, positions}} \lVert U^{\top} U - I \rVert_F^2 + \lVert V V^{\top} - I \rVert_F^2",),
    "BN": (r"y = \gamma\, \frac{x - \mu}{\sqrt{\sigma^2 + \varepsilon}} + \beta",),
    "DIS": (
        r"L = (1 - \alpha) \sum_i \left[ \mathrm{CE}(a_i, y) + \mathrm{CE}(z_i, y) \right] "
        r"+ \alpha \tau^2 \sum_{\text{pairs}} \mathrm{KD}(\text{student} \leftarrow \text{teacher}) "
        r"+ \beta \sum_i \lVert h_i - f_i \rVert^2",
        r"\mathrm{KD} = - \frac{1}{B} \sum_{b} \sum_{k} \operatorname{softmax}(\text{teacher}/\tau)_{bk}\, "
        r"\log \operatorname{softmax}(\text{student}/\tau)_{bk}",
    ),
    "OPT": (r"g' = g + w\, p \qquad m \leftarrow \mu\, m + g' \qquad p \leftarrow p - \eta\, m",),
    "SCH": (r"\eta_e = \eta_{\text{floor}} + \frac{1}{2} (\eta - \eta_{\text{floor}}) \left( 1 + \cos \frac{\pi e}{E} \right)",),
}
"""Chapter -> what it comes to with the default options, to be typeset; clauses say more."""

PICTURES = {"LIF": ("neuron", "A current, the potential that it charges, and the spikes, with hard and with soft reset"),
            "SUR": ("surrogates", "The six surrogates over u - threshold"),
            "FAC": ("spectra", "Singular values of both twins, which share U and V, after ten epochs of digits")}  # fmt: skip
"""Chapter -> a picture that docs/pictures.py draws, and what it shows."""

Names = dict[str, ast.expr]
"""Name of a choice such as `Scope` -> the `Literal[...]` that it stands for."""


def plain(text: str) -> str:
    """Text in which no sign means anything to Markdown, but for code between backquotes."""
    parts = text.split("`")
    for i in range(0, len(parts), 2):
        for sign in "\\*_[]":
            parts[i] = parts[i].replace(sign, f"\\{sign}")
        parts[i] = parts[i].replace("<", "&lt;")
    return "`".join(parts)


def specification() -> str:
    """The numbered clauses by chapter, then the table of operations."""
    lines = [
        "# Specification\n",
        "What an implementation MUST and MAY do. A clause keeps its number for good, also when it is WITHDRAWN. The letters are",
        "those of the [configs](configuration.md): x current, u potential before and v after reset, s spike, h surrogate,",
        "T time steps, B batch, K classes. The float64 reference in `twinspike.reference` is these clauses as code, to be read",
        "beside them.\n",
    ]
    for prefix, title in CHAPTERS.items():
        lines.append(f"## {title}\n")
        lines += [f"$$\n{formula}\n$$\n" for formula in FORMULAS.get(prefix, ())]
        if prefix in PICTURES:
            name, shows = PICTURES[prefix]
            lines.append(
                "\n".join(f"![{shows}](images/{name}-{scheme}.svg#only-{scheme})" for scheme in ("light", "dark")) + "\n"
            )
        lines += [
            f"- <a id='{clause.id.lower()}'></a>**{clause.id}** ({clause.level}) {plain(clause.text)}"
            for clause in CLAUSES
            if clause.id.partition("-")[0] == prefix
        ]
        lines.append("")
    lines += [
        "## Operations\n",
        "One row per operation that a backend may offer; conformance is generated from it. Letters: T time, B batch,",
        "C channels, H W map, K classes, N exits, S slices of time that the loss sees (1 or T), O I out and in, F features,",
        "p kernel positions, m n rows and columns, r rank, \\*d any number of axes; `()` is a scalar, `?` may be left out.\n",
        "*Config* is what `forward` and `vjp` are given beside the arrays, *cotangents* are the outputs whose gradients come in,",
        "*gradients* the inputs whose gradients go out; outputs that are not among the cotangents end the graph.\n",
        "| operation | config | inputs | outputs | cotangents | gradients | results | clauses |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        *map(row, OPERATIONS.values()),
        "\n### What operations leave out\n",
        "Operations are unweighted parts; weights and choices that concern a whole network are not in them:\n",
        *LEFT_OUT,
    ]
    return "\n".join(lines) + "\n"


LEFT_OUT = (
    "- `cross_entropy` is not smoothed ([DIS-10](#dis-10)) and knows nothing of `supervised` or alpha;",
    "- `distillation` lacks tau^2 and alpha, though its logits are divided by tau; `feature_loss` lacks beta;",
    "- `joint_loss` has all of these, and lacks the orthogonality penalty ([ORT-2](#ort-2)); its terms beside `loss` are",
    "  unweighted, but `distillation` includes tau^2;",
    "- `penalty` lacks its weight, `retract` its `every`;",
    "- `optimizer_step` applies weight decay always ([OPT-4](#opt-4) is a network's), takes the number of the step and the rate",
    "  as inputs, and projects nothing ([OPT-8](#opt-8));",
    "- `lif` and `spike` ignore the scopes of decay and threshold: what is learned is what is given;",
    "- `compose` and `factorize` ignore `scope` and `orthogonality`, and `compose` the rank.",
)


def config_of(operation: Operation) -> str:
    """The type of an operation's config: a link to its options, or the options themselves where no run has them."""
    found = []
    for kind in getattr(operation.config, "__args__", (operation.config,)):
        if kind.__module__ == "twinspike.config":
            tag = kind.__struct_config__.tag
            anchor = f"{kind.__name__}-kind-{tag}" if tag else kind.__name__
            found.append(f"[`{kind.__name__}`](configuration.md#{anchor.lower()})")
        elif kind.__struct_fields__:
            hints = ", ".join(f"{name}: {kind.__annotations__[name]}" for name in kind.__struct_fields__)
            found.append(f"`{kind.__name__}({hints})`")
        else:
            found.append(f"`{kind.__name__}`")
    return ", ".join(found)


def row(operation: Operation) -> str:
    """One line of the table of operations."""
    inputs, outputs = (
        "<br>".join(f"`{name} ({dims.replace('?', '').strip()}){'?' if '?' in dims else ''}`" for name, dims in side.items())
        for side in (operation.inputs, operation.outputs)
    )
    clauses = ", ".join(f"[{clause}](#{clause.lower()})" for clause in operation.clauses)
    gradients, cotangents = (
        ", ".join(f"`{name}`" for name in names) for names in (operation.differentiable, operation.cotangents)
    )
    cells = (f"`{operation.name}`", config_of(operation), inputs, outputs, cotangents, gradients, operation.exactness, clauses)
    return f"| {' | '.join(cells)} |"


class Spelled(ast.NodeTransformer):
    """Spells out named choices where a field's type uses them."""

    def __init__(self, names: Names) -> None:
        self.names = names

    def visit_Name(self, node: ast.Name) -> ast.expr:
        """A choice by its name, anything else as it is."""
        return self.names.get(node.id, node)


def choices(paths: Iterable[str]) -> Names:
    """The named choices of some files."""
    found: Names = {}
    for path in paths:
        for node in ast.parse((ROOT / path).read_text(encoding="utf-8")).body:
            match node:
                case ast.Assign(targets=[ast.Name(id=name)], value=ast.Subscript(value=ast.Name(id="Literal")) as value):
                    found[name] = value
    return found


def configuration() -> str:
    """Every config with its fields, types, defaults and meanings."""
    lines = [
        "# Configuration\n",
        "A run is described by one TOML or JSON file, `twinspike train FILE`, and `--set key.sub=value` overrides any of it.",
        "Configs are frozen and checked when they are made, in Python as from a file; a mistake is one line that names the key.",
        "Where several configs share a place, `kind` says which is meant.\n",
    ]
    spelled = Spelled(choices([*(path for path, *_ in CONFIGS.values()), "spec/twinspike/precision.py"]))
    for title, (path, *names) in CONFIGS.items():
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
        lines.append(f"## {title}\n")
        for name in names:
            node = classes[name]
            tag = next((ast.literal_eval(word.value) for word in node.keywords if word.arg == "tag"), None)
            lines.append(f'### {name}, `kind = "{tag}"`\n' if tag else f"### {name}\n")
            lines += [f"{prose(ast.get_docstring(node))}\n", *fields(node, classes, spelled), ""]
    return "\n".join(lines).rstrip() + "\n"


def prose(docstring: str | None) -> str:
    """A docstring as one line of Markdown."""
    return plain(" ".join((docstring or "").split()))


def fields(node: ast.ClassDef, classes: dict[str, ast.ClassDef], spelled: Spelled) -> Iterator[str]:
    """A line for each field of a config, inherited ones first."""
    for base in node.bases:
        if isinstance(base, ast.Name) and base.id in classes:
            yield from fields(classes[base.id], classes, spelled)
    for statement, following in zip(node.body, [*node.body[1:], None], strict=True):
        if not isinstance(statement, ast.AnnAssign):
            continue
        meaning = ""
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            meaning = f": {prose(str(following.value.value))}"
        yield f"- `{ast.unparse(spelled.visit(statement))}`{meaning}"


PROTOCOL = {
    "spec/twinspike/backend.py": ("Backend", "Session", "Program", "Capabilities", "Metrics", "Evaluation"),
    "spec/twinspike/mark.py": ("Mark",),
    "spec/twinspike/replicas.py": ("ReplicatedBackend", "ReplicatedSession"),
}
"""What a backend's author meets: file -> its classes, in the order in which they are read."""


def protocol() -> str:
    """The contract of backends, from the docstrings of its classes."""
    lines = [
        "# Protocol\n",
        "The contract of a [backend](backends.md), as the docstrings of `twinspike.backend` have it; in which order a whole one",
        "is written is told by [A whole backend](whole-backend.md). Arrays are the backend's own (`Tensor`); `Values` are",
        "NumPy's.\n",
    ]
    for path, names in PROTOCOL.items():
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
        for name in names:
            lines += [f"## {name}\n", *told(classes[name])]
            lines += fields(classes[name], {}, Spelled({}))
            lines.append("")
            for node in classes[name].body:
                if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                    kind = "property " if any(ast.unparse(d) == "property" for d in node.decorator_list) else ""
                    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
                    arguments = ast.unparse(node.args).removeprefix("self, ").removeprefix("self")
                    lines += [f"### {name}.{node.name}\n", f"`{kind}{node.name}({arguments}){returns}`\n", *told(node)]
    return "\n".join(lines).rstrip() + "\n"


def told(node: ast.ClassDef | ast.FunctionDef) -> list[str]:
    """A docstring's paragraphs."""
    paragraphs = (ast.get_docstring(node) or "").split("\n\n")
    return [f"{prose(paragraph)}\n" for paragraph in paragraphs if paragraph.strip()]


def pages() -> dict[Path, str]:
    """Every generated page and what it should hold."""
    if str(DOCS) not in sys.path:  # not there where this file is loaded by its path
        sys.path.insert(0, str(DOCS))
    measured = str(import_module("performance").performance())
    judged = page(read(ROOT / "field" / "field.json"))
    texts = {"specification": specification(), "configuration": configuration(), "performance": measured, "field": judged}
    texts["protocol"] = protocol()
    return {DOCS / f"{name}.md": NOTE + text for name, text in texts.items()}


def main() -> None:
    """Write the pages, or check them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a page is out of date")
    if not parser.parse_args().check:
        for path, text in pages().items():
            path.write_text(text, encoding="utf-8")
        return
    stale = [path.name for path, text in pages().items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    if stale:
        sys.exit(f"out of date: {', '.join(stale)}; run python docs/generate.py")


if __name__ == "__main__":
    main()
