"""What importers share to read the settings of a framework: files, defaults, checks and values.

Settings are dictionaries. `flat` gives them names with dots, such as MODEL.RPN.NMS_THRESH.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from maskrcnn.config import Config, config_from_dict, config_to_dict
from maskrcnn.errors import ConfigError, WeightsError
from maskrcnn.weights.frameworks.importer import listed

Settings = dict[str, Any]


def read_text(path: Path | str, framework: str) -> str:
    """The text of a config file; raises ConfigError if it cannot be read."""
    try:
        return Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: expected a config of {framework}, cannot be read: {error}") from None


def read_json(path: Path | str, framework: str) -> Settings:
    """The JSON object in a file.

    Raises:
        ConfigError: it cannot be read, or is no JSON object.
    """
    try:
        content = json.loads(read_text(path, framework))
    except (ValueError, RecursionError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path}: expected a JSON object with settings of {framework}: {error}") from None
    return _dictionary(content, f"{path}: expected a JSON object with settings of {framework}")


def read_yaml(path: Path | str, framework: str, section: str | None = "MODEL") -> Settings:
    """The settings in a YAML file by their names with dots, above those of the file that it names under `_BASE_`.

    Args:
        section: as of `parse_yaml`.

    Raises:
        ConfigError: it cannot be read, or is no such config.
    """
    return flat(_read_yaml(Path(path), framework, section, ()))


def _read_yaml(path: Path, framework: str, section: str | None, above: tuple[Path, ...]) -> Settings:
    """`above`: the files that led here by their `_BASE_`."""
    content = parse_yaml(read_text(path, framework), str(path), framework, section)
    base = content.pop("_BASE_", None)
    if base is None:
        return content
    if not isinstance(base, str) or (path.parent / base).resolve() in (path.resolve(), *above):
        raise ConfigError(f"{path}: _BASE_ should name another file, found {base!r}")
    return merged(_read_yaml(path.parent / base, framework, section, (path.resolve(), *above)), content)


def parse_yaml(text: str, where: str, framework: str, section: str | None = "MODEL") -> Settings:
    """The settings in a YAML text. It is read as data: what stands there as an object of Python is not made one, and
    tuples that are written as text become lists.

    Args:
        where: the name of the file, for messages.
        section: a dictionary that every config has, beside or in the file under `_BASE_`.

    Raises:
        ConfigError: no YAML, or no settings of a model.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_multi_constructor("tag:yaml.org,2002:python/", _plain_object)
    try:
        content = yaml.load(text, Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: expected the YAML config of {framework}: {str(error).splitlines()[0]}") from None
    content = _dictionary(content, f"{where}: expected the YAML config of {framework}")
    if section is not None and not (
        isinstance(content.get(section, {}), dict) and ("_BASE_" in content or section in content)
    ):
        raise ConfigError(
            f"{where}: expected the YAML config of {framework}, with settings under {section}, found "
            f"{listed(map(str, content)) or 'nothing'}; a config in Python is not read"
        )
    result: Settings = _literals(content)
    return result


def _dictionary(content: Any, expected: str) -> Settings:
    if not isinstance(content, dict):
        raise ConfigError(f"{expected}, found {type(content).__name__}")
    return content


def _plain_object(loader: Any, suffix: str, node: Any) -> Any:
    """The dictionary, list or text that an object of Python is written with; its class is not looked up."""
    import yaml

    if isinstance(node, yaml.MappingNode):
        content = loader.construct_mapping(node, deep=True)
        return content.get("dictitems", content)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return loader.construct_scalar(node)


def _literals(value: Any) -> Any:
    """Texts such as "(0.5, 1, 2)" as the lists that they name; yacs and Detectron read them so."""
    if isinstance(value, dict):
        return {str(name): _literals(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_literals(item) for item in value]
    if isinstance(value, str) and value[:1] in ("(", "["):
        try:
            return _literals(ast.literal_eval(value))
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return value
    return value


def flat(settings: Mapping[str, Any], prefix: str = "") -> Settings:
    """{"MODEL": {"MASK_ON": True}} -> {"MODEL.MASK_ON": True}."""
    result: Settings = {}
    for name, value in settings.items():
        result |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return result


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> Settings:
    """`above` on top of `below`, dictionary by dictionary; one with `_delete_` replaces the other one wholly."""
    result = dict(below)
    for name, value in above.items():
        if isinstance(value, Mapping):
            old = result.get(name)
            kept = {} if value.get("_delete_") or not isinstance(old, Mapping) else old
            result[name] = merged(kept, {key: item for key, item in value.items() if key != "_delete_"})
        else:
            result[name] = value
    return result


def setting(settings: Any, path: str, default: Any = None) -> Any:
    """`model.roi_head.bbox_head` of nested dictionaries; `default` where a part is missing or None."""
    for name in path.split("."):
        settings = settings.get(name) if isinstance(settings, Mapping) else None
    return default if settings is None else settings


def with_settings(config: Config, values: Mapping[str, Any]) -> Config:
    """Our config with other values of some settings, by names such as `model.rpn.nms_iou`.

    Raises:
        ConfigError: a value of another kind, or out of range.
    """
    nested = config_to_dict(config)
    for path, value in values.items():
        *parts, last = path.split(".")
        setting(nested, ".".join(parts))[last] = value
    return config_from_dict(nested)


def check_supported(settings: Mapping[str, Any], supported: Mapping[str, Any]) -> None:
    """Refuses settings that would change the results and that this package does not support.

    Args:
        supported: the only value of each setting that has a counterpart here.

    Raises:
        ConfigError: names the setting.
    """
    for name, value in supported.items():
        if settings.get(name, value) != value:
            raise unsupported(name, settings[name], value)


def unsupported(name: str, found: Any, *expected: Any) -> ConfigError:
    """The error of a setting that this package does not support."""
    return ConfigError(
        f"{name} {found!r} is not supported: expected {' or '.join(map(repr, expected)) or 'no such setting'}"
    )


def check_fits(settings: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    """Refuses the settings of another file.

    Args:
        known: what the shapes of this file say about a setting, by its name.

    Raises:
        WeightsError: names the setting.
    """
    for name, found in known.items():
        if name in settings and settings[name] is not None and settings[name] != found:
            raise WeightsError(
                f"{name} is {settings[name]!r} in the settings, and {found!r} in the file: do the settings belong to "
                "this file?"
            )


@contextmanager
def kinds_checked(framework: str) -> Iterator[None]:
    """Turns what a value of an unexpected kind raises into a ConfigError."""
    try:
        yield
    except (ConfigError, WeightsError):
        raise
    except (TypeError, ValueError, IndexError, KeyError, AttributeError, ZeroDivisionError) as error:
        raise ConfigError(f"a setting of {framework} has a value of an unexpected kind: {error}") from None


def three(values: Any, *, bgr: bool = False) -> tuple[float, float, float]:
    """Three numbers in the order R, G, B, from [b, g, r] or [[[b, g, r]]] where `bgr`."""
    while isinstance(values, list) and len(values) == 1:
        values = values[0]
    first, second, third = (float(value) for value in values)
    return (third, second, first) if bgr else (first, second, third)


def four(values: Any) -> tuple[float, float, float, float]:
    """The weights of x, y, width and height."""
    x, y, width, height = (float(value) for value in values)
    return x, y, width, height
