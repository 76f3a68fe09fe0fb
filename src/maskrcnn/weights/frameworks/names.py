"""Names of tensors in another framework and here: one table of patterns gives both directions.

A row pairs a name of theirs with the name of ours, and fields in braces stand for what varies:

    Row("group{s-2}/block{b}/conv{c}/W", "backbone.res{s}.{b}.conv{c}.conv.weight")

- One letter is a number. On their side it may be counted otherwise: `{s-2}`, `{2*i}`, `{3*i+1}`.
- A word is what the table translates under that name (`words`), or any identifier, the same on both sides: `{leaf}`.
- `{.conv}` on our side is `.conv` where a norm follows the convolution, and nothing where none does.
- `{norm}` on their side is `bn` for batch norm and `gn` for group norm.

If several rows match a name, the first one whose conditions hold is used.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

FIELD = re.compile(r"\{(?:(?P<factor>\d+)\*)?(?P<name>[a-z.]+)(?P<offset>[+-]\d+)?\}")
CONV = ".conv"
Patterns = tuple[str, ...]
Words = Mapping[str, Mapping[str, str]]
Values = dict[str, str | int]


@dataclass(frozen=True)
class Row:
    """Names of one kind of tensor.

    Attributes:
        theirs, ours: patterns with the same fields.
        where: patterns of our modules; the row counts only where the network has all of them.
        unless: patterns of our modules; the row counts only where the network has none of them.
    """

    theirs: str
    ours: str
    where: Patterns = ()
    unless: Patterns = ()


def under(theirs: str, ours: str, rows: Iterable[Row], where: Patterns = (), unless: Patterns = ()) -> tuple[Row, ...]:
    """The rows of a module, put behind the two names of the module.

    Args:
        where, unless: further conditions of all these rows, with whole names.
    """
    return tuple(
        Row(
            theirs + row.theirs,
            ours + row.ours,
            where + tuple(ours + name for name in row.where),
            unless + tuple(ours + name for name in row.unless),
        )
        for row in rows
    )


def box_stages(one: str, several: str | None, rows: Sequence[Row], where: Patterns = ()) -> tuple[Row, ...]:
    """The rows of a box head.

    Args:
        one: what stands before their names in a model with one head.
        several: what stands there in a cascade, with the stage as `{k}`; None if the framework has no cascade.
    """
    return _stages("roi_heads.box.heads.", one, several, rows, where)


def mask_stages(one: str, several: str | None, rows: Sequence[Row]) -> tuple[Row, ...]:
    """The rows of a mask head, as in `box_stages`."""
    return _stages("roi_heads.mask.heads.", one, several, rows)


def _stages(ours: str, one: str, several: str | None, rows: Sequence[Row], where: Patterns = ()) -> tuple[Row, ...]:
    """Our heads are a list in both cases, and a second one says that it is a cascade."""
    if several is None:
        return under(one, ours + "0.", rows, where)
    return under(one, ours + "0.", rows, where, unless=(ours + "1",)) + under(several, ours + "{k}.", rows, where)


class NameTable:
    """All names of a framework that have a counterpart here.

    Args:
        words: what a word of theirs is here, by the name of the field.
    """

    def __init__(self, rows: Iterable[Row], words: Words | None = None) -> None:
        self.rows = tuple(rows)
        self.words = words or {}

    def our_names(self, names: Iterable[str]) -> dict[str, str]:
        """Those of their names that have a counterpart here -> our names.

        Args:
            names: all names of one file.
        """
        names, result = list(names), dict[str, str]()
        for _ in range(2):  # the first pass finds the modules that the conditions ask for
            known = _modules(result.values())
            pairs = ((name, self._translated(name, known, to_ours=True)) for name in names)
            result = {name: found for name, found in pairs if found is not None}
        return result

    def their_names(self, names: Iterable[str]) -> dict[str, str]:
        """Those of our names that have a counterpart there -> their names.

        Args:
            names: all names of one network of ours.
        """
        names = list(names)
        known = _modules(names)
        pairs = ((name, self._translated(name, known, to_ours=False)) for name in names)
        return {name: found for name, found in pairs if found is not None}

    def _translated(self, name: str, known: set[str], *, to_ours: bool) -> str | None:
        fallback = None
        for row in self._compiled:
            source, target = (row.theirs, row.ours) if to_ours else (row.ours, row.theirs)
            values = source.values(name)
            if values is None:
                continue
            if row.holds(values, known, to_ours=to_ours):
                return target.filled(values, known)
            # A damaged file may lack what the condition asks for.
            fallback = fallback or target.filled(values, known)
        return fallback

    @cached_property
    def _compiled(self) -> list[_CompiledRow]:
        ours = {field: {word: word for word in words.values()} for field, words in self.words.items()}
        return [
            _CompiledRow(
                _Pattern(theirs, self.words),
                _Pattern(row.ours, ours),
                [_Pattern(pattern, ours) for pattern in row.where],
                [_Pattern(pattern, ours) for pattern in row.unless],
                None if statistics is None else _Pattern(statistics, ours),
            )
            for row in self.rows
            for theirs, statistics in _norms_named(row)
        ]


def _norms_named(row: Row) -> Iterable[tuple[str, str | None]]:
    """Their names of a row for each kind of norm, and our name of the running statistics that this kind has: batch norm
    has them, and group norm has none."""
    if "{norm}" in row.theirs:
        yield row.theirs.replace("{norm}", "bn"), f"{row.ours.rpartition('.')[0]}.running_var"
    yield row.theirs.replace("{norm}", "gn"), None


def _modules(names: Iterable[str]) -> set[str]:
    """The names of tensors and of all modules that hold them."""
    return {name[:end] for name in names for end in (*(dot.start() for dot in re.finditer(r"\.", name)), len(name))}


class _Pattern:
    """One side of a row, compiled.

    Args:
        words: what a word on this side is on our side, by the name of the field.
    """

    def __init__(self, pattern: str, words: Words) -> None:
        self._words = words
        self._fields = [
            (found["name"], int(found["factor"] or 1), int(found["offset"] or 0)) for found in FIELD.finditer(pattern)
        ]
        self._texts = FIELD.sub("\0", pattern).split("\0")
        expressions = [self._expression(name) for name, _, _ in self._fields]
        self._regex = re.compile(
            re.escape(self._texts[0])
            + "".join(part + re.escape(text) for part, text in zip(expressions, self._texts[1:], strict=True))
        )

    def _expression(self, field: str) -> str:
        if field == CONV:
            return r"(|\.conv)"
        if field in self._words:
            return f"({'|'.join(map(re.escape, self._words[field]))})"
        return r"(\d+)" if len(field) == 1 else r"(\w+)"

    def values(self, text: str) -> Values | None:
        """The fields in a name: numbers as we count them and words as we have them. None if it does not match."""
        found = self._regex.fullmatch(text)
        if found is None:
            return None
        values: Values = {}
        for (field, factor, offset), part in zip(self._fields, found.groups(), strict=True):
            value: str | int = self._words[field][part] if field in self._words else part
            if len(field) == 1 and field not in self._words:
                value, rest = divmod(int(part) - offset, factor)
                if rest or value < 0:
                    return None
            if values.setdefault(field, value) != value:
                return None
        return values

    def filled(self, values: Values, known: set[str]) -> str:
        """The name with these fields.

        Args:
            known: our modules, which say whether a norm follows a convolution.
        """
        text = self._texts[0]
        for (field, factor, offset), behind in zip(self._fields, self._texts[1:], strict=True):
            if field == CONV:
                text += CONV if f"{text}.norm" in known else ""
            elif field in self._words:
                text += next(word for word, ours in self._words[field].items() if ours == values[field])
            else:
                value = values[field]
                text += value if isinstance(value, str) else str(factor * value + offset)
            text += behind
        return text


@dataclass(frozen=True)
class _CompiledRow:
    theirs: _Pattern
    ours: _Pattern
    where: Sequence[_Pattern]
    unless: Sequence[_Pattern]
    statistics: _Pattern | None

    def holds(self, values: Values, known: set[str], *, to_ours: bool) -> bool:
        """Whether the conditions hold in a network with the modules `known`."""

        def there(pattern: _Pattern) -> bool:
            return pattern.filled(values, known) in known

        # Their name says itself which kind of norm it belongs to.
        kind = to_ours or self.statistics is None or there(self.statistics)
        return kind and all(map(there, self.where)) and not any(map(there, self.unless))
