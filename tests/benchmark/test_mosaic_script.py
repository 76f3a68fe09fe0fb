"""benchmarks/mosaic.py lays copies of images into one large image, with their objects in the same places."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from maskrcnn.data.formats import read_dataset
from maskrcnn.files.images import read_image
from small_data import write_small

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "mosaic.py"


@pytest.mark.slow
def test_objects_lie_where_their_pixels_are(tmp_path: Path) -> None:
    path = write_small(tmp_path, "train", 4)
    side = min(read_image(tmp_path / "train" / "0.png").shape[:2])
    words = ["--side", 600, "--image-side", side, "--blocks", 2, "--gap", 4, "--only-make"]
    command = [sys.executable, SCRIPT, path, tmp_path / "out", *words]
    subprocess.run([str(word) for word in command], check=True, capture_output=True)
    mosaic, images = read_dataset(tmp_path / "out" / "mosaic.json"), read_dataset(path)
    pixels = mosaic.read(0)
    assert pixels.shape == (600, 600, 3)
    known = {
        np.sort(image[instances.masks[i].dense()], axis=0).tobytes()
        for image, instances in ((images.read(n), images.instances(n)) for n in range(len(images)))
        for i in range(len(instances))
    }
    placed = mosaic.instances(0)
    assert len(placed) > 4 * len(known) > 0
    for mask in placed.masks:
        assert np.sort(pixels[mask.dense()], axis=0).tobytes() in known
    assert all(entry["image_id"] == 1 for entry in json.loads((tmp_path / "out" / "alone.json").read_text()))
