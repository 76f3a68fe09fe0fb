"""MMDetection 2 and 3: Mask, Faster and Cascade R-CNN with a ResNet, FPN, C4 or one level.

The source of every rule is MMDetection 3.3 with MMCV 2. Tensor names are the same in both versions. The importer
changes the names, the colours of the first convolution if the network reads BGR, and the columns of the first fully
connected layer. All other differences are fields of the config.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maskrcnn.config import Config
from maskrcnn.files.checkpoint import Checkpoint
from maskrcnn.weights.frameworks.importer import Imported, exported_names, finished, renamed
from maskrcnn.weights.frameworks.layout import Layout, check_anchors, check_mask_channels
from maskrcnn.weights.frameworks.mmdetection.config_file import read_settings
from maskrcnn.weights.frameworks.mmdetection.defaults import reads_bgr
from maskrcnn.weights.frameworks.mmdetection.names import TABLE
from maskrcnn.weights.frameworks.mmdetection.settings import our_config

COUNTER = "num_batches_tracked"
# Buffers of EMAHook, such as `ema_neck_fpn_convs_0_conv_weight`. It exchanges them with the weights before it saves.
AVERAGES = re.compile(r"^ema_\w+$")
AVERAGED = (
    "the weights are the averages of the training (EMA), because EMAHook keeps the others as ema_*, left out here"
)


class MMDetection:
    """An `Exporter`.

    It writes weights for the colours that MMDetection's own configs give such a model (`reads_bgr`).
    """

    name = "mmdetection"

    def recognise(self, names: Collection[str]) -> bool:
        return all(any(name.startswith(part) for name in names) for part in ("rpn_head.", "roi_head.bbox_head."))

    def read_settings(self, path: Path | str) -> dict[str, Any]:
        return read_settings(path)

    def import_checkpoint(self, checkpoint: Checkpoint, settings: Mapping[str, Any] | None) -> Imported:
        file = renamed(checkpoint.tensors, TABLE)
        config, bgr, assumed = our_config(file.model(), file.tensors, checkpoint.extra, settings)
        check_anchors(config.model, file.tensors, "the config of the file, with its anchor_generator")
        layout = Layout(bgr=bgr)
        found = file.converted(lambda name, value: layout.to_ours(name, value, config.model))
        if any(map(AVERAGES.match, checkpoint.tensors)):
            assumed += (AVERAGED,)
        # Our norms with fixed statistics have no count of batches.
        return finished(config, found, file, assumed, ignored=rf"\.{COUNTER}$|{AVERAGES.pattern}")

    def export_state(self, config: Config, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        check_mask_channels(config, self.name)
        layout = Layout(bgr=reads_bgr(config.model, plain=config.image.std == (1.0, 1.0, 1.0)))
        result = {}
        for name, their in exported_names(TABLE, state, self.name).items():
            result[their] = layout.to_theirs(name, state[name], config.model)
            if their.endswith(".running_var"):  # all its norms count batches, also those with fixed statistics
                result.setdefault(f"{their.removesuffix('running_var')}{COUNTER}", torch.zeros((), dtype=torch.int64))
        return result
