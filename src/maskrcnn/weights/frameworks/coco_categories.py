"""The categories of COCO (cocodataset.org, 2017), for checkpoints with as many classes and without their names."""

from __future__ import annotations

from dataclasses import replace

from maskrcnn.config import Category, Config
from maskrcnn.structures.keypoints import COCO_KEYPOINTS

LAST_ID = 90  # ids run from 1 to 90, and ten of them have no category

_NAMES = {
    1: "person",
    2: "bicycle",
    3: "car",
    4: "motorcycle",
    5: "airplane",
    6: "bus",
    7: "train",
    8: "truck",
    9: "boat",
    10: "traffic light",
    11: "fire hydrant",
    13: "stop sign",
    14: "parking meter",
    15: "bench",
    16: "bird",
    17: "cat",
    18: "dog",
    19: "horse",
    20: "sheep",
    21: "cow",
    22: "elephant",
    23: "bear",
    24: "zebra",
    25: "giraffe",
    27: "backpack",
    28: "umbrella",
    31: "handbag",
    32: "tie",
    33: "suitcase",
    34: "frisbee",
    35: "skis",
    36: "snowboard",
    37: "sports ball",
    38: "kite",
    39: "baseball bat",
    40: "baseball glove",
    41: "skateboard",
    42: "surfboard",
    43: "tennis racket",
    44: "bottle",
    46: "wine glass",
    47: "cup",
    48: "fork",
    49: "knife",
    50: "spoon",
    51: "bowl",
    52: "banana",
    53: "apple",
    54: "sandwich",
    55: "orange",
    56: "broccoli",
    57: "carrot",
    58: "hot dog",
    59: "pizza",
    60: "donut",
    61: "cake",
    62: "chair",
    63: "couch",
    64: "potted plant",
    65: "bed",
    67: "dining table",
    70: "toilet",
    72: "tv",
    73: "laptop",
    74: "mouse",
    75: "remote",
    76: "keyboard",
    77: "cell phone",
    78: "microwave",
    79: "oven",
    80: "toaster",
    81: "sink",
    82: "refrigerator",
    84: "book",
    85: "clock",
    86: "vase",
    87: "scissors",
    88: "teddy bear",
    89: "hair drier",
    90: "toothbrush",
}
_LIMBS = "16-14 14-12 17-15 15-13 12-13 6-12 7-13 6-7 6-8 7-9 8-10 9-11 2-3 1-2 1-3 2-4 3-5 4-6 5-7"  # numbered from 1

COCO = tuple(Category(number, name) for number, name in _NAMES.items())
COCO_PERSON = Category(
    1,
    "person",
    COCO_KEYPOINTS,
    tuple((int(a) - 1, int(b) - 1) for a, b in (limb.split("-") for limb in _LIMBS.split())),
)


def named_as_coco(config: Config) -> tuple[Config, tuple[str, ...]]:
    """The config with COCO's categories if it has as many classes, and a sentence that states the assumption."""
    model = config.model
    keypoints = 0 if model.keypoint_head is None else model.keypoint_head.num_keypoints
    if model.num_classes == 1 and keypoints == len(COCO_PERSON.keypoints):
        return replace(config, categories=(COCO_PERSON,)), ("the class is COCO's person, with its 17 keypoints",)
    if model.num_classes == len(COCO) and not keypoints:
        return replace(config, categories=COCO), ("the 80 classes are COCO's, in the order of their ids",)
    return config, (f"the {model.num_classes} classes have no names: they get the ids 1 to {model.num_classes}",)
