"""Matterport's names of layers and parameters (`mrcnn/model.py`), and their paths in a file of Keras.

The path of a parameter is group/layer/parameter; some files have more groups around it. Only the name of its layer
identifies it, as in `load_weights(by_name=True)`. Its place is therefore "layer/parameter".
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from string import ascii_lowercase

from maskrcnn.weights.frameworks.names import NameTable, Row, box_stages, mask_stages, under

# The last part of a path in Keras 2, or in Keras 1 (`res2a_branch2a_W_1:0`). The running_std of Keras 1 is a variance.
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
    """The paths in a file that have a counterpart here -> their places. The first path of each place is used."""
    candidates = {path: _candidates(path) for path in paths}
    known = TABLE.our_names({place for found in candidates.values() for place in found})
    result: dict[str, str] = {}
    for path, found in candidates.items():
        place = next((place for place in found if place in known), None)
        if place is not None:
            result.setdefault(place, path)
    return {path: place for place, path in result.items()}


def _candidates(path: str) -> list[str]:
    """The possible places of a path, that of the innermost group first.

    Keras appends a number to the names of layers if a graph holds two models.
    """
    *groups, last = path.split("/")
    found = PARAMETER.search(last)
    if found is None:
        return []
    parameter = KERAS_1.get(found[1], found[1])
    layers = [layer for group in reversed(groups) for layer in (group, re.sub(r"_\d+$", "", group))]
    return [f"{layer}/{parameter}" for layer in dict.fromkeys(layers)]
