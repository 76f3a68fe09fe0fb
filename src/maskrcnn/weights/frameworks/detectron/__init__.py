"""Detectron's Mask, Faster and Keypoint R-CNN (pickles of Caffe2 blobs): ResNets with FPN and C4."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maskrcnn.errors import WeightsError
from maskrcnn.files.checkpoint import Checkpoint
from maskrcnn.weights.frameworks.detectron.names import TABLE, WITHOUT_EFFECT
from maskrcnn.weights.frameworks.detectron.settings import our_config, read_settings, settings_in
from maskrcnn.weights.frameworks.importer import Imported, finished, renamed
from maskrcnn.weights.frameworks.layout import Layout, check_anchors, without_background

OWN_RES5 = ("_[mask]_res5_", "_[pose]_res5_")


class Detectron:
    """An `Importer`."""

    name = "detectron"

    def recognise(self, names: Collection[str]) -> bool:
        return "cls_score_w" in names and "res2_0_branch2a_w" in names

    def read_settings(self, path: Path | str) -> dict[str, Any]:
        return read_settings(path)

    def import_checkpoint(self, checkpoint: Checkpoint, settings: Mapping[str, Any] | None) -> Imported:
        tensors = {name: value for name, value in checkpoint.tensors.items() if not name.endswith("_momentum")}
        own = [name for name in tensors if name.startswith(OWN_RES5)]
        if own:
            raise WeightsError(
                f"the branch of {own[0]} has a res5 of its own, which is not supported: expected one for all branches"
            )
        file = renamed(tensors, TABLE)
        ours = file.converted(without_background)
        ours |= statistics(file.theirs, file.tensors)
        given = settings_in(checkpoint.extra.get("cfg")) if settings is None else settings
        config, assumed = our_config(file.model(ours), given)
        check_anchors(config.model, ours, "its YAML config, with the sizes and ratios of anchors")
        momentum = len(checkpoint.tensors) - len(tensors)
        if momentum:
            assumed += (f"{momentum} blobs of the optimiser (..._momentum) are ignored",)
        layout = Layout(bgr=True)
        found = file.converted(lambda name, value: layout.to_ours(name, value, config.model), ours)
        return finished(config, found, file, assumed, ignored=f"^({'|'.join(WITHOUT_EFFECT)})$")


def statistics(theirs: Mapping[str, str], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The running statistics of batch norms that a file stores as scale and shift only: mean 0 and variance 1.

    They are exact with an epsilon of 0.

    Args:
        theirs: our names -> the names in the file.
        tensors: the tensors of the file, by our names.
    """
    result: dict[str, Tensor] = {}
    for name, their in theirs.items():
        if their.endswith("_bn_s"):
            module = name.removesuffix(".weight")
            result[f"{module}.running_mean"] = torch.zeros_like(tensors[name])
            result[f"{module}.running_var"] = torch.ones_like(tensors[name])
    return result
