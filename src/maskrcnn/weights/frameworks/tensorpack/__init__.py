"""tensorpack's Mask, Faster and Cascade R-CNN (`.npz`): ResNets with FPN and C4.

The source of every rule is tensorpack's `examples/FasterRCNN` (`modeling/`, `config.py`, `data.py`, `eval.py`). The
tensors have TensorFlow's layout.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from maskrcnn.errors import WeightsError
from maskrcnn.files.checkpoint import Checkpoint
from maskrcnn.weights.frameworks.importer import Imported, finished, renamed
from maskrcnn.weights.frameworks.layout import CLASSES, Layout, check_anchors, from_tensorflow, without_background
from maskrcnn.weights.frameworks.tensorpack.names import TABLE
from maskrcnn.weights.frameworks.tensorpack.settings import our_config, read_settings

# Counters and variables of the optimiser and the summaries. The moving averages of a batch norm do not belong to them.
OF_TRAINING = re.compile(
    r"(^|/)(global_step|learning_rate|Momentum|AccumGrad)(:0)?$|^EMA/|(?<!/mean)(?<!/variance)/EMA(:0)?$"
)
# Norms after a convolution with a bias or a ReLU. Our convolutions before a norm have neither.
NORMED_HEADS = re.compile(r"^(fpn/gn_[cp]\d|(fastrcnn|cascade_rcnn_stage\d/head|maskrcnn)/gn\d)/")


class Tensorpack:
    """An `Importer`."""

    name = "tensorpack"

    def recognise(self, names: Collection[str]) -> bool:
        return any(name.startswith("rpn/conv0/W") for name in names)

    def read_settings(self, path: Path | str) -> dict[str, Any]:
        return read_settings(path)

    def import_checkpoint(self, checkpoint: Checkpoint, settings: Mapping[str, Any] | None) -> Imported:
        tensors = {
            name.removesuffix(":0"): from_tensorflow(value)
            for name, value in checkpoint.tensors.items()
            if not OF_TRAINING.search(name)
        }
        normed = [name for name in tensors if NORMED_HEADS.match(name)]
        if normed:
            raise WeightsError(
                f"{normed[0]}: group norm of the pyramid and of the heads is not supported, because in tensorpack it "
                "follows a convolution with a bias or a ReLU"
            )
        file = renamed(tensors, TABLE)
        classes = next((value.shape[:1] for name, value in file.tensors.items() if CLASSES.match(name)), None)
        ours = file.converted(
            lambda name, value: without_background(name, value, mask_background=value.shape[:1] == classes)
        )
        config, assumed = our_config(file.model(ours), settings)
        check_anchors(config.model, ours, "its settings, with RPN.ANCHOR_SIZES and RPN.ANCHOR_RATIOS")
        layout = Layout(bgr=True, anchors_by_size=config.conventions.anchors.rounding != "base")
        found = file.converted(lambda name, value: layout.to_ours(name, value, config.model), ours)
        return finished(config, found, file, assumed)
