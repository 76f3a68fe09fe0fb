"""What Detectron, maskrcnn-benchmark and tensorpack share: their layout of tensors, and settings in a YAML file.

All three read BGR, count the background as class 0, and flatten RoI features by (channel, row, column).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maskrcnn.config import Config, ModelConfig
from maskrcnn.errors import ConfigError, WeightsError
from maskrcnn.weights.frameworks.importer import (
    Imported,
    background_first,
    background_last,
    channels_first_columns,
    channels_last_columns,
    channels_read,
    complete,
    listed,
    other_colours,
)

STEM = "backbone.stem.conv.weight"
FIRST_LAYER = re.compile(r"^roi_heads\.box\.heads\.\d+\.layers\.0\.weight$")
CLASSES = re.compile(r"^roi_heads\.box\.heads\.\d+\.class_logits\.")
DELTAS = re.compile(r"^roi_heads\.box\.heads\.\d+\.deltas\.")
MASKS = "roi_heads.mask.heads.0.predictor."


def our_rows(name: str, value: Tensor, *, mask_background: bool = True) -> Tensor:
    """One of their tensors with its rows of classes in our order; `name` is ours.

    Rows of boxes come in fours, those of the background first: dropped, unless four rows serve all classes. Detectron
    and maskrcnn-benchmark keep four for the background even then.

    Args:
        mask_background: the first of several masks is that of the background.
    """
    if CLASSES.match(name):
        return background_last(value)
    if DELTAS.match(name):
        return value[4:] if len(value) > 4 else value
    if name.startswith(MASKS):
        return value[1:] if mask_background and len(value) > 1 else value
    return value


def our_columns(name: str, value: Tensor, model: ModelConfig, *, bgr: bool) -> Tensor:
    """One of their tensors with the columns that read pixels or RoI features in our order; `name` is ours."""
    if name == STEM and bgr:
        return other_colours(value)
    if FIRST_LAYER.match(name):
        return channels_last_columns(value, channels_read(model))
    return value


def their_layout(
    name: str, value: Tensor, model: ModelConfig, *, agnostic_rows: int, mask_background: bool = True
) -> Tensor:
    """The inverse of `our_rows` and `our_columns`, for BGR; rows that we do not have are zeros.

    Args:
        agnostic_rows: rows of boxes that serve all classes, in their file.
        mask_background: it has a mask.
    """
    if name == STEM:
        return other_colours(value)
    if FIRST_LAYER.match(name):
        return channels_first_columns(value, channels_read(model))
    if CLASSES.match(name):
        return background_first(value)
    if DELTAS.match(name):
        missing = agnostic_rows - 4 if model.box_head.class_agnostic else 4
        return torch.cat([torch.zeros_like(value[:missing]), value])
    agnostic = model.mask_head is not None and model.mask_head.class_agnostic
    if name.startswith(MASKS) and mask_background and not agnostic:
        return torch.cat([torch.zeros_like(value[:1]), value])
    return value


def finished(
    config: Config,
    ours: Mapping[str, Tensor],
    theirs: Mapping[str, str],
    their_name: Callable[[str], str],
    *,
    bgr: bool,
    assumed: tuple[str, ...],
    unused: tuple[str, ...],
) -> Imported:
    """The import, once names, rows and settings are ours.

    Args:
        ours: tensors by our names, their columns still those of the framework.
        theirs: our names -> those of the file.
        their_name: our name -> what the file would call it, for tensors that are missing.
        unused: names in the file that have no counterpart; those that the network has no place for come on top.

    Raises:
        IncompleteError: tensors are missing or of another shape.
    """
    check_anchors(config, ours)
    found = {name: our_columns(name, value, config.model, bgr=bgr) for name, value in ours.items()}
    state = complete(config, found, lambda name: theirs.get(name) or their_name(name))
    surplus = tuple(theirs[name] for name in ours if name not in state and name in theirs)
    return Imported(config, state, assumed, (*unused, *surplus))


def check_anchors(config: Config, ours: Mapping[str, Tensor]) -> None:
    """Raises WeightsError where the proposals have other anchors a cell than the settings make."""
    expected = config.model.anchors.per_cell
    rows = len(ours["rpn.head.objectness.weight"]) if "rpn.head.objectness.weight" in ours else expected
    if rows != expected:
        raise WeightsError(
            f"the proposals of the file have {rows} anchors a cell, and the settings make {expected}: give the config "
            "file of the framework, with its sizes and ratios of anchors"
        )


def plain_yaml(text: str, where: str, framework: str) -> dict[str, Any]:
    """The settings in a YAML text, tuples that are written as text included. Read as data: nothing is run.

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
    if not isinstance(content, dict) or not isinstance(content.get("MODEL", {}), dict) or "model" in content:
        found = listed(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise ConfigError(f"{where}: expected the YAML config of {framework}, with settings under MODEL, found {found}")
    result: dict[str, Any] = literals(content)
    return result


def read_yaml(path: Path | str, framework: str) -> dict[str, Any]:
    """`plain_yaml` of a file.

    Raises:
        ConfigError: it cannot be read, or is no such config.
    """
    try:
        text = Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: expected the YAML config of {framework}, cannot be read: {error}") from None
    return plain_yaml(text, str(path), framework)


def _plain_object(loader: Any, suffix: str, node: Any) -> Any:
    """The dictionary, list or text that an object of Python is written with; its class is not looked up."""
    import yaml

    if isinstance(node, yaml.MappingNode):
        content = loader.construct_mapping(node, deep=True)
        return content.get("dictitems", content)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return loader.construct_scalar(node)


def literals(value: Any) -> Any:
    """Texts such as "(0.5, 1, 2)" as the lists that they name; yacs and Detectron read them so."""
    if isinstance(value, dict):
        return {str(name): literals(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [literals(item) for item in value]
    if isinstance(value, str) and value[:1] in ("(", "["):
        try:
            return literals(ast.literal_eval(value))
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return value
    return value
