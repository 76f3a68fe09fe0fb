"""Reads and checks the settings of other frameworks, and converts their values; shared by all importers.

Settings are dictionaries. `flat` gives them names with dots, such as MODEL.RPN.NMS_THRESH.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from reprlib import repr as short_repr
from typing import Any

from maskrcnn.config import AnchorConfig, Channel, ModelConfig
from maskrcnn.errors import ConfigError, WeightsError
from maskrcnn.files import plain_yaml
from maskrcnn.weights.frameworks.importer import listed

Settings = dict[str, Any]
Assumed = tuple[str, ...]  # one sentence for each assumption

# Assumptions that several frameworks share.
RESIZED = "each image is resized to a short side of 800 and a long side of at most 1333 pixels"
DETECTED = (
    "detections have scores above 0.05, and at most 100 of them per image pass non-maximum suppression at IoU 0.5"
)
FIVE_ANCHORS = "anchors have sizes of 32, 64, 128, 256 and 512 pixels and ratios of 0.5, 1 and 2"
CAFFE_PIXELS = "the input is BGR with mean 102.9801, 115.9465, 122.7717"


def read_text(path: Path | str, framework: str) -> str:
    """The text of a config file.

    Raises:
        ConfigError: the file cannot be read, or is too long.
    """
    try:
        with Path(path).open(encoding="utf-8") as file:
            text = file.read(plain_yaml.MAX_CHARACTERS + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: expected a config of {framework}, but it cannot be read: {error}") from None
    plain_yaml.check_length(text, str(path))
    return text


def read_json(path: Path | str, framework: str) -> Settings:
    """The JSON object in a file.

    Raises:
        ConfigError: the file cannot be read, or holds no JSON object.
    """
    expected = f"{path}: expected a JSON object with settings of {framework}"
    return _dictionary(json_value(read_text(path, framework), expected), expected)


def json_value(text: str, expected: str) -> Any:
    """The value of a JSON text; raises ConfigError, which begins with `expected`, if the text is no JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{expected}: {error}") from None


def read_yaml(path: Path | str, framework: str, section: str | None = "MODEL") -> Settings:
    """The settings of a YAML file and of the files under its `_BASE_`, by names with dots.

    Args:
        section: as in `parse_yaml`.

    Raises:
        ConfigError: the file cannot be read, or is no config of a model.
    """
    return flat(_read_yaml(Path(path), framework, section, ()))


def _read_yaml(path: Path, framework: str, section: str | None, above: tuple[Path, ...]) -> Settings:
    """`above` are the files that named this one under `_BASE_`."""
    content = parse_yaml(read_text(path, framework), str(path), framework, section)
    bases = content.pop("_BASE_", [])
    above, below = (*above, path.resolve()), Settings()
    for name in bases if isinstance(bases, list) else [bases]:
        below = merged(below, _read_yaml(_base_file(name, path, above), framework, section, above))
    return merged(below, content)


def _base_file(name: Any, path: Path, above: tuple[Path, ...]) -> Path:
    """The file that the config at `path` names under `_BASE_`.

    Raises:
        ConfigError: there is no such file here, or it leads back to the config.
    """
    base = path.parent / Path(name).expanduser() if isinstance(name, str) else path
    if base.resolve() in above:
        raise ConfigError(f"{path}: _BASE_ should name another file, found {name!r}")
    if not base.is_file():
        raise ConfigError(
            f"{path}: its _BASE_ names {name}, but there is no file {base.resolve()}; put it there, or give the "
            "config.yaml that the training wrote beside its weights, which needs no other file"
        )
    return base


def parse_yaml(text: str, where: str, framework: str, section: str | None = "MODEL") -> Settings:
    """The settings in a YAML text. Tagged Python objects are read as plain data, and texts such as "(1, 2)" as lists.

    Args:
        where: the name of the file, for messages.
        section: a dictionary that every config or the file under its `_BASE_` has. None if there is no such dictionary.

    Raises:
        ConfigError: the text is no YAML, or holds no settings of a model.
    """
    expected = f"{where}: expected the YAML config of {framework}"
    content = _dictionary(plain_yaml.parse_yaml(text, where, python_tags=True), expected)
    has_section = section is None or section in content or "_BASE_" in content
    if not has_section or (section is not None and not isinstance(content.get(section, {}), dict)):
        found = listed(map(str, content)) or "nothing"
        raise ConfigError(
            f"{expected}, with settings under {section}, found {found}; configs in Python are not supported"
        )
    result: Settings = _literals(content)
    return result


def _dictionary(content: Any, expected: str) -> Settings:
    if not isinstance(content, dict):
        raise ConfigError(f"{expected}, found {type(content).__name__}")
    return content


def _literals(value: Any) -> Any:
    """The value, with texts such as "(0.5, 1, 2)" parsed into lists, as yacs and Detectron do."""
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
    """Nested dictionaries merged; values of `above` win. A dictionary with `_delete_` replaces the one below it."""
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
    """The value at a path such as `model.rpn_head.type`, or `default` if a part of the path is missing or None."""
    for name in path.split("."):
        settings = settings.get(name) if isinstance(settings, Mapping) else None
    return default if settings is None else settings


def unsupported(name: str, found: Any, expected: Sequence[Any]) -> ConfigError:
    """The error for a setting of which this package supports only the `expected` values."""
    return ConfigError(f"{name} {found!r} is not supported: expected {' or '.join(map(repr, expected)) or 'none'}")


def check_supported(settings: Mapping[str, Any], supported: Mapping[str, Any]) -> None:
    """Refuses settings that this package does not support.

    Args:
        supported: the only supported value of each setting.

    Raises:
        ConfigError: names the setting.
    """
    for name, value in supported.items():
        if settings.get(name, value) != value:
            raise unsupported(name, settings[name], [value])


def check_one_pooler(model: ModelConfig, settings: Mapping[str, Any], *names: str) -> None:
    """Refuses settings that give the branches of a model different poolers.

    Args:
        names: settings of MODEL.ROI_BOX_HEAD, MODEL.ROI_MASK_HEAD and MODEL.ROI_KEYPOINT_HEAD to compare.

    Raises:
        ConfigError: the settings differ.
    """
    heads = ["BOX"]
    if model.neck != "c4":  # with C4 all branches use the pooler of the box branch
        heads += ["MASK"] if model.mask_head is not None and model.mask_head.point_rend is None else []
        heads += ["KEYPOINT"] if model.keypoint_head is not None else []
    found = {tuple(settings[f"MODEL.ROI_{head}_HEAD.{name}"] for name in names) for head in heads}
    if len(found) > 1:
        raise ConfigError(f"{' and '.join(names)} must be the same for all branches, found {sorted(found, key=str)}")


def check_numbers(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Refuses a text where a setting is a number or a list of numbers.

    Configs may hold a Python expression as a text. It is never run.

    Raises:
        ConfigError: names the setting.
    """
    for name, default in defaults.items():
        found = settings[name]
        texts = [value for value in (found if isinstance(found, list) else [found]) if isinstance(value, str)]
        if texts and not isinstance(default, str):
            raise ConfigError(
                f"{name} is a text, {short_repr(texts[0])}, which is not run: expected numbers such as {default}"
            )


def check_fits(settings: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    """Refuses settings that contradict the shapes in the file.

    Args:
        known: the values of settings that the shapes determine.

    Raises:
        WeightsError: names the setting.
    """
    for name, found in known.items():
        if settings.get(name) is not None and settings[name] != found:
            raise WeightsError(
                f"{name} is {settings[name]!r} in the settings, and {found!r} in the file: do the settings belong to "
                "this file?"
            )


@contextmanager
def kinds_checked(framework: str) -> Iterator[None]:
    """Turns the Python errors that settings of an unexpected kind cause into a ConfigError."""
    try:
        yield
    except (ConfigError, WeightsError):
        raise
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ConfigError(f"a setting of {framework} has a value of an unexpected kind: {error}") from None


def three(values: Any, *, bgr: bool = False) -> tuple[float, float, float]:
    """The three numbers of [a, b, c] or [[[a, b, c]]], reversed if `bgr`."""
    first, second, third = _numbers(values)
    return (third, second, first) if bgr else (first, second, third)


def _numbers(values: Any) -> tuple[float, ...]:
    """The numbers of a, [a, b], or [[[a, b]]]."""
    while isinstance(values, list) and len(values) == 1:
        values = values[0]
    return tuple(float(value) for value in (values if isinstance(values, list | tuple) else [values]))


def pixel_statistics(mean: Any, std: Any, *, bgr: bool = False) -> dict[str, Any]:
    """The fields of `ImageConfig` for the mean and standard deviation of pixels.

    Numbers for other than three channels become `channels` without a stretch, in the order of the file.

    Args:
        bgr: whether three numbers are those of blue, green and red.

    Raises:
        ValueError: they are no numbers, or have different numbers of channels.
    """
    means, stds = _numbers(mean), _numbers(std)
    if len(means) != len(stds):
        raise ValueError(f"expected a mean and a standard deviation for each channel, found {means} and {stds}")
    if len(means) == 3:
        return {"mean": three(mean, bgr=bgr), "std": three(std, bgr=bgr)}
    pairs = enumerate(zip(means, stds, strict=True), start=1)
    return {"channels": tuple(Channel(f"channel {place}", "none", mean=m, std=s) for place, (m, s) in pairs)}


def four(values: Any) -> tuple[float, float, float, float]:
    """The weights of the box offsets x, y, width and height."""
    x, y, width, height = (float(value) for value in values)
    return x, y, width, height


def anchors_of(model: ModelConfig, sizes: Any, ratios: Any) -> AnchorConfig:
    """Anchors with one size on each level of a pyramid, or with all sizes on a single level."""
    sizes = tuple(float(size) for size in sizes)
    return AnchorConfig(
        sizes=tuple((size,) for size in sizes) if model.neck == "fpn" else (sizes,),
        ratios=tuple(float(ratio) for ratio in ratios),
    )


def jitter_of(short_sides: Any, short_side: int) -> tuple[float, float]:
    """The `scale_jitter` of a training that samples its short side.

    Args:
        short_sides: the short side in training, or a list of them.
        short_side: the short side in prediction.
    """
    sides = [short_sides] if isinstance(short_sides, int) else short_sides
    return min(sides) / short_side, max(sides) / short_side


def strided_in_1x1(model: ModelConfig) -> bool:
    """Whether such a backbone of Detectron and its successors has its stride in the first 1x1 convolution.

    Those of MSRA have it there. ResNeXt and networks with group norm have it in the 3x3 convolution.
    """
    return model.resnet.groups == 1 and model.resnet.norm != "group_norm"


def stride_sentence(in_1x1: bool, setting: str) -> str:
    """The assumption about the place of the stride."""
    return f"the stride of a bottleneck is in its {'first 1x1' if in_1x1 else '3x3'} convolution ({setting})"


def proposals_sentence(before: int, after: int, setting: str) -> str:
    """The assumption about the numbers of proposals."""
    return f"the RPN keeps {before} proposals before and {after} after non-maximum suppression at IoU 0.7 ({setting})"


def samples_sentence(ratio: int) -> str:
    """The assumption about RoIAlign's sampling ratio. With 0 it takes as many samples as a bin has cells."""
    return f"RoIAlign takes {f'{ratio} samples' if ratio else 'as many samples as a bin has cells'} per bin and axis"
