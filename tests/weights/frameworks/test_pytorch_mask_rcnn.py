"""The PyTorch port of Matterport: the same weights under both schemes of names are the same model."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor

import maskrcnn
from keras_weights import weights
from maskrcnn.config.conventions import MATTERPORT
from maskrcnn.errors import ConfigError, WeightsError
from maskrcnn.files.checkpoint import Checkpoint
from maskrcnn.weights.frameworks.importer import Imported
from maskrcnn.weights.frameworks.matterport import Matterport
from maskrcnn.weights.frameworks.matterport.names import TABLE as KERAS_TABLE
from maskrcnn.weights.frameworks.matterport.names import places
from maskrcnn.weights.frameworks.pytorch_mask_rcnn import PyTorchMaskRCNN
from maskrcnn.weights.frameworks.pytorch_mask_rcnn.names import TABLE
from odd_shapes import check_odd_shapes

SETTINGS = {
    "DETECTION_MIN_CONFIDENCE": 0.0,
    "IMAGE_MIN_DIM": 128,
    "IMAGE_MAX_DIM": 128,
    "BBOX_STD_DEV": [0.1, 0.2, 0.3, 0.4],
}


def ported(keras: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a Keras file as the port stores them: its own names, and the dimensions in PyTorch's order."""
    found = places(keras)
    theirs = TABLE.their_names(KERAS_TABLE.our_names(found.values()).values())
    ours = KERAS_TABLE.our_names(found.values())
    orders = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}
    return {theirs[ours[place]]: keras[path].permute(orders[keras[path].dim()]) for path, place in found.items()}


def opened(tensors: dict[str, Tensor], **settings: object) -> Imported:
    return PyTorchMaskRCNN().import_checkpoint(Checkpoint("torch", tensors, {}, ()), settings or None)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("fpn.C1.0.bias", (6,)),
        ("fpn.C1.1.running_var", (6,)),
        ("fpn.C2.0.conv1.weight", (4, 6, 1, 1)),
        ("fpn.C4.5.bn3.running_mean", (64,)),
        ("fpn.C5.0.downsample.0.bias", (128,)),
        ("fpn.P5_conv1.weight", (8, 128, 1, 1)),
        ("fpn.P2_conv2.1.weight", (8, 8, 3, 3)),
        ("rpn.conv_class.bias", (6,)),
        ("classifier.conv1.weight", (10, 8, 7, 7)),
        ("classifier.bn2.weight", (10,)),
        ("classifier.linear_bbox.weight", (12, 10)),
        ("mask.bn4.bias", (9,)),
        ("mask.deconv.weight", (9, 9, 2, 2)),
        ("mask.conv5.weight", (3, 9, 1, 1)),
    ],
)
def test_every_layer_has_the_name_and_shape_of_the_port(name: str, shape: tuple[int, ...]) -> None:
    tensors = ported(weights())
    assert len(tensors) == len(weights())
    assert tensors[name].shape == shape


def test_both_schemes_of_names_give_the_same_model() -> None:
    keras = Matterport().import_checkpoint(Checkpoint("hdf5", weights(), {}, ()), SETTINGS)
    port = opened(ported(weights()), **SETTINGS)
    assert (port.config, port.unused, port.assumed) == (keras.config, (), keras.assumed)
    assert port.config.conventions == MATTERPORT
    assert port.state.keys() == keras.state.keys()
    assert all(torch.equal(port.state[name], value) for name, value in keras.state.items())


def test_both_files_give_the_same_detections(tmp_path: Path) -> None:
    keras = weights()
    for name, value in keras.items():
        if name.endswith("kernel:0"):
            value /= value[..., 0].numel() ** 0.5  # so the output of a layer is about as large as its input
            value *= 1e-3 if any(part in name for part in ("bbox", "logits", "class_raw")) else 1.0
    keras["mrcnn_class_logits/mrcnn_class_logits/bias:0"] = torch.tensor([0.0, 1.0, 1.0])  # the background is first
    torch.save(ported(keras), tmp_path / "port.pth")
    with h5py.File(tmp_path / "keras.h5", "w") as file:
        for name, value in keras.items():
            file[name] = value.numpy()
    (tmp_path / "settings.json").write_text(json.dumps(SETTINGS))
    image = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    ours, expected = (
        maskrcnn.load(tmp_path / name, "cpu", config_file=tmp_path / "settings.json", precision="fp32")
        for name in ("port.pth", "keras.h5")
    )
    assert ours.provenance["framework"] == "pytorch-mask-rcnn"
    found, wanted = ours.predict([image])[0], expected.predict([image])[0]
    assert len(found) > 5
    assert np.array_equal(found.boxes, wanted.boxes)
    assert np.array_equal(found.scores, wanted.scores)
    assert found.masks is not None
    assert wanted.masks is not None
    assert np.array_equal(found.masks.dense(), wanted.masks.dense())


def test_counts_of_batches_are_no_surprise() -> None:
    """PyTorch writes them from 0.4.1 on; a file that was converted from Keras has none."""
    tensors = ported(weights())
    counts = {
        name.replace("running_var", "num_batches_tracked"): torch.tensor(7) for name in tensors if "running_var" in name
    }
    assert opened(tensors | counts).unused == ()


def test_what_does_not_fit_is_named_as_the_port_names_it() -> None:
    tensors = ported(weights())
    with pytest.raises(WeightsError, match=r"missing: mask\.conv5\.bias"):
        opened({name: value for name, value in tensors.items() if name != "mask.conv5.bias"})
    with pytest.raises(WeightsError, match=r"classifier\.conv2\.weight is \(10, 9\) and should be"):
        opened(tensors | {"classifier.conv2.weight": torch.zeros(10, 9, 1, 1)})
    with pytest.raises(ConfigError, match="IMAGE_PADDING False is not supported"):
        opened(tensors, IMAGE_PADDING=False)
    with pytest.raises(WeightsError, match="NUM_CLASSES is 81 in the settings, and 3 in the file"):
        opened(tensors, NUM_CLASSES=81)


def test_only_whole_files_are_recognised() -> None:
    assert PyTorchMaskRCNN().recognise(ported(weights()))
    assert not PyTorchMaskRCNN().recognise(["rpn.conv_shared.weight", "rpn.head.cls_logits.weight"])
    assert not PyTorchMaskRCNN().recognise(weights())


def test_odd_shapes_are_refused() -> None:
    check_odd_shapes(lambda tensors: opened(dict(tensors)), ported(weights()))
