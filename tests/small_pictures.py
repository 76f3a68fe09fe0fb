"""Small data sets of the formats whose pictures hold class and object of every pixel, for tests that change them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from small_scene import SIZE, save_images, save_picture, scene

CODED: dict[str, tuple[str, str, int]] = {  # where the image and the picture of its objects lie, and its numbers
    "cityscapes": ("leftImg8bit/val/a/one_leftImg8bit", "gtFine/val/a/one_gtFine_instanceIds.png", 26000),
    "kitti": ("training/image_2/one", "training/instance/one.png", 256 * 26 + 1),
    "mots": ("images/0002/one", "instances/0002/one.png", 1001),
    "mapillary-vistas": ("training/images/one", "training/instances/one.png", 0),
    "ade20k": ("training/bar/one", "training/bar/one_seg.png", 256 * 21),
    "ade20k-challenge": ("images/training/one", "annotations_instance/training/one.png", 256 * 21),
    "coco-panoptic": ("images/one", "panoptic_train/one.png", 7),
}
PANOPTIC = {
    "images": [{"id": 1, "file_name": "one.png", "height": 40, "width": 56}],
    "annotations": [
        {
            "image_id": 1,
            "file_name": "one.png",
            "segments_info": [{"id": 7 + number, "category_id": 3, "iscrowd": 0} for number in range(4)],
        }
    ],
    "categories": [{"id": 3, "name": "cell", "isthing": 1}],
}


def write_coded(folder: Path, key: str) -> Path:
    """Writes the image `one` of the scene in a format; returns the file that a person could break."""
    image, picture, number = CODED[key]
    save_images((folder / image).parent, (Path(image).name,))
    values = np.full(SIZE, 256 if key == "mapillary-vistas" else 0, dtype=np.uint16)
    for count, thing in enumerate(scene()["one"]):
        values[thing.mask] = number + count
    if key.startswith("ade20k"):  # class in red or green, object in green or blue
        codes = (values // 256, values % 256)
        values = np.stack([np.zeros(SIZE), *codes] if key == "ade20k" else [*codes, np.zeros(SIZE)], axis=2)
    save_picture(folder / picture, values.astype(np.uint8) if values.ndim == 3 else values)
    (folder / picture).with_name("one_atr.txt").write_text("001 # 0 # 0 # cell # cell # ''")
    if key == "coco-panoptic":
        path = folder / "panoptic_train.json"
        path.write_text(json.dumps(PANOPTIC))
        return path
    if key == "mapillary-vistas":
        (folder / "config.json").write_text('{"labels": [{"name": "a", "instances": true}, {"name": "b"}]}')
    return folder / picture
