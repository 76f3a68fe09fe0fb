from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

from maskrcnn.data.editing import copies
from maskrcnn.data.editing.copies import shared_files
from maskrcnn.data.formats import read_dataset
from small_data import write_small


def test_copies_of_training_images_are_found_by_their_bytes(tmp_path: Path) -> None:
    training = write_small(tmp_path, "train", 4)
    validation = write_small(tmp_path, "val", 3, seed=1)
    known = read_dataset(training)
    assert shared_files(known, read_dataset(validation)) == []
    shutil.copy(tmp_path / "train" / "3.png", tmp_path / "val" / "1.png")
    (said,) = shared_files(known, read_dataset(validation))
    assert said.startswith(f"1 of 3 validation images are also trained on, first: {tmp_path}/val/1.png; ")
    assert said.endswith(f"maskrcnn data check {training} --val {validation} lists them")
    assert shared_files(known, known)[0].startswith("4 of 4 validation images are also trained on, first: ")


@pytest.mark.parametrize("differing", ["the middle", "the end"])
def test_other_pixels_in_a_file_of_the_same_size_are_another_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, differing: str
) -> None:
    training, validation = (write_small(tmp_path, split, 1) for split in ("train", "val"))
    for number, split in enumerate(("train", "val")):
        image = Image.new("RGB", (80, 64), (number if differing == "the middle" else 0, 0, 0))
        image.putpixel((79, 63), (number, 0, 0))
        image.save(tmp_path / split / "0.png", compress_level=0)
    sizes = {(tmp_path / split / "0.png").stat().st_size for split in ("train", "val")}
    assert len(sizes) == 1
    whole, digest = [], copies._digest

    def recorded(path: Path | str) -> bytes:
        whole.append(path)
        return digest(path)

    monkeypatch.setattr(copies, "_digest", recorded)
    assert shared_files(read_dataset(training), read_dataset(validation)) == []
    assert len(whole) == (0 if differing == "the middle" else 2)
