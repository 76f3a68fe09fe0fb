"""Detectron2's LazyConfig: Python files, and the config.yaml that a training with one writes.

Both describe calls, such as `L(RPN)(nms_thresh=0.7)`. The files are parsed as data and never run. The sources are
Detectron2's `config/lazy.py`, `configs/common` and the constructors that the calls name.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from maskrcnn.errors import ConfigError
from maskrcnn.weights.frameworks.python_data import FILE, PythonData
from maskrcnn.weights.frameworks.settings import Settings, flat, read_text, setting

INSTEAD = (
    "give the config.yaml that the training wrote, or none: then the settings of Detectron2's own configs are taken"
)
NEEDED = ("model", "dataloader", "constants")  # other parts of a config (optimisers, schedules) may hold anything
RPN, HEADS, BOXES = "model.proposal_generator.", "model.roi_heads.", "model.roi_heads.box_predictor."
# Our settings -> the places of their values in a LazyConfig, and the default of the constructor there, if it has one.
PLACES: dict[str, tuple[tuple[str, ...], Any]] = {
    "MODEL.PIXEL_MEAN": (("model.pixel_mean",), None),
    "MODEL.PIXEL_STD": (("model.pixel_std",), None),
    "INPUT.FORMAT": (("model.input_format",), None),
    "MODEL.BACKBONE.FREEZE_AT": (("{trunk}.freeze_at",), 0),
    "MODEL.RESNETS.DEPTH": (("{trunk}.stages.depth",), None),
    "MODEL.RESNETS.NORM": (("{trunk}.stages.norm",), None),
    "MODEL.RESNETS.STRIDE_IN_1X1": (("{trunk}.stages.stride_in_1x1",), False),
    "MODEL.FPN.FUSE_TYPE": (("model.backbone.fuse_type",), "sum"),
    "MODEL.ANCHOR_GENERATOR.SIZES": ((f"{RPN}anchor_generator.sizes",), None),
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": ((f"{RPN}anchor_generator.aspect_ratios",), None),
    "MODEL.ANCHOR_GENERATOR.OFFSET": ((f"{RPN}anchor_generator.offset",), 0.5),
    "MODEL.PROPOSAL_GENERATOR.MIN_SIZE": ((f"{RPN}min_box_size",), 0),
    "MODEL.RPN.IOU_THRESHOLDS": ((f"{RPN}anchor_matcher.thresholds",), None),
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE": ((f"{RPN}batch_size_per_image",), None),
    "MODEL.RPN.POSITIVE_FRACTION": ((f"{RPN}positive_fraction",), None),
    "MODEL.RPN.NMS_THRESH": ((f"{RPN}nms_thresh",), 0.7),
    "MODEL.RPN.BBOX_REG_WEIGHTS": ((f"{RPN}box2box_transform.weights",), None),
    "MODEL.RPN.BBOX_REG_LOSS_TYPE": ((f"{RPN}box_reg_loss_type",), "smooth_l1"),
    "MODEL.RPN.SMOOTH_L1_BETA": ((f"{RPN}smooth_l1_beta",), 0.0),
    "MODEL.ROI_HEADS.NUM_CLASSES": ((f"{HEADS}num_classes",), None),
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": ((f"{HEADS}batch_size_per_image",), None),
    "MODEL.ROI_HEADS.POSITIVE_FRACTION": ((f"{HEADS}positive_fraction",), None),
    "MODEL.ROI_HEADS.IOU_THRESHOLDS": ((f"{HEADS}proposal_matcher.thresholds",), None),
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": ((f"{BOXES}test_score_thresh",), 0.0),
    "MODEL.ROI_HEADS.NMS_THRESH_TEST": ((f"{BOXES}test_nms_thresh",), 0.5),
    "TEST.DETECTIONS_PER_IMAGE": ((f"{BOXES}test_topk_per_image",), 100),
    "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS": ((f"{BOXES}box2box_transform.weights",), None),
    "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE": ((f"{BOXES}box_reg_loss_type",), "smooth_l1"),
    "MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA": ((f"{BOXES}smooth_l1_beta",), 0.0),
    **{
        f"MODEL.ROI_{head.upper()}_HEAD.POOLER_{ours}": (
            tuple(f"{HEADS}{pooler}.{theirs}" for pooler in (f"{head}_pooler", "pooler")),
            None,
        )
        for head in ("box", "mask", "keypoint")
        for ours, theirs in (
            ("RESOLUTION", "output_size"),
            ("SAMPLING_RATIO", "sampling_ratio"),
            ("TYPE", "pooler_type"),
        )
    },
}
PARTS = {"model": "GeneralizedRCNN", "model.proposal_generator": "RPN"}
HEAD_KINDS, TRUNK_KINDS = ("StandardROIHeads", "Res5ROIHeads"), ("ResNet",)


def read_lazy_config(path: Path | str) -> Settings:
    """The `model` and `dataloader` of a LazyConfig, by names with dots. A call is a dictionary with `_target_`.

    Raises:
        ConfigError: the file cannot be read, builds on a file that is not there, or its model holds more than data,
            such as functions and loops.
    """

    def call(node: ast.Call, of: Callable[[ast.expr], Any]) -> Any:
        name = ast.unparse(node.func)[:200]
        if name.endswith("get_config") and node.args:  # model_zoo.get_config("common/models/...")
            return _read(_in_configs(Path(path), of(node.args[0])), (), data)
        if name == "OmegaConf.create":
            return of(node.args[0]) if node.args else {}
        if isinstance(node.func, ast.Call) and node.func.args:  # L(RPN)(...)
            name = ast.unparse(node.func.args[0])[:200]
        if node.args:  # len(NAMES)
            data.refuse(node, str(path))
        return {"_target_": name} | {word.arg: of(word.value) for word in node.keywords if word.arg is not None}

    data = PythonData(INSTEAD, call)
    found = _read(Path(path), (), data)
    if not isinstance(found.get("model"), Mapping):
        raise ConfigError(f"{path}: expected a LazyConfig of Detectron2 with a model, found none; {INSTEAD}")
    return flat({name: found[name] for name in ("model", "dataloader") if isinstance(found.get(name), Mapping)})


def _read(path: Path, above: tuple[Path, ...], data: PythonData) -> dict[str, Any]:
    """The values of the names in a file that have one. `above` are the files that import this one."""
    if path.resolve() in above:
        raise ConfigError(f"{path}: its imports lead back to itself")
    data.spend(FILE, str(path))
    try:
        statements = ast.parse(read_text(path, "Detectron2")).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path}: expected a LazyConfig of Detectron2, found no Python: {error}") from None
    names: dict[str, Any] = {}
    for statement in statements:
        if isinstance(statement, ast.ImportFrom) and statement.level:
            names |= _imported(statement, path, above, data)
        elif isinstance(statement, ast.Assign):
            _assign(statement, names, str(path), data)
        elif not isinstance(statement, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef) and _changes(
            statement
        ):
            data.refuse(statement, str(path))
    return names


def _imported(statement: ast.ImportFrom, path: Path, above: tuple[Path, ...], data: PythonData) -> dict[str, Any]:
    """The values that a line such as `from ..common.models.mask_rcnn_fpn import model` names."""
    file = path.parents[statement.level - 1].joinpath(*(statement.module or "").split(".")).with_suffix(".py")
    needed = [alias.name for alias in statement.names if alias.name in NEEDED]
    if not file.is_file():
        if not needed:
            return {}
        raise ConfigError(f"{path}: it imports {', '.join(needed)} from {file}, and there is no such file; {INSTEAD}")
    found = _read(file, (*above, path.resolve()), data)
    data.pay(found, str(file))
    named = {alias.asname or alias.name: alias.name for alias in statement.names}
    return {mine: copy.deepcopy(found[theirs]) for mine, theirs in named.items() if theirs in found}


def _assign(statement: ast.Assign, names: dict[str, Any], where: str, data: PythonData) -> None:
    needed = _changes(statement)
    try:
        data.assign(statement, names, names, where)
    except (ConfigError, RecursionError, TypeError, ValueError, LookupError) as error:
        if needed and isinstance(error, ConfigError):
            raise
        if needed:
            data.refuse(statement, where)


def _changes(statement: ast.stmt) -> bool:
    """Whether a statement names a part of the config that is read."""
    return any(isinstance(node, ast.Name) and node.id in NEEDED for node in ast.walk(statement))


def _in_configs(path: Path, name: Any) -> Path:
    """A file of Detectron2's own `configs`, looked for in the folders above the config."""
    for folder in path.resolve().parents:
        for file in (folder / str(name), folder / "configs" / str(name)):
            if file.is_file():
                return file
    raise ConfigError(f"{path}: it builds on Detectron2's configs/{name}, which is in no folder above it; {INSTEAD}")


def settings_of(found: Settings, where: str) -> Settings:
    """The settings of a LazyConfig by the names of Detectron2's other configs, such as MODEL.RPN.NMS_THRESH.

    Args:
        found: by names with dots, such as model.proposal_generator.nms_thresh.

    Raises:
        ConfigError: the model has other parts than a Mask R-CNN with a ResNet.
    """
    trunk = "model.backbone.bottom_up" if "model.backbone.bottom_up._target_" in found else "model.backbone"
    kinds = {name: (kind,) for name, kind in PARTS.items()} | {"model.roi_heads": HEAD_KINDS, trunk: TRUNK_KINDS}
    for name, expected in kinds.items():
        kind = str(found.get(f"{name}._target_", "nothing")).rpartition(".")[2]
        if kind not in expected:
            raise ConfigError(f"{where}: {name} is {kind}, which is not supported: expected {' or '.join(expected)}")
    settings: Settings = {"MODEL.MASK_ON": f"{HEADS}mask_head._target_" in found}
    settings["MODEL.KEYPOINT_ON"] = f"{HEADS}keypoint_head._target_" in found
    for name, (places, default) in PLACES.items():
        values = [found[place] for one in places if (place := one.format(trunk=trunk)) in found]
        known = [value for value in values if not (isinstance(value, str) and value.startswith("${"))]
        if known or default is not None:
            settings[name] = known[0] if known else default
    for name in ("PRE_NMS_TOPK", "POST_NMS_TOPK"):
        both = found.get(f"{RPN}{name.lower()}")
        if isinstance(both, list | tuple) and len(both) == 2:
            settings |= {f"MODEL.RPN.{name}_TRAIN": both[0], f"MODEL.RPN.{name}_TEST": both[1]}
    ratios = settings.get("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS")
    if isinstance(ratios, list | tuple) and ratios and isinstance(ratios[0], int | float):
        settings["MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS"] = [ratios]
    return _as_lists(settings | _image_sizes(found))


def _image_sizes(found: Settings) -> Settings:
    """The sizes and flips of the images, from the augmentations of both data loaders."""
    settings = Settings()
    for which in ("train", "test"):
        steps = found.get(f"dataloader.{which}.mapper.augmentations")
        kinds = {str(setting(step, "_target_")).rpartition(".")[2]: step for step in steps or ()}
        sides = setting(kinds.get("ResizeShortestEdge"), "short_edge_length")
        if sides is None:
            continue
        sides = list(sides) if isinstance(sides, list | tuple) else [sides]
        if which == "train":
            flip = setting(kinds.get("RandomFlip"), "vertical", False)
            flips = ("vertical" if flip else "horizontal") if "RandomFlip" in kinds else "none"
            settings |= {"INPUT.MIN_SIZE_TRAIN": sides, "INPUT.RANDOM_FLIP": flips}
        else:
            largest = setting(kinds["ResizeShortestEdge"], "max_size", 1333)
            settings |= {"INPUT.MIN_SIZE_TEST": sides[0], "INPUT.MAX_SIZE_TEST": largest}
    return settings


def _as_lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _as_lists(item) for name, item in value.items()}
    return [_as_lists(item) for item in value] if isinstance(value, list | tuple) else value
