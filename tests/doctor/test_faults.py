"""Every kind of fault, planted in a sound data set, is found, and nothing is found in the sound one."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskrcnn.data.formats import read_dataset
from maskrcnn.doctor import KINDS, examine
from planted import (
    IMAGES,
    SIDE,
    Content,
    Plant,
    adding,
    another_image,
    drawn,
    entry,
    file_of,
    image_entry,
    jpeg,
    polygon,
    polygons,
    renaming,
    setting,
    sound,
    turned,
    written,
)

SOUND = sound()


def crowded(content: Content, images: Path) -> None:
    content["annotations"] += [
        entry(1000 + i, 2, 1, [x, y, x + 3, y, x + 3, y + 3])
        for i in range(120)
        for x, y in [(5 * (i % 20), 5 * (i // 20))]
    ]


def only_crowds(content: Content, images: Path) -> None:
    for own in content["annotations"]:
        if own["category_id"] == 2:
            own |= {"iscrowd": 1, "segmentation": drawn(own["segmentation"][0]).to_coco()}


def hole_beside(content: Content, images: Path) -> None:
    x, y = np.reshape(content["annotations"][0]["segmentation"][0], (-1, 2)).mean(axis=0)
    content["annotations"][0]["segmentation"].append(polygon(x, y, 5))


def listed_twice(content: Content, images: Path) -> None:
    content["images"].append({**content["images"][0], "id": 99})


def run_lengths(**fields: object) -> Plant:
    return lambda content, images: content["annotations"][0].__setitem__(
        "segmentation", {**drawn(content["annotations"][0]["segmentation"][0]).to_coco(), **fields}
    )


def centre(own: dict) -> tuple[float, float]:
    return tuple(np.reshape(own["segmentation"][0], (-1, 2)).mean(axis=0))


def corners(own: dict) -> list[float]:
    x, y, w, h = own["bbox"]
    return [x, y, x + w, y + h]


def moved(own: dict, by: float) -> dict:
    return {"segmentation": [[value + by for value in own["segmentation"][0]]], "bbox": None, "area": None}


PLANTS: dict[str, tuple[str, Plant]] = {
    "an unknown image": ("left-out", setting("image_id", 77)),
    "an unknown class": ("left-out", setting("category_id", 77)),
    "no class": ("left-out", setting("category_id", None)),
    "a coordinate that is no number": ("left-out", setting("segmentation", [[1, 2, 3, float("nan"), 5, 6]])),
    "a coordinate beyond any image": ("left-out", setting("segmentation", [[1, 2, 1e300, 4, 5, 1e300]])),
    "a box beyond any image": ("repaired", setting("bbox", [5, 5, 1e300, 1e300])),
    "a polygon of two points": ("left-out", setting("segmentation", [[1, 2, 3, 4]])),
    "a part of two points": ("repaired", lambda c, _: c["annotations"][0]["segmentation"].append([1, 2, 3, 4])),
    "run lengths of a turned image": ("left-out", run_lengths(size=list(SIDE[::-1]))),
    "run lengths of another image": ("left-out", run_lengths(size=[7, 9])),
    "run lengths that are no code": ("left-out", run_lengths(counts="~~~")),
    "an id that is there twice": ("repaired", setting("id", 2)),
    "an annotation entry twice": ("left-out", lambda c, _: c["annotations"].append(c["annotations"][0])),
    "an image entry twice": ("left-out", lambda c, _: c["images"].append(c["images"][0])),
    "a box of no width": ("repaired", setting("bbox", [3, 4, 0, 9])),
    "a crowd flag of 7": ("left-out", setting("iscrowd", 7)),
    "neither box nor mask": ("left-out", lambda c, _: c["annotations"][0].update(bbox=None, segmentation=[])),
    "a lone box outside": ("left-out", lambda c, _: c["annotations"][0].update(bbox=[900, 9, 5, 5], segmentation=[])),
    "an image of no width": ("left-out", image_entry(width=0)),
    "a missing file": ("missing-image", file_of(lambda picture, path: path.unlink())),
    "an empty file": ("unreadable-image", file_of(lambda picture, path: path.write_bytes(b""))),
    "a text": ("unreadable-image", file_of(lambda picture, path: path.write_text("404 not found"))),
    "half a file": ("unreadable-image", file_of(lambda picture, path: path.write_bytes(path.read_bytes()[:4000]))),
    "half a JPEG": (
        "unreadable-image",
        file_of(lambda picture, path: (picture.save(path), path.write_bytes(path.read_bytes()[:1200])), "1.jpg"),
    ),
    "an image of another size": ("other-size", file_of(lambda picture, path: picture.resize((64, 48)).save(path))),
    "a turned image": ("turned-image", file_of(lambda picture, path: picture.rotate(90, expand=True).save(path))),
    "an EXIF quarter turn": ("turned-image", file_of(turned(6), "1.jpg")),
    "an EXIF half turn": ("exif-turn", file_of(turned(3), "1.jpg")),
    "two pages": (
        "pages",
        file_of(lambda p, path: p.save(path, save_all=True, append_images=[p.rotate(180)]), "1.tif"),
    ),
    "a file listed twice": ("repeated-file", listed_twice),
    "a copy of a file": ("duplicate-image", another_image(lambda picture, path: path.write_bytes(
        (path.parent / "1.png").read_bytes()), "copy.png")),
    "a smaller copy": ("similar-image", another_image(lambda p, path: p.resize((64, 48)).save(path), "small.png")),
    "a compressed copy": ("similar-image", another_image(jpeg(35), "copy.jpg")),
    "a box of corners": ("box-beside-mask", lambda c, _: c["annotations"][0].update(bbox=corners(c["annotations"][0]))),
    "a box of another object": ("box-beside-mask", setting("bbox", [100, 70, 20, 20])),
    "a box that is too wide": (
        "box-beside-mask",
        lambda c, _: c["annotations"][0]["bbox"].__setitem__(2, c["annotations"][0]["bbox"][2] + 6),
    ),
    "fractions of the image": ("empty-mask", polygons(lambda points: points / SIDE[::-1])),
    "a polygon beside the image": ("object-outside", polygons(lambda points: points + 400)),
    "a polygon that leaves the image": ("outside-image", polygons(lambda points: points - points.mean(axis=0))),
    "a mask of twice the size": ("outside-image", polygons(lambda points: points * 2.6)),
    "the area of the box": ("area-beside-mask", lambda c, _: c["annotations"][0].update(
        area=c["annotations"][0]["bbox"][2] * c["annotations"][0]["bbox"][3])),
    "the area of the image": ("area-beside-mask", setting("area", SIDE[0] * SIDE[1])),
    "a bow tie": ("crossing-outline", polygons(lambda points: points[[0, 1, 5, 4]])),
    "two corners in the wrong order": ("crossing-outline", polygons(lambda points: points[[0, 2, 1, *range(3, 8)]])),
    "a hole as a part": ("filled-hole", hole_beside),
    "a hole as an object": (
        "inside-another",
        adding(lambda own: {"segmentation": [polygon(*centre(own), 5)], "bbox": None, "area": None}),
    ),
    "an object twice": ("duplicate-object", adding(lambda own: {})),
    "an object nearly twice": ("duplicate-object", adding(lambda own: moved(own, 1))),
    "a box twice": ("duplicate-object", lambda c, _: c["annotations"].extend(
        {**c["annotations"][0], "segmentation": [], "id": number} for number in (900, 901))),
    "an object of two classes": ("two-classes", adding(lambda own: {"category_id": 2})),
    "a speck": ("speck", adding(lambda own: entry(900, 1, 1, [60, 10, 62, 10, 62, 12, 60, 12]))),
    "the background": ("whole-image", adding(lambda own: entry(900, 1, 1, [0, 0, 128, 0, 128, 96, 0, 96]))),
    "a crowd of one object": ("false-crowd", setting("iscrowd", 1)),
    "a class of crowds": ("false-crowd", only_crowds),
    "two classes of one name": ("same-name", renaming("leaf")),
    "two spellings of a name": ("same-name", renaming(" Leaf_")),
    "a number as a name": ("number-as-name", renaming("class_2")),
    "a class without objects": ("unused-class", lambda c, _: c["categories"].append({"id": 3, "name": "twig"})),
    "many objects": ("crowded-image", crowded),
}  # fmt: skip


def planted(folder: Path, plant: Plant) -> Path:
    content, pictures = SOUND
    content = copy.deepcopy(content)
    path = written(folder, content, pictures)
    plant(content, folder / "images")
    path.unlink()
    return written_json(path, content)


def written_json(path: Path, content: Content) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_nothing_is_found_in_a_sound_data_set(tmp_path: Path) -> None:
    diagnosis = examine(read_dataset(planted(tmp_path, lambda content, images: None)))
    assert [found.sentence(diagnosis.dataset) for found in diagnosis.findings] == []
    assert diagnosis.useless == ""
    assert diagnosis.objects_by_class == [IMAGES, IMAGES]


@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_fault_is_found(tmp_path: Path, name: str) -> None:
    kind, plant = PLANTS[name]
    diagnosis = examine(read_dataset(planted(tmp_path, plant)))
    kinds = {found.kind for found in diagnosis.findings}
    assert kind in kinds, [found.sentence(diagnosis.dataset) for found in diagnosis.findings]
    assert len(kinds) <= 2, [(found.kind, found.sentence(diagnosis.dataset)) for found in diagnosis.findings]
    for found in diagnosis.findings:
        if found.kind == kind and found.image is not None:
            assert diagnosis.dataset.records[found.image].image_id in (1, 2, 99)
    assert diagnosis.useless == ""


VAL: dict[str, tuple[str, Plant]] = {
    "a copy": ("shared-image", another_image(lambda picture, path: picture.save(path), "other.png")),
    "a compressed copy": ("shared-image", another_image(jpeg(40), "other.jpg")),
    "a smaller copy": ("shared-image", another_image(jpeg(80, 0.6), "other.jpg")),
    "a larger copy": ("shared-image", another_image(jpeg(80, 1.7), "other.jpg")),
    "another version": (
        "shared-photograph",
        another_image(lambda p, path: p.rotate(90, expand=True).save(path), "leaf_jpg.rf.0123456789abcdef.jpg"),
    ),
}


@pytest.mark.parametrize("name", VAL)
def test_images_of_both_splits_are_found(tmp_path: Path, name: str) -> None:
    kind, plant = VAL[name]
    version = file_of(lambda picture, path: picture.save(path), "leaf_jpg.rf.fedcba9876543210.jpg")
    train = read_dataset(planted(tmp_path / "train", version))
    content, pictures = sound(seed=1)
    first = SOUND[1][0]
    path = written(tmp_path / "val", content, pictures)
    (tmp_path / "val" / "images" / "own.png").write_bytes((tmp_path / "val" / "images" / "1.png").read_bytes())
    first.save(tmp_path / "val" / "images" / "1.png")
    plant(content, tmp_path / "val" / "images")
    content["images"][0]["file_name"] = "own.png"
    val = read_dataset(written_json(path, content))
    assert {found.kind for found in examine(train).findings} == set()
    (found,) = examine(train, val).findings
    assert (found.kind, found.severity, found.image) == (kind, "hurts", 0)
    assert found.other is not None
    assert "val" in str(found.other)


def test_a_file_that_both_splits_list_is_found(tmp_path: Path) -> None:
    train = read_dataset(planted(tmp_path, lambda content, images: None))
    val = train.subset([1, 2])
    found = examine(train, val).findings
    assert [(one.kind, one.severity, one.image) for one in found] == [("shared-image", "hurts", i) for i in (1, 2)]
    assert found[0].other == val.records[0].path


def test_classes_that_the_validation_set_does_not_share_are_found(tmp_path: Path) -> None:
    train = read_dataset(planted(tmp_path / "train", lambda content, images: None))
    content, pictures = sound(seed=1)
    content["categories"][0]["name"] = "Leaf"
    val = read_dataset(written(tmp_path / "val", content, pictures))
    (found,) = examine(train, val).findings
    assert (found.kind, found.severity) == ("other-classes", "hurts")
    assert found.what == (
        f"{val.path}: expected the categories of the training data, with the same ids and names; only the data set has "
        "Leaf (id 1), and only the training data has leaf (id 1)"
    )


def test_every_kind_is_planted_somewhere() -> None:
    elsewhere = {"other-classes", "separate-parts", "too-many-to-learn", "unreached-object", "tiny-object"}
    assert {kind for kind, _ in (*PLANTS.values(), *VAL.values())} | elsewhere == set(KINDS)


def test_an_id_in_two_places_of_a_label_image_is_found(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    ids = np.zeros(SIDE, dtype=np.uint8)
    for number in range(1, 41):
        ids[4 + 9 * (number // 10) : 10 + 9 * (number // 10), 12 * (number % 10) : 12 * (number % 10) + 8] = number
    ids[80:88, 40:60] = 7
    SOUND[1][0].save(tmp_path / "images" / "a.png")
    Image.fromarray(ids).save(tmp_path / "masks" / "a.png")
    diagnosis = examine(read_dataset(tmp_path))
    assert [(found.kind, found.severity) for found in diagnosis.findings] == [("separate-parts", "hurts")]
    assert "2 parts of 160, 48 pixels" in diagnosis.problems[0]


def test_a_table_cell_that_excel_has_cut_is_found(tmp_path: Path) -> None:
    SOUND[1][0].save(tmp_path / "a.png")
    cells = " ".join(f"{start} 1" for start in range(1, 12_000, 2)) + " 12001 1" * 4000
    (tmp_path / "train.csv").write_text(f"ImageId,EncodedPixels\na.png,{cells[:32_767]}\na.png,1 5\n")
    (found,) = (f for f in examine(read_dataset(tmp_path / "train.csv")).findings if f.kind == "left-out")
    assert "where Excel cuts a cell" in found.what
