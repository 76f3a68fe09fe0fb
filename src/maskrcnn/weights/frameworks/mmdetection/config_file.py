"""Reads MMDetection's configs. They are Python files, which are parsed as data and never run.

A config consists of assignments of literals, `dict(...)`, earlier names and names of the files under `_base_`. The
sources are MMEngine's and MMCV's `Config.fromfile`.
"""

from __future__ import annotations

import ast
import re
from collections import ChainMap
from collections.abc import Mapping, Sequence
from pathlib import Path
from reprlib import repr as short_repr
from typing import Any

from maskrcnn.errors import ConfigError
from maskrcnn.files.plain_yaml import check_length
from maskrcnn.weights.frameworks.importer import listed
from maskrcnn.weights.frameworks.python_data import FILE, PythonData
from maskrcnn.weights.frameworks.settings import Settings, merged, read_json, read_text, setting

INSTEAD = "give the config that MMDetection prints (tools/misc/print_config.py), or none: most files hold their config"


def read_settings(path: Path | str) -> Settings:
    """The settings of a config (.py or .json) and of the files under its `_base_`.

    Raises:
        ConfigError: the file cannot be read, is no config of a model, or holds more than data, such as functions,
            loops and conditions.
    """
    settings = _read(Path(path), (), PythonData(INSTEAD))
    if not isinstance(settings.get("model"), Mapping):
        raise ConfigError(
            f"{path}: expected a config of MMDetection with a model, found {listed(settings) or 'nothing'}"
        )
    return settings


def parse_config(text: str, where: str) -> Settings:
    """The settings in the text of a config that a checkpoint holds.

    MMCV 1 stored the texts of all its files, those under `_base_` first, each below a line with its path.

    Raises:
        ConfigError: as in `read_settings`.
    """
    settings, data = Settings(), PythonData(INSTEAD)
    for part in re.split(r"^\S+\.py$", text, flags=re.MULTILINE):
        settings = merged(settings, _parse(part, where, settings, data))
        data.pay(settings, where)
    settings.pop("_base_", None)
    return settings


def stages(settings: Mapping[str, Any], path: str) -> list[Mapping[str, Any]]:
    """A part of a config for each stage. Only Cascade R-CNN has several stages. Empty if the part is missing."""
    found = setting(settings, path, [])
    return list(found) if isinstance(found, list | tuple) else [found]


def steps(settings: Mapping[str, Any], which: str) -> list[Mapping[str, Any]]:
    """The steps of the image pipeline. Steps that contain others are replaced by these.

    Args:
        which: "train" or "test".
    """
    paths = (f"{which}_pipeline", f"{which}_dataloader.dataset.pipeline", f"data.{which}.pipeline")
    return _flat(next((found for path in paths if (found := setting(settings, path))), []))


def _flat(pipeline: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    result = []
    for step in pipeline:
        inner = _flat(step.get("transforms", ()))
        if step.get("type") == "MultiScaleFlipAug" and "img_scale" in step:  # MMDetection 2 gives the size here
            sizes = {"img_scale": step["img_scale"]}
            inner = [{**part, **sizes} if part.get("type") == "Resize" else part for part in inner]
        result += inner or [step]
    return result


def _read(path: Path, above: tuple[Path, ...], data: PythonData) -> Settings:
    """`above` are the files that named this one under `_base_`."""
    if path.resolve() in above:
        raise ConfigError(f"{path}: its _base_ leads back to itself")
    data.spend(FILE, str(path))
    if path.suffix == ".json":
        return read_json(path, "MMDetection")
    text = read_text(path, "MMDetection")
    names = _parse(text, str(path), None, data).get("_base_", [])
    below: Settings = {}
    for name in names if isinstance(names, list | tuple) else [names]:
        if not isinstance(name, str):
            raise ConfigError(f"{path}: _base_ should name files, found {short_repr(name)}")
        below |= _read(path.parent / name, (*above, path.resolve()), data)
    own = _parse(text, str(path), below, data)
    own.pop("_base_", None)
    return merged(below, own)


def _parse(text: str, where: str, base: Settings | None, data: PythonData) -> Settings:
    """The values of the assignments in a text.

    Args:
        base: the settings behind `_base_.name`. Assignments to them change this dictionary. With None only the value of
            `_base_` is parsed.
    """
    check_length(text, where)
    try:
        statements = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ConfigError(f"{where}: expected a config of MMDetection, found no Python: {error}; {INSTEAD}") from None
    found: Settings = {}
    for statement in statements:
        if isinstance(statement, ast.Import | ast.ImportFrom) or _is_text(statement):
            continue
        if not isinstance(statement, ast.Assign):
            data.refuse(statement, where)
        names = [target.id for target in statement.targets if isinstance(target, ast.Name)]
        if base is None and "_base_" not in names:
            continue
        scope = found if base is None else ChainMap({"_base_": base}, found)
        try:
            data.assign(statement, found, scope, where)
        except ConfigError:
            raise
        except (RecursionError, TypeError, ValueError, IndexError):
            data.refuse(statement, where)
    data.pay([found, base], where)  # once more: an assignment to a part of a value changes all that hold it
    return found


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
