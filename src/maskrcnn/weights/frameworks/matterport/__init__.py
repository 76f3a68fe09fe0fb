"""Matterport's Mask R-CNN (Keras HDF5) with a ResNet-50 or 101 and FPN.

The source of every rule is `mrcnn/model.py`, `mrcnn/utils.py` and `mrcnn/config.py` of matterport/Mask_RCNN.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maskrcnn.files.checkpoint import Checkpoint
from maskrcnn.weights.frameworks.importer import Imported, Renamed, finished
from maskrcnn.weights.frameworks.layout import check_anchors
from maskrcnn.weights.frameworks.matterport.layout import fold_norms, our_layout
from maskrcnn.weights.frameworks.matterport.names import TABLE, places
from maskrcnn.weights.frameworks.matterport.settings import our_config
from maskrcnn.weights.frameworks.settings import read_json


class Matterport:
    """An `Importer`."""

    name = "matterport"

    def recognise(self, names: Collection[str]) -> bool:
        layers = {place.partition("/")[0] for place in places(names).values()}
        return {"rpn_conv_shared", "mrcnn_class_logits"} <= layers

    def read_settings(self, path: Path | str) -> dict[str, Any]:
        """Reads the attributes of a `Config` object from a JSON object."""
        return read_json(path, "Matterport")

    def import_checkpoint(self, checkpoint: Checkpoint, settings: Mapping[str, Any] | None) -> Imported:
        found = places(checkpoint.tensors)
        ours = TABLE.our_names(found.values())
        theirs = {ours[place]: path for path, place in found.items()}
        tensors = {name: checkpoint.tensors[path].to(torch.float32) for name, path in theirs.items()}
        file = Renamed(tuple(checkpoint.tensors), tensors, theirs, TABLE)
        return imported_model(file, file.converted(our_layout), settings)


def imported_model(file: Renamed, tensors: Mapping[str, Tensor], settings: Mapping[str, Any] | None) -> Imported:
    """The import of a file of Matterport or of its port.

    Args:
        file: the tensors before the change to our layout.
        tensors: by our names, in our layout. Their norms are folded here.
        settings: as in `Importer.import_checkpoint`.
    """
    state, folded = fold_norms(tensors)
    config, assumed = our_config(file.model(state), settings)
    check_anchors(config.model, state, "the config of the file, with its RPN_ANCHOR_RATIOS")
    # Frozen norms do not count batches, but PyTorch writes a count.
    return finished(config, state, file, assumed, folded=folded, ignored=r"\.num_batches_tracked$")
