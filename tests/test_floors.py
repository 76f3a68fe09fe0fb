"""The floors of docs/architecture.md: imports run strictly downward, and the command line starts light."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import maskrcnn

PACKAGE = Path(maskrcnn.__file__).parent

FLOORS = {
    "errors": 0,
    "allocator": 0,
    "threads": 0,
    "config": 1,
    "files": 1,
    "ops": 1,
    "structures": 2,
    "models": 3,
    "data": 3,
    "evaluation": 3,
    "visualise": 3,
    "weights": 4,
    "predict": 5,
    "training": 6,
    "export": 6,
    "doctor": 6,
    "benchmark": 7,
    "serve": 7,
    "cvat": 7,
    "scale": 7,
    "cli": 8,
    "__init__": 9,  # the public names
    "__main__": 10,
}
# Downward, and still not allowed: prediction knows nothing of data sets, the network nothing of files,
# and ops are pure functions of tensors.
NOT_ALLOWED = {
    ("predict", "data"),
    ("models", "files"),
}
# Imported whenever the command starts; torch, pydantic, PIL and the like wait inside functions.
LIGHT = {"errors", "allocator", "threads", "config", "cli", "__init__", "__main__"}
LIGHT_FILES = {"benchmark.settings", "data.hints", "serve.settings"}  # of folders that are heavy otherwise: flags
LIGHT_PACKAGES = {"tyro"}  # 0.1 s, and only in the file of a command that was called


def imported(node: ast.AST) -> Iterator[str]:
    """The dotted modules one import statement names; `from maskrcnn.ops import boxes` names maskrcnn.ops.boxes."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"line {node.lineno}: imports of the package are absolute"
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


def top_level(nodes: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that run when the module is imported: not those in functions or under TYPE_CHECKING."""
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            yield from top_level(node.orelse)
            continue
        yield node
        for field in ("body", "orelse", "handlers", "finalbody"):
            yield from top_level(getattr(node, field, []))


def unit_of(path: Path) -> str:
    """The folder or file directly below the package that `path` belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def broken_rules(path: Path, source: str) -> list[str]:
    unit = unit_of(path)
    if unit not in FLOORS:
        return [f"{unit} stands on no floor: add it to FLOORS and to docs/architecture.md"]
    problems = []
    tree = ast.parse(source)
    for node in ast.walk(tree):
        for name in imported(node):
            if name == "maskrcnn.__version__" or not name.startswith("maskrcnn"):
                continue
            below = name.removeprefix("maskrcnn").lstrip(".")
            target = below.split(".")[0] or "__init__"
            where = f"{path.relative_to(PACKAGE)}:{node.lineno}"  # type: ignore[attr-defined]
            if target not in FLOORS:
                problems.append(f"{where} imports {name}, which stands on no floor")
            elif target != unit and FLOORS[target] >= FLOORS[unit]:
                problems.append(f"{where} imports {name}: floor {FLOORS[unit]} may not see floor {FLOORS[target]}")
            elif any(unit == a and (below + ".").startswith(b + ".") for a, b in NOT_ALLOWED):
                problems.append(f"{where} imports {name}: {unit} must not know it")
    own_name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    if unit in LIGHT or own_name in LIGHT_FILES:
        for node in top_level(tree.body):
            for name in imported(node):
                parts = name.split(".")
                light_own = parts[0] == "maskrcnn" and (
                    parts[1] in LIGHT | {"__version__"} or ".".join(parts[1:3]) in LIGHT_FILES
                )
                heavy_own = parts[0] == "maskrcnn" and not light_own
                foreign = parts[0] != "maskrcnn" and parts[0] not in sys.stdlib_module_names | LIGHT_PACKAGES
                if heavy_own or foreign:
                    problems.append(f"{path.relative_to(PACKAGE)}:{node.lineno} imports {name} at its top: too heavy")
    return problems


def test_imports_run_strictly_downward() -> None:
    problems = [
        problem for path in sorted(PACKAGE.rglob("*.py")) for problem in broken_rules(path, path.read_text("utf-8"))
    ]
    assert not problems, "\n".join(problems)


def test_the_rules_notice_what_they_forbid() -> None:
    cases = {
        ("ops/boxes.py", "from maskrcnn.config import Config"): "floor 1 may not see floor 1",
        ("models/rpn.py", "def f():\n    import maskrcnn.data.formats"): "floor 3 may not see floor 3",
        ("structures/masks.py", "from maskrcnn import predict"): "floor 2 may not see floor 5",
        ("weights/torchvision.py", "import maskrcnn"): "floor 4 may not see floor 9",
        ("predict.py", "from maskrcnn.data.formats import read_dataset"): "must not know it",
        ("models/build.py", "from maskrcnn.files import images"): "must not know it",
        ("helpers/paths.py", ""): "stands on no floor",
        ("cli/train.py", "from maskrcnn.utils import x"): "stands on no floor",
        ("cli/train.py", "import torch"): "too heavy",
        ("cli/train.py", "class A:\n    from maskrcnn.training import loop"): "too heavy",
        ("cli/bench.py", "from maskrcnn.benchmark.predict import bench_predict"): "too heavy",
        ("benchmark/settings.py", "import torch"): "too heavy",
        ("config.py", "try:\n    import pydantic\nexcept ImportError:\n    pass"): "too heavy",
    }
    for (file, source), expected in cases.items():
        problems = broken_rules(PACKAGE / file, source)
        assert len(problems) >= 1, (file, source)
        assert expected in "\n".join(problems), (file, source)


def test_the_rules_allow_what_they_should() -> None:
    cases = {
        "training/loop.py": "from maskrcnn import __version__\nfrom maskrcnn.predict import Predictor",
        "models/rpn.py": "from maskrcnn.models.anchors import anchors\nfrom maskrcnn.ops import boxes",
        "cli/train.py": "import tyro\ndef run():\n    import torch\n    from maskrcnn.training.loop import train",
        "cli/bench.py": "from maskrcnn.benchmark.settings import Timing",
        "__init__.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from maskrcnn.predict import load",
    }
    for file, source in cases.items():
        assert broken_rules(PACKAGE / file, source) == [], file
