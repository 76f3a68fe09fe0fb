"""Translates tensor names of another framework to ours and back, with one table of patterns for both directions.

A row pairs a pattern of their names with a pattern of ours. Fields in braces match the parts that vary:

    Row("group{s-2}/block{b}/conv{c}/W", "backbone.res{s}.{b}.conv{c}.conv.weight")

- A field of one letter is a number. In their pattern it may be an expression of our number: `{s-2}`, `{3*i+1}`.
- A longer field such as `{leaf}` is a word. The table's `words` translate it. A field that they lack matches any
  identifier, which is the same on both sides.
- `{.conv}` in our pattern is `.conv` if a norm follows the convolution, and empty if not.
- `{norm}` in their pattern is `bn` for batch norm and `gn` for group norm.

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
    """The names of one kind of tensor.

    Attributes:
        theirs, ours: patterns with the same fields.
        where: patterns of our modules. The row is used only if the network has all of them.
        unless: patterns of our modules. The row is used only if the network has none of them.
    """

    theirs: str
    ours: str
    where: Patterns = ()
    unless: Patterns = ()


def under(theirs: str, ours: str, rows: Iterable[Row], where: Patterns = (), unless: Patterns = ()) -> tuple[Row, ...]:
    """The rows of a module, with the module's two names as prefixes.

    Args:
        where, unless: further conditions of all rows. They take no prefix.
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
        one: the prefix of their names in a model with one head.
        several: the prefix in a cascade, with the stage as `{k}`. None if the framework has no cascade.
    """
    return _stages("roi_heads.box.heads.", one, several, rows, where)


def mask_stages(one: str, several: str | None, rows: Sequence[Row]) -> tuple[Row, ...]:
    """The rows of a mask head; the arguments are those of `box_stages`."""
    return _stages("roi_heads.mask.heads.", one, several, rows)


def _stages(ours: str, one: str, several: str | None, rows: Sequence[Row], where: Patterns = ()) -> tuple[Row, ...]:
    """Our heads are always a list. A model is a cascade if the list has a second head."""
    if several is None:
        return under(one, ours + "0.", rows, where)
    return under(one, ours + "0.", rows, where, unless=(ours + "1",)) + under(several, ours + "{k}.", rows, where)


class NameTable:
    """The names of a framework that have a counterpart here.

    Args:
        words: field name -> their words -> our words.
    """

    def __init__(self, rows: Iterable[Row], words: Words | None = None) -> None:
        self.rows = tuple(rows)
        self.words = words or {}

    def our_names(self, names: Iterable[str]) -> dict[str, str]:
        """Their names -> our names. Names without a counterpart here are left out.

        Args:
            names: all names of one file.
        """
        names, result = list(names), dict[str, str]()
        for _ in range(2):  # the first pass finds the modules for the conditions of the rows
            known = _modules(result.values())
            pairs = ((name, self._translated(name, known, to_ours=True)) for name in names)
            result = {name: found for name, found in pairs if found is not None}
        return result

    def their_names(self, names: Iterable[str]) -> dict[str, str]:
        """Our names -> their names. Names without a counterpart there are left out.

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
            # If the conditions of no row hold, the first row that matches is used: the file may be incomplete.
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
    """The names of theirs that `{norm}` stands for. The one of batch norm comes with our name of its running variance,
    which group norm does not have."""
    if "{norm}" in row.theirs:
        yield row.theirs.replace("{norm}", "bn"), f"{row.ours.rpartition('.')[0]}.running_var"
    yield row.theirs.replace("{norm}", "gn"), None


def _modules(names: Iterable[str]) -> set[str]:
    """The names of the tensors and of all modules around them."""
    return {name[:end] for name in names for end in (*(dot.start() for dot in re.finditer(r"\.", name)), len(name))}


class _Pattern:
    """A compiled pattern.

    Args:
        words: field name -> words of this pattern -> our words.
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
        """The values of the fields in a name, as our numbers and words. None if the name does not match."""
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
        """The name with these values of the fields.

        Args:
            known: the names of our modules. They show whether a norm follows a convolution.
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

        def exists(pattern: _Pattern) -> bool:
            return pattern.filled(values, known) in known

        # Their names contain the kind of norm; ours do not.
        same_norm = to_ours or self.statistics is None or exists(self.statistics)
        return same_norm and all(map(exists, self.where)) and not any(map(exists, self.unless))
