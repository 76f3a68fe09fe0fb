"""maskrcnn-benchmark's Mask, Faster and Keypoint R-CNN: ResNets with FPN and C4."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maskrcnn.config import Config
from maskrcnn.errors import WeightsError
from maskrcnn.files.checkpoint import Checkpoint
from maskrcnn.models.anchors import cell_anchors
from maskrcnn.weights.frameworks.importer import Imported, finished, renamed
from maskrcnn.weights.frameworks.layout import Layout, check_anchors, without_background
from maskrcnn.weights.frameworks.maskrcnn_benchmark.names import BOX_RES5, TABLE
from maskrcnn.weights.frameworks.maskrcnn_benchmark.settings import our_config
from maskrcnn.weights.frameworks.settings import read_yaml

# With C4 the mask branch uses the res5 of the box branch, and the file holds its tensors a second time.
MASK_RES5 = "roi_heads.mask.feature_extractor.head.layer4."
CELL_ANCHORS = "rpn.anchor_generator.cell_anchors."


class MaskRCNNBenchmark:
    """An `Importer`."""

    name = "maskrcnn_benchmark"

    def recognise(self, names: Collection[str]) -> bool:
        return "roi_heads.box.predictor.cls_score.weight" in names

    def read_settings(self, path: Path | str) -> dict[str, Any]:
        return read_yaml(path, "maskrcnn-benchmark")

    def import_checkpoint(self, checkpoint: Checkpoint, settings: Mapping[str, Any] | None) -> Imported:
        # All batch norms of maskrcnn-benchmark are frozen, also in files that count batches.
        counters = ".num_batches_tracked"
        tensors = {name: value for name, value in checkpoint.tensors.items() if not name.endswith(counters)}
        _check_shared(tensors)
        file = renamed(tensors, TABLE)
        ours = file.converted(without_background)
        config, assumed = our_config(file.model(ours), settings)
        check_anchors(config.model, ours, "its YAML config, with MODEL.RPN")
        _check_cells(config, tensors)
        layout = Layout(bgr=settings is None or bool(settings.get("INPUT.TO_BGR255", True)))
        found = file.converted(lambda name, value: layout.to_ours(name, value, config.model), ours)
        return finished(config, found, file, assumed, ignored=f"^({CELL_ANCHORS}|{MASK_RES5})")


def _check_shared(tensors: Mapping[str, Tensor]) -> None:
    """Raises WeightsError if the mask branch has a res5 of its own."""
    for name, value in tensors.items():
        if name.startswith(MASK_RES5):
            box = tensors.get(BOX_RES5 + name.removeprefix(MASK_RES5))
            if box is None or not torch.equal(box, value):
                raise WeightsError(
                    f"the mask branch has a res5 of its own ({name}), which is not supported: expected one for the box "
                    "and the mask branch (SHARE_BOX_FEATURE_EXTRACTOR)"
                )


def _check_cells(config: Config, tensors: Mapping[str, Tensor]) -> None:
    """Raises WeightsError if the anchors in the file are not those of the settings."""
    anchors = config.model.anchors
    strides = [4, 8, 16, 32, 64] if config.model.neck == "fpn" else [32 if config.model.neck == "c5" else 16]
    for level, (sizes, stride) in enumerate(zip(anchors.sizes, strides, strict=True)):
        stored = tensors.get(f"{CELL_ANCHORS}{level}")
        ours = cell_anchors(sizes, anchors.ratios, stride, "base") + stride / 2
        ours = ours - ours.new_tensor([0, 0, 1, 1])  # stored boxes end at their last pixel
        if stored is not None and (stored.shape != ours.shape or not torch.allclose(stored.float(), ours, atol=0.01)):
            raise WeightsError(
                f"expected anchors of sizes {list(sizes)} and ratios {list(anchors.ratios)}, found other anchors in "
                f"the file ({CELL_ANCHORS}{level}: {stored.tolist()}): give its YAML config, with MODEL.RPN"
            )
