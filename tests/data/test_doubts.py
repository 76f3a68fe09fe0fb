from __future__ import annotations

from pathlib import Path
from typing import Any

from maskrcnn.config import Category
from maskrcnn.data.annotation import RawAnnotation
from maskrcnn.data.builder import DatasetBuilder
from maskrcnn.data.doubts import crowded_images, labelled_keypoints, repeated_names, unused_classes
from maskrcnn.data.formats import read_dataset
from maskrcnn.structures.dataset import Dataset
from small_people import write_people

SIZE = (40, 50)


def built(*annotations: dict[str, Any], images: int = 1) -> Dataset:
    builder = DatasetBuilder(Path("some.file"))
    builder.add_category(1, "cell")
    for number in range(images):
        builder.add_image(number, Path(f"{number}.png"), *SIZE, {})
    for fields in annotations:
        builder.add_annotation(RawAnnotation(**{"image_id": 0, "category_id": 1, **fields}))
    return builder.build()


def test_images_with_more_objects_than_detections_are_counted_without_crowds() -> None:
    box = {"box": [3, 3, 9, 9]}
    dataset = built(*[box] * 3, {**box, "crowd": 1}, *[{**box, "image_id": 2}] * 5, images=3)
    assert crowded_images(dataset, 5) == []
    assert "1 of 3 images hold more than 4 objects, up to 5" in crowded_images(dataset, 4)[0]
    assert "2 of 3 images hold more than 2 objects, up to 5" in crowded_images(dataset, 2)[0]
    assert crowded_images(dataset.subset([1]), 1) == []


def test_classes_without_objects_are_named_and_crowds_are_no_objects() -> None:
    builder = DatasetBuilder(Path("some.file"))
    for number, name in enumerate(("cell", "debris", "dust")):
        builder.add_category(number, name)
    builder.add_image(0, Path("0.png"), *SIZE, {})
    for number, crowd in ((0, 0), (1, 1)):
        builder.add_annotation(RawAnnotation(image_id=0, category_id=number, box=[3, 3, 9, 9], crowd=crowd))
    assert "2 of 3 classes have no object to learn from" in unused_classes(builder.build())[0]
    assert "debris, dust;" in unused_classes(builder.build())[0]
    assert unused_classes(built({"box": [3, 3, 9, 9]})) == []


def test_objects_with_labelled_keypoints_are_counted(tmp_path: Path) -> None:
    people = read_dataset(write_people(tmp_path, "train", 2))
    (sentence,) = labelled_keypoints(people)
    assert sentence.startswith("4 objects have keypoints, which this model does not learn; --preset keypoint_rcnn_R_50")
    people.columns["keypoints"][..., 2] = 0
    assert labelled_keypoints(people) == []
    assert labelled_keypoints(built({"box": [3, 3, 9, 9]})) == []


def test_names_that_are_given_twice_are_said() -> None:
    categories = [Category(1, "cell"), Category("b", "Cell"), Category(3, "cell")]
    paths = ["a/1.png", "b/1.png", "a/1.png"]
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
