"""Finds objects with a file of `maskrcnn export model.onnx`. It needs onnxruntime, numpy and Pillow alone.

python predict_onnx.py model.onnx photo.jpg  # prints the objects, and writes a mask for each
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def predict(session, path):
    """The objects of an image file: boxes (N, 4) in its pixels, scores (N,), labels (N,), masks (N, H, W) bool."""
    config = json.loads(session.get_modelmeta().custom_metadata_map["maskrcnn"])["config"]
    image, rules = ImageOps.exif_transpose(Image.open(path)).convert("RGB"), config["image"]
    original = np.array([image.size])  # width and height
    scale = min(rules["short_side"] / original.min(), rules["long_side"] / original.max())
    size = np.maximum(1, np.floor(original * scale + 0.5).astype(np.int64))
    (width, height), divisor = size[0], rules["divisor"]
    pixels = np.zeros((1, 3, -(-height // divisor) * divisor, -(-width // divisor) * divisor), np.uint8)
    resized = np.asarray(image.resize((int(width), int(height)), Image.Resampling.BILINEAR))
    pixels[0, :, :height, :width] = resized.transpose(2, 0, 1)
    inputs = {"pixels": pixels, "sizes_hw": size[:, ::-1], "original_hw": original[:, ::-1]}
    inputs["scale_xy"] = (original / size).astype(np.float32)
    boxes, scores, labels, runs = session.run(["boxes", "scores", "labels", "runs"], inputs)
    found = scores[0] > 0
    masks = np.zeros((found.sum(), image.width * image.height), bool)
    for _, number, start, stop in runs:
        masks[number, start:stop] = True  # counted down the columns
    names = np.array([category["name"] for category in config["categories"]])
    return boxes[0][found], scores[0][found], names[labels[0][found]], masks.reshape(-1, *image.size).swapaxes(1, 2)


if __name__ == "__main__":
    objects = predict(onnxruntime.InferenceSession(sys.argv[1]), sys.argv[2])
    for number, (box, score, name, mask) in enumerate(zip(*objects, strict=True)):
        print(f"{name} {score:.3f} {box.astype(float).round(1).tolist()}")
        Image.fromarray(mask).save(f"mask_{number}.png")
