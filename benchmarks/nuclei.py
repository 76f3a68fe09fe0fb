"""Nuclei with an equal budget: `maskrcnn train` without other flags, and torchvision's Mask R-CNN beside it.

    python benchmarks/nuclei.py FOLDER WEIGHTS --out OUT --minutes 50 --sides ours theirs

FOLDER holds `train.json` and `val.json` in COCO's form with their images, and WEIGHTS is a ResNet-18 of ImageNet with
torchvision's names. Both sides start from it, have the same minutes for training, compute in bf16 where the processor
multiplies bf16 faster, and are judged by the same command.

torchvision has a reference script, and no recipe for small objects. This one keeps the script's optimiser, its drops
of the learning rate after 16/26 and 22/26 of the training, its flips and its frozen layers. Images of 800 pixels, as in
the script, would leave few steps. So images are crops of 256 pixels, enlarged up to 1.5 times, with anchors from 8 to
128 pixels. The learning rate is four times what the script's rule gives for two images.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as coco_masks
from pycocotools.coco import COCO
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

from maskrcnn.ops.device import in_precision

CROP = 256  # pixels
ENLARGED = (256, 288, 320, 352, 384)  # sides of the network input in training
AT_TEST = 1.25  # the middle of what training sees
BATCH, RATE, WARMUP = 2, 0.01, 100
DROPS = (16 / 26, 22 / 26)
DETECTIONS = 500


def train_ours(folder: Path, weights: Path, out: Path, minutes: float) -> None:
    command = ["train", folder / "train.json", "--weights", weights, "--budget", f"{minutes:g}m", "--out", out / "ours"]
    maskrcnn(*command)
    model = out / "ours" / "model.safetensors"
    maskrcnn("evaluate", "--model", model, "--data", folder / "val.json", "--matching")


def train_theirs(folder: Path, weights: Path, out: Path, minutes: float) -> None:
    torch.manual_seed(0)
    model = build_theirs(weights)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.SGD(trained, RATE, momentum=0.9, weight_decay=1e-4)
    start, step = time.monotonic(), 0
    for images, targets in crops(COCO(folder / "train.json"), folder / "train"):
        share = (time.monotonic() - start) / (60 * minutes)
        if share >= 1:
            break
        step += 1
        rate = RATE * min(1, step / WARMUP) * 0.1 ** sum(share >= drop for drop in DROPS)
        optimiser.param_groups[0]["lr"] = rate
        with in_precision("auto", torch.device("cpu")):
            losses = model(images, targets)
        loss = sum(losses.values(), torch.zeros(()))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % 20 == 0:
            parts = " ".join(f"{name[5:]} {value.item():.3f}" for name, value in losses.items())
            print(f"step {step} after {share * minutes:.1f} min: loss {loss.item():.3f} {parts}", flush=True)
    print(f"torchvision: {step} steps")
    results = out / "torchvision.json"
    results.write_text(json.dumps(predict(model.eval(), COCO(folder / "val.json"), folder / "val")))
    limit = ["--max-detections", DETECTIONS]
    maskrcnn("evaluate", "--results", results, "--data", folder / "val.json", "--matching", *limit)


def maskrcnn(*words: object) -> None:
    command = [sys.executable, "-m", "maskrcnn", *map(str, words)]
    print(*command[2:], flush=True)
    subprocess.run(command, check=True)


def build_theirs(weights: Path) -> nn.Module:
    """`maskrcnn_resnet50_fpn` with ResNet-18: batch norms and the first layers frozen, as for pretrained weights."""
    backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None, trainable_layers=3)
    missing = backbone.body.load_state_dict(load_file(weights), strict=False).missing_keys
    if missing:
        raise SystemExit(f"{weights}: expected a ResNet-18 with torchvision's names, found no {missing[0]}")
    anchors = AnchorGenerator(tuple((side,) for side in (8, 16, 32, 64, 128)), ((0.5, 1.0, 2.0),) * 5)
    model: nn.Module = MaskRCNN(
        backbone,
        num_classes=2,
        min_size=ENLARGED,
        max_size=4000,
        rpn_anchor_generator=anchors,
        box_detections_per_img=DETECTIONS,
    )
    return model.train()


def crops(data: COCO, folder: Path) -> Iterator[tuple[list[Tensor], list[dict[str, Tensor]]]]:
    """Batches without end, each epoch in a new order."""
    random = np.random.default_rng(0)
    ids = list(data.imgs)
    samples: list[tuple[Tensor, dict[str, Tensor]]] = []
    while True:
        for image_id in random.permutation(ids).tolist():
            samples.append(crop(data, folder, image_id, random))
            if len(samples) == BATCH:
                images, targets = zip(*samples, strict=True)
                yield list(images), list(targets)
                samples.clear()


def crop(data: COCO, folder: Path, image_id: int, random: np.random.Generator) -> tuple[Tensor, dict[str, Tensor]]:
    """A random part of an image with its objects, mirrored or not on either axis."""
    image = np.asarray(Image.open(folder / data.imgs[image_id]["file_name"]).convert("RGB"))
    runs = [data.annToRLE(annotation) for annotation in data.imgToAnns[image_id]]
    masks = coco_masks.decode(runs).transpose(2, 0, 1) if runs else np.zeros((0, *image.shape[:2]), np.uint8)
    y, x = (int(random.integers(max(side - CROP, 0) + 1)) for side in image.shape[:2])
    image, masks = image[y : y + CROP, x : x + CROP], masks[:, y : y + CROP, x : x + CROP]
    for axis in (0, 1):
        if random.random() < 0.5:
            image, masks = np.flip(image, axis), np.flip(masks, axis + 1)
    rows, columns = masks.any(2), masks.any(1)
    boxes = [[*_ends(column), *_ends(row)] for row, column in zip(rows, columns, strict=True) if row.any()]
    box = torch.tensor(boxes, dtype=torch.float32).view(-1, 4)[:, [0, 2, 1, 3]]
    whole = (box[:, 2:] > box[:, :2] + 1).all(1)
    kept = torch.from_numpy(masks[rows.any(1)].copy())[whole]
    target = {"boxes": box[whole], "masks": kept, "labels": torch.ones(len(kept), dtype=torch.int64)}
    return as_float(image), target


def _ends(filled: np.ndarray) -> tuple[int, int]:
    """The first position and the one behind the last."""
    positions = np.flatnonzero(filled)
    return int(positions[0]), int(positions[-1]) + 1


def as_float(image: np.ndarray) -> Tensor:
    return torch.from_numpy(image.copy()).permute(2, 0, 1).float() / 255


@torch.no_grad()
def predict(model: Any, data: COCO, folder: Path) -> list[dict[str, Any]]:
    """COCO results of all images."""
    results = []
    for image_id, entry in data.imgs.items():
        image = as_float(np.asarray(Image.open(folder / entry["file_name"]).convert("RGB")))
        model.transform.min_size = (round(AT_TEST * min(image.shape[1:])),)
        found = model([image])[0]
        masks = (found["masks"][:, 0] > 0.5).numpy().astype(np.uint8)
        runs = coco_masks.encode(np.asfortranarray(masks.transpose(1, 2, 0)))
        for box, score, rle in zip(found["boxes"].tolist(), found["scores"].tolist(), runs, strict=True):
            x, y, right, bottom = box
            rle["counts"] = rle["counts"].decode()
            shape = {"bbox": [x, y, right - x, bottom - y], "segmentation": rle}
            results.append({"image_id": image_id, "category_id": next(iter(data.cats)), "score": score, **shape})
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="folder of train.json and val.json")
    parser.add_argument("weights", type=Path, help="ResNet-18 with torchvision's names")
    parser.add_argument("--out", type=Path, default=Path("runs/nuclei"))
    parser.add_argument("--minutes", type=float, default=50)
    parser.add_argument("--sides", nargs="+", choices=["ours", "theirs"], default=["ours", "theirs"])
    flags = parser.parse_args()
    flags.out.mkdir(parents=True, exist_ok=True)
    for side, train in (("ours", train_ours), ("theirs", train_theirs)):
        if side in flags.sides:
            train(flags.folder, flags.weights, flags.out, flags.minutes)


if __name__ == "__main__":
    main()
