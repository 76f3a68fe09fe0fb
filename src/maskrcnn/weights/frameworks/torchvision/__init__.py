"""torchvision's Mask, Faster and Keypoint R-CNN with a ResNet and FPN.

`maskrcnn_resnet50_fpn` is version 1 and `maskrcnn_resnet50_fpn_v2` is version 2. Names and shapes determine the
architecture, also of models that combine parts of both.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from maskrcnn.config import Config
from maskrcnn.errors import WeightsError
from maskrcnn.files.checkpoint import Checkpoint
from maskrcnn.models.fpn import FPN
from maskrcnn.weights.frameworks.importer import Imported, finished, renamed
from maskrcnn.weights.frameworks.layout import check_anchors
from maskrcnn.weights.frameworks.settings import json_value, kinds_checked, read_json
from maskrcnn.weights.frameworks.torchvision.layout import our_layout, their_state, without_counters
from maskrcnn.weights.frameworks.torchvision.names import TABLE
from maskrcnn.weights.frameworks.torchvision.pickled import held_settings
from maskrcnn.weights.frameworks.torchvision.settings import ARGUMENTS, our_config


class Torchvision:
    """An `Exporter`."""

    name = "torchvision"

    def recognise(self, names: Collection[str]) -> bool:
        return "rpn.head.cls_logits.weight" in names and "roi_heads.box_predictor.cls_score.weight" in names

    def read_settings(self, path: Path | str) -> dict[str, Any]:
        """Reads constructor arguments (`ARGUMENTS`) and `categories` from a JSON object.

        `categories` lists the classes without the background, as names or as objects with `id` and `name`. In place of
        a file, `path` may be one argument and its value, such as `norm_eps=1e-5`.
        """
        name, equals, value = str(path).partition("=")
        if equals and name in ARGUMENTS and not os.path.exists(path):
            return {name: json_value(value, f"{path}: expected {name}= and a value in JSON, such as norm_eps=1e-5")}
        return read_json(path, "torchvision")

    def import_checkpoint(self, checkpoint: Checkpoint, settings: Mapping[str, Any] | None) -> Imported:
        file = renamed(checkpoint.tensors, TABLE)
        _check_backbone(checkpoint.tensors)
        with kinds_checked("torchvision"):
            held, sentences = ({}, []) if checkpoint.network is None else held_settings(checkpoint.network)
            config, assumed = our_config(file.model(), held | dict(settings or {}))
        assumed += tuple(sentences)
        check_anchors(config.model, file.tensors, "`sizes` and `aspect_ratios` of its AnchorGenerator")
        found = file.converted(
            lambda name, value: our_layout(name, value, config), without_counters(file.tensors, config)
        )
        return finished(config, found, file, assumed, ignored=r"\.num_batches_tracked$")

    def export_state(self, config: Config, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return their_state(config, state)


def _check_backbone(names: Collection[str]) -> None:
    """Refuses backbones other than a ResNet with a pyramid of four levels and LastLevelMaxPool.

    Raises:
        WeightsError: says what the backbone is.
    """
    levels = {match[1] for name in names if (match := re.match(r"backbone\.fpn\.inner_blocks\.(\d+)\.", name))}
    resnet = re.compile(r"^backbone\.(body\.)?layer1\.0\.conv1\.")
    if not any(map(resnet.match, names)):
        found = "another backbone, such as MobileNet,"
    elif not levels:
        found = "a ResNet without a pyramid (FPN),"
    elif len(levels) != len(FPN.strides) - 1 or "backbone.body.layer4.0.conv1.weight" not in names:
        found = f"a pyramid of {len(levels)} level{'s' if len(levels) > 1 else ''} (`returned_layers`),"
    elif any(name.startswith("backbone.fpn.extra_blocks.") for name in names):
        found = "a pyramid whose levels P6 and P7 are convolutions (`LastLevelP6P7`),"
    else:
        return
    raise WeightsError(
        "expected a detector of torchvision with a ResNet and a pyramid of four levels (resnet_fpn_backbone with "
        f"returned_layers [1, 2, 3, 4] and LastLevelMaxPool), found one with {found} which is not supported"
    )
