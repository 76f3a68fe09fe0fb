"""Reads MMDetection's configs. They are Python files, which are parsed as data and never run.

A config consists of assignments of literals, `dict(...)`, earlier names and names of the files under `_base_`. The
sources are MMEngine's and MMCV's `Config.fromfile`.
"""

from __future__ import annotations

import ast
import operator
import re
from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from reprlib import repr as short_repr
from typing import Any, NoReturn

from maskrcnn.errors import ConfigError
from maskrcnn.files.plain_yaml import check_length
from maskrcnn.weights.frameworks.importer import listed
from maskrcnn.weights.frameworks.settings import Settings, merged, read_json, read_text, setting

ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
}
MAX_VALUES = 200_000  # of one config, as `Budget` counts them; one with the classes of LVIS has about 10,000
FILE = 1000  # a file counts as so many values
MAX_BITS = 1024  # of an integer
INSTEAD = "give the config that MMDetection prints (tools/misc/print_config.py), or none: most files hold their config"


class Budget:
    """The values that a config may still make, copies included.

    It stops configs that double a value in every line, or name each file under `_base_` twice.
    """

    def __init__(self) -> None:
        self.left = MAX_VALUES

    def spend(self, count: int, where: str) -> None:
        """Counts values; raises ConfigError if there are too many."""
        self.left -= count
        if self.left < 0:
            raise ConfigError(f"{where}: expected a config of at most {MAX_VALUES:,} values, found more; {INSTEAD}")

    def pay(self, value: Any, where: str) -> None:
        """Counts a value with all that it holds; 16 characters count as one value.

        Raises:
            ConfigError: there are too many values, the value holds itself, or it holds an integer that is too large.
        """
        waiting = [value]
        while waiting:
            item = waiting.pop()
            self.spend(1 + (len(item) // 16 if isinstance(item, str | bytes) else 0), where)
            if isinstance(item, int) and item.bit_length() > MAX_BITS:
                raise ConfigError(f"{where}: expected numbers, found an integer of {item.bit_length()} bits; {INSTEAD}")
            if isinstance(item, Mapping):
                waiting += item.values()
            elif isinstance(item, list | tuple):
                waiting += item


def read_settings(path: Path | str) -> Settings:
    """The settings of a config (.py or .json) and of the files under its `_base_`.

    Raises:
        ConfigError: the file cannot be read, is no config of a model, or holds more than data, such as functions,
            loops and conditions.
    """
    settings = _read(Path(path), (), Budget())
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
    settings, budget = Settings(), Budget()
    for part in re.split(r"^\S+\.py$", text, flags=re.MULTILINE):
        settings = merged(settings, _parse(part, where, settings, budget))
        budget.pay(settings, where)
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


def _read(path: Path, above: tuple[Path, ...], budget: Budget) -> Settings:
    """`above` are the files that named this one under `_base_`."""
    if path.resolve() in above:
        raise ConfigError(f"{path}: its _base_ leads back to itself")
    budget.spend(FILE, str(path))
    if path.suffix == ".json":
        return read_json(path, "MMDetection")
    text = read_text(path, "MMDetection")
    names = _parse(text, str(path), None, budget).get("_base_", [])
    below: Settings = {}
    for name in names if isinstance(names, list | tuple) else [names]:
        if not isinstance(name, str):
            raise ConfigError(f"{path}: _base_ should name files, found {short_repr(name)}")
        below |= _read(path.parent / name, (*above, path.resolve()), budget)
    own = _parse(text, str(path), below, budget)
    own.pop("_base_", None)
    return merged(below, own)


def _parse(text: str, where: str, base: Settings | None, budget: Budget) -> Settings:
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
            _refuse(statement, where)
        names = [target.id for target in statement.targets if isinstance(target, ast.Name)]
        if base is None and "_base_" not in names:
            continue
        scope = found if base is None else ChainMap({"_base_": base}, found)
        try:
            value = _value(statement.value, scope, where, budget)
            budget.pay(value, where)
            for target in statement.targets:
                if isinstance(target, ast.Name):
                    found[target.id] = value
                else:
                    _set(target, value, scope, where, budget)
        except ConfigError:
            raise
        except (RecursionError, TypeError, ValueError, IndexError):
            _refuse(statement, where)
    budget.pay([found, base], where)  # once more: an assignment to a part of a value changes all that hold it
    return found


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _set(target: ast.expr, value: Any, scope: Mapping[str, Any], where: str, budget: Budget) -> None:
    """Assigns to a part of a setting: `_base_.model.neck = value` or `model['neck'] = value`."""
    if not isinstance(target, ast.Attribute | ast.Subscript):
        _refuse(target, where)
    holder = _value(target.value, scope, where, budget)
    key = target.attr if isinstance(target, ast.Attribute) else _value(target.slice, scope, where, budget)
    holder[key] = value


def _value(node: ast.expr, scope: Mapping[str, Any], where: str, budget: Budget) -> Any:
    def of(inner: ast.expr) -> Any:
        return _value(inner, scope, where, budget)

    def part(inner: ast.expr) -> Any:
        """A value of which a copy becomes part of another."""
        value = of(inner)
        budget.pay(value, where)
        return value

    match node:
        case ast.Constant(value=value):
            return value
        case ast.List(elts=items):
            return [of(item) for item in items]
        case ast.Tuple(elts=items):
            return tuple(of(item) for item in items)
        case ast.Set(elts=[ast.Set(elts=[inner])]):  # {{_base_.name}}
            return of(inner)
        case ast.Dict(keys=keys, values=values):
            result: dict[Any, Any] = {}
            for key, item in zip(keys, values, strict=True):
                result |= part(item) if key is None else {of(key): of(item)}
            return result
        case ast.Call(func=ast.Name(id="dict"), args=arguments, keywords=keywords):
            result = {}
            for argument in arguments:
                result |= part(argument)
            for keyword in keywords:
                result |= part(keyword.value) if keyword.arg is None else {keyword.arg: of(keyword.value)}
            return result
        case ast.Name(id=name) if name in scope:
            return scope[name]
        case ast.UnaryOp(op=ast.USub(), operand=inner) if isinstance(number := of(inner), int | float):
            return -number
        case ast.BinOp(left=left, op=op, right=right) if type(op) in ARITHMETIC:
            pair = part(left), part(right)
            numbers = all(isinstance(side, int | float) for side in pair)
            lists = (
                isinstance(op, ast.Add) and type(pair[0]) is type(pair[1]) and isinstance(pair[0], list | tuple | str)
            )
            if numbers or lists:
                try:
                    return ARITHMETIC[type(op)](*pair)
                except (ArithmeticError, ValueError):
                    _refuse(node, where)
        case ast.Attribute(value=inner, attr=key) if isinstance(holder := of(inner), Mapping) and key in holder:
            return holder[key]
        case ast.Subscript(value=inner, slice=key):
            try:
                return of(inner)[of(key)]
            except (TypeError, KeyError, IndexError):
                _refuse(node, where)
    _refuse(node, where)


def _refuse(node: ast.AST, where: str) -> NoReturn:
    try:
        found = repr(ast.unparse(node)[:80])
    except RecursionError:
        found = "an expression that is nested too deeply"
    raise ConfigError(
        f"{where}, line {getattr(node, 'lineno', '?')}: expected data (numbers, texts, lists, dict(...), earlier "
        f"names), found {found}, which is not run; {INSTEAD}"
    )
