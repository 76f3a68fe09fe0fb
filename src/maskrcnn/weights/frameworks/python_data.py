"""Evaluates the expressions of configs that are Python files as data, and never runs them.

Literals, `dict(...)`, earlier names, parts of values and sums have a value. Each framework says what else has one.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from maskrcnn.errors import ConfigError

ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
}
MAX_VALUES = 200_000  # of one config, as `PythonData` counts them; one with the classes of LVIS has about 10,000
FILE = 1000  # a file counts as so many values
MAX_BITS = 1024  # of an integer

Scope = Mapping[str, Any]  # names that have a value
Call = Callable[[ast.Call, Callable[[ast.expr], Any]], Any]


class PythonData:
    """The values of one config, which may make a bounded number of them, copies included.

    The bound stops configs that double a value in every line, or name each file twice that they build on.

    Args:
        instead: what the user can do where the config holds more than data, for messages.
        call: the value of a call other than `dict(...)`, from its node and a function that evaluates its arguments.
            None refuses such calls.
    """

    def __init__(self, instead: str, call: Call | None = None) -> None:
        self.instead, self.call = instead, call
        self.left = MAX_VALUES

    def spend(self, count: int, where: str) -> None:
        """Counts values; raises ConfigError if there are too many."""
        self.left -= count
        if self.left < 0:
            raise ConfigError(
                f"{where}: expected a config of at most {MAX_VALUES:,} values, found more; {self.instead}"
            )

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
                raise ConfigError(
                    f"{where}: expected numbers, found an integer of {item.bit_length()} bits; {self.instead}"
                )
            if isinstance(item, Mapping):
                waiting += item.values()
            elif isinstance(item, list | tuple):
                waiting += item

    def value(self, node: ast.expr, scope: Scope, where: str) -> Any:
        """The value of an expression.

        Raises:
            ConfigError: it holds more than data, or too many values.
        """

        def of(inner: ast.expr) -> Any:
            return self.value(inner, scope, where)

        def part(inner: ast.expr) -> Any:
            """A value of which a copy becomes part of another."""
            value = of(inner)
            self.pay(value, where)
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
            case ast.Call() if self.call is not None:
                return self.call(node, of)
            case ast.Name(id=name) if name in scope:
                return scope[name]
            case ast.UnaryOp(op=ast.USub(), operand=inner) if isinstance(number := of(inner), int | float):
                return -number
            case ast.BinOp(left=left, op=op, right=right) if type(op) in ARITHMETIC:
                pair = part(left), part(right)
                numbers = all(isinstance(side, int | float) for side in pair)
                lists = type(pair[0]) is type(pair[1]) and isinstance(pair[0], list | tuple | str)
                if numbers or (lists and isinstance(op, ast.Add)):
                    try:
                        return ARITHMETIC[type(op)](*pair)
                    except (ArithmeticError, ValueError):
                        self.refuse(node, where)
            case ast.Attribute(value=inner, attr=key) if isinstance(holder := of(inner), Mapping) and key in holder:
                return holder[key]
            case ast.Subscript(value=inner, slice=key):
                try:
                    return of(inner)[of(key)]
                except (TypeError, KeyError, IndexError):
                    self.refuse(node, where)
        self.refuse(node, where)

    def assign(self, statement: ast.Assign, names: dict[str, Any], scope: Scope, where: str) -> None:
        """Evaluates an assignment and stores its value in `names`, or in the part of a value in `scope` that it names.

        Raises:
            ConfigError: it holds more than data, or too many values.
            RecursionError, TypeError, ValueError, LookupError: a part is not there, or cannot be set.
        """
        value = self.value(statement.value, scope, where)
        self.pay(value, where)
        for target in statement.targets:
            if isinstance(target, ast.Name):
                names[target.id] = value
            else:
                self._set_part(target, value, scope, where)

    def _set_part(self, target: ast.expr, value: Any, scope: Scope, where: str) -> None:
        """Assigns to a part of a setting: `_base_.model.neck = value` or `model['neck'] = value`."""
        if not isinstance(target, ast.Attribute | ast.Subscript):
            self.refuse(target, where)
        holder = self.value(target.value, scope, where)
        key = target.attr if isinstance(target, ast.Attribute) else self.value(target.slice, scope, where)
        holder[key] = value

    def refuse(self, node: ast.AST, where: str) -> NoReturn:
        """Raises ConfigError, which names the line and what stands there."""
        try:
            found = repr(ast.unparse(node)[:80])
        except RecursionError:
            found = "an expression that is nested too deeply"
        raise ConfigError(
            f"{where}, line {getattr(node, 'lineno', '?')}: expected data (numbers, texts, lists, dict(...), earlier "
            f"names), found {found}, which is not run; {self.instead}"
        )
