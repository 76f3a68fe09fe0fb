"""Detectron2's Mask R-CNN and its relatives: ResNets with FPN, C4 and DC5, Cascade, keypoints, PointRend.

The source of every rule is Detectron2 (`modeling/`, `projects/PointRend`). The importer changes the names, the colours
of the first convolution, the order of the anchors and the columns of the first fully connected layer. All other
differences are fields of the config.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from maskrcnn.config import Config
from maskrcnn.files.checkpoint import Checkpoint
from maskrcnn.weights.frameworks.detectron2.defaults import CELL_ANCHORS, STORED_SETTINGS
from maskrcnn.weights.frameworks.detectron2.lazy_config import read_lazy_config, settings_of
from maskrcnn.weights.frameworks.detectron2.names import RPN_HEAD, TABLE
from maskrcnn.weights.frameworks.detectron2.settings import our_config
from maskrcnn.weights.frameworks.importer import Imported, exported_names, finished, renamed
from maskrcnn.weights.frameworks.layout import Layout, check_anchors, check_mask_channels
from maskrcnn.weights.frameworks.settings import kinds_checked, read_yaml

IGNORED = rf"^({'|'.join(STORED_SETTINGS)}|{CELL_ANCHORS})|\.num_batches_tracked$"


class Detectron2:
    """An `Exporter`. It writes weights for BGR input, the default of INPUT.FORMAT."""

    name = "detectron2"

    def recognise(self, names: Collection[str]) -> bool:
        return any(name.startswith(RPN_HEAD) for name in names)

    def read_settings(self, path: Path | str) -> dict[str, Any]:
        """Reads a config.yaml, one of Detectron2's own configs, a LazyConfig (`.py`), or the config.yaml of one."""
        is_python = Path(path).suffix == ".py"
        found = read_lazy_config(path) if is_python else read_yaml(path, "Detectron2", section=None)
        if is_python or "model._target_" in found:
            with kinds_checked("Detectron2"):
                return settings_of(found, str(path))
        return read_yaml(path, "Detectron2")

    def import_checkpoint(self, checkpoint: Checkpoint, settings: Mapping[str, Any] | None) -> Imported:
        file = renamed(checkpoint.tensors, TABLE)
        config, assumed = our_config(file.model(), checkpoint.tensors, settings)
        check_anchors(config.model, file.tensors, "the config.yaml of the file, with its MODEL.ANCHOR_GENERATOR")
        bgr = settings is None or settings.get("INPUT.FORMAT", "BGR") == "BGR"
        layout = Layout(bgr=bgr, anchors_by_size=True)
        found = file.converted(lambda name, value: layout.to_ours(name, value, config.model))
        # Our frozen batch norm has no count of batches.
        return finished(config, found, file, assumed, ignored=IGNORED)

    def export_state(self, config: Config, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        check_mask_channels(config, self.name)
        layout = Layout(bgr=True, anchors_by_size=True)
        names = exported_names(TABLE, state, self.name)
        return {their: layout.to_theirs(name, state[name], config.model) for name, their in names.items()}
