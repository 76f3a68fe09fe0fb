"""The port of Matterport's Mask R-CNN to PyTorch, multimodallearning/pytorch-mask-rcnn.

Its files hold Matterport's network under other names and in PyTorch's order of dimensions (`convert_from_keras.py`).
Its `Config` has Matterport's attributes. A file therefore gets the rules of Matterport, and the outputs of the same
weights in Keras. docs/checkpoints.md lists where the port itself deviates (`model.py`, `utils.py`, `nms/pth_nms.py`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from maskrcnn.files.checkpoint import Checkpoint
from maskrcnn.weights.frameworks.importer import Imported, renamed
from maskrcnn.weights.frameworks.matterport import imported_model
from maskrcnn.weights.frameworks.matterport.layout import LAYERS, our_rows
from maskrcnn.weights.frameworks.pytorch_mask_rcnn.names import TABLE
from maskrcnn.weights.frameworks.settings import read_json


class PyTorchMaskRCNN:
    """An `Importer`."""

    name = "pytorch-mask-rcnn"

    def recognise(self, names: Collection[str]) -> bool:
        return {"rpn.conv_shared.weight", "classifier.linear_class.weight"} <= set(names)

    def read_settings(self, path: Path | str) -> dict[str, Any]:
        """Reads the attributes of a `Config` object from a JSON object."""
        return read_json(path, "pytorch-mask-rcnn")

    def import_checkpoint(self, checkpoint: Checkpoint, settings: Mapping[str, Any] | None) -> Imported:
        file = renamed(checkpoint.tensors, TABLE)
        return imported_model(file, file.converted(lambda name, value: our_layout(name, value.float())), settings)


def our_layout(name: str, value: Tensor) -> Tensor:
    """A tensor of theirs in our layout, before norms are folded."""
    if LAYERS.match(name) and value.dim() == 4:  # a convolution over the whole RoI (out, channel, row, column)
        return value.permute(0, 2, 3, 1).flatten(1)
    return our_rows(name, value)
