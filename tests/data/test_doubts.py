from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from maskrcnn.config import Category
from maskrcnn.data.annotation import RawAnnotation
from maskrcnn.data.builder import DatasetBuilder
from maskrcnn.data.doubts import crowded_images, doubtful_masks, repeated_names, wrong_masks
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.masks import RLE

SIZE = (40, 50)


def built(*annotations: dict[str, Any], images: int = 1) -> Dataset:
    builder = DatasetBuilder(Path("some.file"))
    builder.add_category(1, "cell")
    for number in range(images):
        builder.add_image(number, Path(f"{number}.png"), *SIZE, {})
    for fields in annotations:
        builder.add_annotation(RawAnnotation(**{"image_id": 0, "category_id": 1, **fields}))
    return builder.build()


def rectangle(x: int, y: int, width: int, height: int) -> dict[str, Any]:
    bitmap = np.zeros(SIZE, dtype=bool)
    bitmap[y : y + height, x : x + width] = True
    return {"rle": RLE.from_dense(bitmap).to_coco()}


rectangles = st.tuples(st.integers(0, 30), st.integers(0, 20), st.integers(1, 20), st.integers(1, 20))


@given(rectangles, rectangles)
def test_a_box_is_doubted_by_its_overlap_with_the_mask(box: tuple[int, ...], mask: tuple[int, ...]) -> None:
    grids = []
    for x, y, width, height in (box, mask):
        grid = np.zeros(SIZE, dtype=bool)
        grid[y : y + height, x : x + width] = True
        grids.append(grid)
    overlap = (grids[0] & grids[1]).sum() / (grids[0] | grids[1]).sum()
    edges = np.array([(x, y, x + width, y + height) for x, y, width, height in (box, mask)])
    far = np.abs(edges[0] - edges[1]).max() > 2
    annotations = built({"box": list(box), **rectangle(*mask)}).annotations(0)
    assert doubtful_masks(annotations)[0].tolist() == ([0] if overlap < 0.5 and far else [])


def test_the_boxes_of_crowds_and_of_masks_without_pixels_are_not_doubted() -> None:
    thin = [[10.1, 10.1, 10.3, 10.1, 10.3, 10.4]]
    annotations = built(
        {"box": [3, 3, 9, 9]},
        {"box": [30, 30, 9, 9], "crowd": 1, **rectangle(0, 0, 5, 5)},
        {"box": [30, 30, 9, 9], "polygons": thin},
        {"box": [30, 30, 9, 9], **rectangle(0, 0, 5, 5)},
        {"box": [0, 0, 9, 9], "polygons": [[100, 100, 109, 100, 109, 109]]},
    )
    beside, nowhere = doubtful_masks(annotations.annotations(0))
    assert (beside.tolist(), nowhere.tolist()) == ([3], [2, 4])
    assert "masks cover no pixel of their image (annotations: 2), first: annotation 3 of" in wrong_masks(annotations)[1]


def test_images_with_more_objects_than_detections_are_counted_without_crowds() -> None:
    box = {"box": [3, 3, 9, 9]}
    dataset = built(*[box] * 3, {**box, "crowd": 1}, *[{**box, "image_id": 2}] * 5, images=3)
    assert crowded_images(dataset, 5) == []
    assert "1 of 3 images hold more than 4 objects, up to 5" in crowded_images(dataset, 4)[0]
    assert "2 of 3 images hold more than 2 objects, up to 5" in crowded_images(dataset, 2)[0]
    assert crowded_images(dataset.subset([1]), 1) == []


def test_names_that_are_given_twice_are_said() -> None:
    categories = [Category(1, "cell"), Category("b", "Cell"), Category(3, "cell")]
    paths = [Path("a/1.png"), Path("b/1.png"), Path("a/1.png")]
    names, files = repeated_names(categories, paths)
    assert "'cell' is the name of the ids 1, 3" in names
    assert "(files: 1), first: a/1.png is listed 2 times" in files
    assert repeated_names(categories[:2], paths[:2]) == []


def test_a_data_set_notes_its_repeated_names() -> None:
    builder = DatasetBuilder(Path("some.file"))
    for number in (1, 2):
        builder.add_category(number, "cell")
        builder.add_image(number, Path("same.png"), *SIZE, {})
    notes = builder.build().notes
    assert len(notes) == 2
    assert all(note.startswith("some.file: ") for note in notes)
