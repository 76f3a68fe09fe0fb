"""Names and layout against torchvision's own models; that the numbers come out equal is in tests/models."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torchvision.models.detection import maskrcnn_resnet50_fpn, maskrcnn_resnet50_fpn_v2

from maskrcnn.models.build import build_model
from maskrcnn.weights.torchvision import Version, our_layout, our_state, torchvision_config


@pytest.mark.parametrize(("version", "build"), [(1, maskrcnn_resnet50_fpn), (2, maskrcnn_resnet50_fpn_v2)])
@pytest.mark.parametrize("classes", [1, 90])
def test_every_parameter_has_its_place(version: Version, build: Callable[..., nn.Module], classes: int) -> None:
    with torch.device("meta"):
        theirs = build(weights=None, weights_backbone=None, num_classes=classes + 1)
        ours = build_model(torchvision_config(version, classes))
    found = {name: value.shape for name, value in our_state(theirs.state_dict(), version).items()}
    assert found == {name: value.shape for name, value in ours.state_dict().items()}


def test_the_background_moves_to_the_end() -> None:
    value = torch.arange(3.0)
    assert our_layout("roi_heads.box_predictor.cls_score.bias", value).tolist() == [1, 2, 0]
    assert our_layout("roi_heads.mask_predictor.mask_fcn_logits.bias", value).tolist() == [1, 2]
    assert our_layout("roi_heads.box_predictor.bbox_pred.bias", torch.arange(12)).tolist() == [4, 5, 6, 7, 8, 9, 10, 11]


def test_columns_of_the_first_layer_become_row_column_channel() -> None:
    value = torch.arange(256 * 49).view(1, 256, 7, 7)  # channel, row, column
    found = our_layout("roi_heads.box_head.fc6.weight", value.flatten(1)).view(7, 7, 256)
    assert found[2, 5, 100] == value[0, 100, 2, 5]
