import json
from pathlib import Path
from typing import Any

import pytest

from maskrcnn.data.formats import read_dataset
from maskrcnn.data.learnable import require_examples, with_files
from maskrcnn.errors import DataError
from small_data import write_small


def changed(tmp_path: Path, **fields: Any) -> Path:
    """A data set of three images, all annotations with these fields."""
    path = write_small(tmp_path, "train", 3)
    content = json.loads(path.read_text())
    for annotation in content["annotations"]:
        annotation.update(fields)
    path.write_text(json.dumps(content))
    return path


def test_missing_files_are_left_out_and_counted(tmp_path: Path) -> None:
    path = changed(tmp_path)
    assert with_files(read_dataset(path)).problems == ()
    images = sorted((tmp_path / "train").iterdir())
    images[0].unlink()
    dataset = with_files(read_dataset(path))
    assert len(dataset) == 2
    assert [record.path for record in dataset.records] == images[1:]
    assert "the files of 1 of 3 images are missing, first: " in dataset.problems[0]
    assert images[0].name in dataset.problems[0]
    with pytest.raises(DataError, match="the files of 1 of 3 images are missing"):
        with_files(read_dataset(path), strict=True)
    for image in images[1:]:
        image.unlink()
    with pytest.raises(DataError, match=r"the files of 3 of 3 images are missing, .*--images"):
        with_files(read_dataset(path))


@pytest.mark.parametrize(
    ("fields", "masks", "reason"),
    [
        ({"iscrowd": 1}, False, "annotations is a crowd region"),
        ({"image_id": 999}, False, "no annotation of its 3 images can be used; problems: 5; first: annotation "),
        ({"segmentation": []}, True, "objects has a mask"),
        ({"segmentation": [[0.1, 0.1, 0.4, 0.1, 0.4, 0.4]], "bbox": [0.1, 0.1, 0.3, 0.3]}, True, "not fractions"),
        ({"segmentation": [[900, 900, 950, 900, 950, 950]]}, True, "objects is larger than a pixel of its image"),
        ({"segmentation": [], "bbox": [0.2, 0.3, 0.5, 0.6]}, False, "objects is larger than a pixel of its image"),
    ],
)
def test_a_data_set_without_examples_is_refused(
    tmp_path: Path, fields: dict[str, Any], masks: bool, reason: str
) -> None:
    dataset = read_dataset(changed(tmp_path, **fields))
    with pytest.raises(DataError, match=f"expected objects to learn from, found none: .*{reason}"):
        require_examples(dataset, masks=masks)


def test_boxes_are_enough_for_a_model_without_masks(tmp_path: Path) -> None:
    dataset = read_dataset(changed(tmp_path, segmentation=[]))
    require_examples(dataset, masks=False)
    with pytest.raises(DataError, match="its 0 images have no annotations"):
        require_examples(dataset.subset([]), masks=False)
