"""The layers with rows for each class, and what a detector of other classes can fill of them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from maskrcnn.config import Category, Config
from maskrcnn.models.mask_rcnn import MaskRCNN
from maskrcnn.structures.classes import ONLY_CLASS

CLASS_LAYERS = re.compile(
    r"^roi_heads\.(box\.heads\.\d+\.(class_logits|deltas)|mask\.(heads\.\d+|coarse_head)\.predictor|mask\.point_head)\."
)
_NAMED = 4  # new classes that are listed


@torch.no_grad()
def fill_classes(network: MaskRCNN, given: Mapping[str, Tensor], trained: Config, config: Config) -> str:
    """Copies the rows of the background, and of the classes that a detector knows by name, into a new network.

    The rows of new classes stay as they are; if no class is known, all of them do. So does the point head of PointRend,
    in which each class is an input of every other one.

    Args:
        given: the tensors of the detector.
        trained: the config of the detector.
        config: that of the new network.

    Returns:
        What is known and what is new, in words that follow the name of the weights.
    """
    known = known_classes(trained.categories, config.categories)
    if not known:
        return ", class layers new"
    for name, own in network.state_dict().items():
        mine, theirs = _groups(name, config), _groups(name, trained)
        if not mine or not theirs or name not in given:
            continue
        rows, source = own.unflatten(0, (len(mine), -1)), given[name].unflatten(0, (len(theirs), -1))
        if rows.shape[1:] != source.shape[1:]:
            continue
        for place, group in enumerate(mine):
            wanted = known.get(group) if isinstance(group, int) else group
            if wanted in theirs:
                rows[place] = source[theirs.index(wanted)]
    new = [category.name for place, category in enumerate(config.categories) if place not in known]
    listed = f", new: {', '.join(new[:_NAMED])}{' and others' if len(new) > _NAMED else ''}" if new else ""
    return f", {len(known)} of {len(config.categories)} classes by name{listed}"


def known_classes(trained: Sequence[Category], categories: Sequence[Category]) -> dict[int, int]:
    """The place of each category -> the place of the trained category with its name.

    A name that one side has twice tells nothing. If both sides have a single class, and one side does not say which,
    they agree as in `match_categories`.
    """
    sides = [[category.name.casefold() for category in side] for side in (categories, trained)]
    if all(len(side) == 1 for side in sides) and [ONLY_CLASS] in sides:
        return {0: 0}
    counts = [Counter(side) for side in sides]
    return {
        place: sides[1].index(name) for place, name in enumerate(sides[0]) if all(count[name] == 1 for count in counts)
    }


def _groups(name: str, config: Config) -> list[int | str]:
    """What each group of rows of a layer stands for: the place of a class, the background, or all classes.

    Empty for layers whose rows stand for no classes.
    """
    layer, box, mask = CLASS_LAYERS.match(name), config.model.box_head, config.model.mask_head
    classes: list[int | str] = list(range(config.model.num_classes))
    if layer is None or "point_head" in name:
        return []
    if layer[2] == "class_logits":
        return [*classes, "background", *["unused"] * config.conventions.detections.unused_classes]
    if layer[2] == "deltas":
        return ["all"] if box.class_agnostic else classes
    if mask is None or mask.class_agnostic:
        return ["all"]
    return [*classes, "background"] if mask.loss == "softmax" else classes
