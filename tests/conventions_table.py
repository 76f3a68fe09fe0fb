"""Generates the tables of docs/conventions.md from the constants: `python tests/conventions_table.py` rewrites them."""

from __future__ import annotations

import ast
import inspect
from dataclasses import fields
from pathlib import Path

from maskrcnn.config import conventions
from maskrcnn.config.conventions import (
    DETECTRON,
    DETECTRON2,
    MASKRCNN_BENCHMARK,
    MATTERPORT,
    MMDETECTION,
    OURS,
    TENSORPACK,
    TORCHVISION,
    Conventions,
)

PAGE = Path(__file__).parents[1] / "docs" / "conventions.md"
BEGIN, END = "<!-- begin of the tables of conventions -->\n", "<!-- end of the tables of conventions -->\n"
FRAMEWORKS = {
    "ours": OURS,
    "torchvision": TORCHVISION,
    "Detectron2": DETECTRON2,
    "Detectron": DETECTRON,
    "maskrcnn-benchmark": MASKRCNN_BENCHMARK,
    "MMDetection": MMDETECTION,
    "Matterport": MATTERPORT,
    "tensorpack": TENSORPACK,
}


def explanations() -> dict[tuple[str, str], str]:
    """The text below each field, by class and field; that of a class itself by class and an empty name."""
    found = {}
    for node in ast.parse(inspect.getsource(conventions)).body:
        if isinstance(node, ast.ClassDef):
            found[node.name, ""] = ast.get_docstring(node) or ""
            for field, text in zip(node.body, node.body[1:], strict=False):
                if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                    assert isinstance(field.target, ast.Name)
                    assert isinstance(text.value, ast.Constant)
                    found[node.name, field.target.id] = " ".join(str(text.value.value).split())
    return found


def tables() -> str:
    """One table per group: a row per rule, a column per framework. Values that differ from ours are bold."""
    texts, parts = explanations(), []
    for group in fields(Conventions):
        kind = type(getattr(OURS, group.name))
        parts.append(f"### `{group.name}`\n\n{texts[kind.__name__, '']}\n")
        parts.append(_row(["rule", *FRAMEWORKS, "meaning"]) + _row(["---"] * (2 + len(FRAMEWORKS))))
        for rule in fields(kind):
            values = [getattr(getattr(framework, group.name), rule.name) for framework in FRAMEWORKS.values()]
            cells = [_shown(values[0]), *(_shown(v) if v == values[0] else f"**{_shown(v)}**" for v in values[1:])]
            parts[-1] += _row([f"`{group.name}.{rule.name}`", *cells, texts[kind.__name__, rule.name]])
    return "\n".join(parts)


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return " ".join(f"{part:g}" for part in value) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value).replace("_", "\\_").replace("None", "none")


def with_tables(page: str) -> str:
    """The page with the tables between its two markers."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{tables()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text()))
