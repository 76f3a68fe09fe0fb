"""Matterport's names of layers and parameters, and where they lie in a file of Keras (`mrcnn/model.py`).

A parameter lies in the file as group/layer/parameter, with more groups around it in some files. The name of its layer
alone says what it is, as in `load_weights(by_name=True)`; `place_of` gives it as "layer/parameter".
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from string import ascii_lowercase

from maskrcnn.weights.frameworks.names import NameTable, Row, box_stages, mask_stages, under

# The last part of a path: of Keras 2, or of Keras 1 (`res2a_branch2a_W_1:0`), whose running_std is a variance.
PARAMETER = re.compile(
    r"(?:^|_)(kernel|W|bias|b|gamma|beta|moving_mean|running_mean|moving_variance|running_std)(?:_\d+)?(?::\d+)?$"
)
KERAS_1 = {"W": "kernel", "b": "bias", "running_mean": "moving_mean", "running_std": "moving_variance"}
WORDS = {
    "block": {letter: str(number) for number, letter in enumerate(ascii_lowercase)},
    "conv": {"2a": "conv1", "2b": "conv2", "2c": "conv3", "1": "shortcut"},
    "leaf": {"kernel": "weight", "bias": "bias"},
    "part": {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"},
}
LAYER = (Row("/{leaf}", ".{leaf}"),)
BACKBONE = (
    Row("conv1/{leaf}", "backbone.stem.conv.{leaf}"),
    Row("bn_conv1/{part}", "backbone.stem.norm.{part}"),
    Row("res{s}{block}_branch{conv}/{leaf}", "backbone.res{s}.{block}.{conv}.conv.{leaf}"),
    Row("bn{s}{block}_branch{conv}/{part}", "backbone.res{s}.{block}.{conv}.norm.{part}"),
)
BOX_HEAD = (
    *under("class_conv{i+1}", "layers.{i}", LAYER),
    Row("class_bn{i+1}/{part}", "layers.{i}.norm.{part}"),
    *under("class_logits", "class_logits", LAYER),
    *under("bbox_fc", "deltas", LAYER),
)
MASK_HEAD = (
    *under("_conv{i+1}", "convs.{i}", LAYER),
    Row("_bn{i+1}/{part}", "convs.{i}.norm.{part}"),
    *under("_deconv", "upsample", LAYER),
    *under("", "predictor", LAYER),
)
TABLE = NameTable(
    (
        *BACKBONE,
        *under("fpn_c{i+2}p{i+2}", "neck.lateral.{i}", LAYER),
        *under("fpn_p{i+2}", "neck.output.{i}", LAYER),
        *under("rpn_conv_shared", "rpn.head.convs.0", LAYER),
        *under("rpn_class_raw", "rpn.head.objectness", LAYER),
        *under("rpn_bbox_pred", "rpn.head.deltas", LAYER),
        *box_stages("mrcnn_", None, BOX_HEAD),
        *mask_stages("mrcnn_mask", None, MASK_HEAD),
    ),
    WORDS,
)


def places(paths: Iterable[str]) -> dict[str, str]:
    """Paths in a file that have a counterpart here -> "layer/parameter"; the first path to a place counts."""
    candidates = {path: _candidates(path) for path in paths}
    known = TABLE.our_names({place for found in candidates.values() for place in found})
    result: dict[str, str] = {}
    for path, found in candidates.items():
        place = next((place for place in found if place in known), None)
        if place is not None:
            result.setdefault(place, path)
    return {path: place for place, path in result.items()}


def _candidates(path: str) -> list[str]:
    """The innermost group first. Where the graph held two models Keras numbers the layers of one of them."""
    *groups, last = path.split("/")
    found = PARAMETER.search(last)
    if found is None:
        return []
    parameter = KERAS_1.get(found[1], found[1])
    layers = [layer for group in reversed(groups) for layer in (group, re.sub(r"_\d+$", "", group))]
    return [f"{layer}/{parameter}" for layer in dict.fromkeys(layers)]
