"""Reads YAML as plain data, without classes, with a limit on the expansion of aliases, and with one-line errors."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

from maskrcnn.errors import ConfigError

MAX_CHARACTERS = 1 << 17  # of a text; PyYAML takes a second for each 100,000
MAX_NUMBER = 100  # characters of a number
MAX_VALUES = 100_000  # after every alias is written out; 16 characters of a text count as one more


def read_yaml(path: Path | str) -> Any:
    """The content of a YAML file: dictionaries, lists, strings and numbers, or None for an empty file.

    Raises:
        ConfigError: the file cannot be read, is too large, or is not YAML (names the line).
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MAX_CHARACTERS + 1)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{path}: expected a YAML file, but it cannot be read ({reason})") from None
    return parse_yaml(text, str(path))


def check_length(text: str, where: str) -> None:
    """Raises ConfigError if a text of settings is too long; `where` names it."""
    if len(text) > MAX_CHARACTERS:
        raise ConfigError(f"{where}: expected settings of at most {MAX_CHARACTERS:,} characters, found more")


def parse_yaml(text: str, where: str, *, python_tags: bool = False) -> Any:
    """The content of a YAML text; see `read_yaml` for values and errors.

    Args:
        where: the name of the text in errors.
        python_tags: accept Python objects, and return the dictionary, list or string that describes them. Their classes
            are not imported.
    """
    import yaml

    check_length(text, where)

    class Loader(yaml.SafeLoader):
        pass

    # Without this, YAML 1.1 reads 1e-4 as a string, because it has no decimal point.
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?\d+[eE][-+]?\d+$"), list("-+0123456789"))
    if python_tags:
        Loader.add_multi_constructor("tag:yaml.org,2002:python/", _plain_object)
    try:
        loader = Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _count(node, {}, where)
        return loader.construct_document(node)
    except ConfigError:  # it is a ValueError
        raise
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{where}{line}: expected YAML, {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError) as error:  # a character or a number that cannot be read
        raise ConfigError(f"{where}: expected YAML, {str(error).splitlines()[0]}") from None
    except RecursionError:
        raise ConfigError(f"{where}: expected settings, found lists nested too deeply") from None


def _plain_object(loader: Any, suffix: str, node: Any) -> Any:
    import yaml

    if isinstance(node, yaml.MappingNode):
        content = loader.construct_mapping(node, deep=True)
        return content.get("dictitems", content)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return loader.construct_scalar(node)


def _count(node: Any, counted: dict[int, int | None], where: str) -> int:
    """The number of values in a node with all aliases expanded, long texts as several; each node is visited once.

    Args:
        counted: id of a visited node -> its number of values; None while it is being counted.

    Raises:
        ConfigError: there are too many values, a node contains itself, a mapping has a key twice, or a number is too
            long.
    """
    children = node.value if isinstance(node.value, list) else []
    keys = [child[0].value for child in children if isinstance(child, tuple) and isinstance(child[0].value, str)]
    here = f"{where}, line {node.start_mark.line + 1}"
    for key, times in Counter(keys).items():
        if times > 1:
            raise ConfigError(f"{here}: {key} is given twice; keep one of the two")
    if node.tag == "tag:yaml.org,2002:int" and len(node.value) > MAX_NUMBER:
        raise ConfigError(f"{here}: expected a number, found one of {len(node.value)} characters")
    counted[id(node)] = None
    total = 1 + (len(node.value) // 16 if isinstance(node.value, str) else 0)
    for child in children:
        for part in child if isinstance(child, tuple) else (child,):
            found = counted[id(part)] if id(part) in counted else _count(part, counted, where)
            if found is None:
                raise ConfigError(f"{here}: expected aliases of other values, found one inside the value that it names")
            total += found
    if total > MAX_VALUES:
        raise ConfigError(f"{here}: expected at most {MAX_VALUES:,} values, found more after expanding aliases")
    counted[id(node)] = total
    return total
