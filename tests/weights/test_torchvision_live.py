"""Whole models of torchvision and their imports on the same images, and exports of ours opened by torchvision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import KeypointRCNN, MaskRCNN
from torchvision.models.detection._utils import overwrite_eps
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

from maskrcnn.benchmark.pair import SPREAD, enliven
from maskrcnn.config import Config
from maskrcnn.data.shapes import draw_scene
from maskrcnn.models.build import build_model
from maskrcnn.predict import Predictor
from maskrcnn.structures.detections import Instances
from maskrcnn.weights.imported import Imported
from maskrcnn.weights.read import Checkpoint
from maskrcnn.weights.torchvision import class_rows, export_state, import_checkpoint
from torchvision_copy import SPREAD_KEYPOINT
