"""The shape of the package: short files and functions, small folders, no import cycle, one name for one thing."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import maskrcnn

PACKAGE = Path(maskrcnn.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text("utf-8")) for path in FILES}

LONGEST_FILE = 350  # lines
LONGEST_FUNCTION = 60  # lines, docstring included
LONG_FUNCTIONS = 0.005  # share of all functions that may be longer
MOST_FILES = 20  # side by side in one folder, `__init__.py` not counted


def module_of(path: Path) -> str:
    """`maskrcnn.ops.nms` for `ops/nms.py`, `maskrcnn.predict` for `predict/__init__.py`."""
    parts = ("maskrcnn", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(tree: ast.Module, modules: set[str]) -> set[str]:
    """The modules of the package that a file imports, at its top or inside a function."""
    named: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            named.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            named.update((f"{node.module}", *(f"{node.module}.{alias.name}" for alias in node.names)))
    return named & modules


def cycle_in(graph: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle; empty where there is none."""
    state: dict[str, int] = {}

    def visit(module: str, path: list[str]) -> list[str]:
        if state.get(module) == 2:
            return []
        if state.get(module) == 1:
            return [*path[path.index(module) :], module]
        state[module] = 1
        for target in sorted(graph[module]):
            if found := visit(target, [*path, module]):
                return found
        state[module] = 2
        return []

    return next((found for module in sorted(graph) if (found := visit(module, []))), [])


def test_no_module_imports_itself_in_a_circle() -> None:
    modules = {module_of(path) for path in FILES} - {"maskrcnn"}  # the root imports its public names when asked
    graph = {module_of(path): imports_of(tree, modules) for path, tree in TREES.items()}
    graph = {module: targets - {module} for module, targets in graph.items() if module in modules}
    assert cycle_in(graph) == []


def test_a_circle_is_noticed() -> None:
    assert cycle_in({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert cycle_in({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_files_and_folders_are_small() -> None:
    long = {str(path.relative_to(PACKAGE)): path.read_text("utf-8").count("\n") for path in FILES}
    assert {name: lines for name, lines in long.items() if lines > LONGEST_FILE} == {}
    folders: dict[Path, int] = defaultdict(int)
    for path in FILES:
        folders[path.parent] += path.name != "__init__.py"
    assert {str(folder): count for folder, count in folders.items() if count > MOST_FILES} == {}


def test_functions_are_short() -> None:
    lengths = {
        f"{path.relative_to(PACKAGE)}:{node.name}": node.end_lineno - node.lineno + 1  # type: ignore[operator]
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    long = {name: lines for name, lines in lengths.items() if lines > LONGEST_FUNCTION}
    assert len(long) <= LONG_FUNCTIONS * len(lengths), long


def test_no_two_public_classes_have_one_name() -> None:
    homes: dict[str, list[str]] = defaultdict(list)
    for path, tree in TREES.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].append(str(path.relative_to(PACKAGE)))
    assert {name: files for name, files in homes.items() if len(files) > 1} == {}
