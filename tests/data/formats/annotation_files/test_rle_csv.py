"""Run-length CSV: the columns of every known set, both orders of pixels, relative starts, and bad rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from maskrcnn.data.formats import read_dataset
from maskrcnn.data.hints import Hints
from maskrcnn.errors import DataError
from small_scene import expected, masks, objects, save_images, save_picture, scene


def runs_of(mask: np.ndarray, order: str = "down", first: int = 1, relative: bool = False) -> str:
    """The run lengths of a mask by a plain loop."""
    flat = (mask.T if order == "down" else mask).ravel()
    numbers, last, start = [], 0, None
    for place, value in enumerate([*flat.tolist(), False]):
        if value and start is None:
            start = place
        if not value and start is not None:
            numbers += [start - last if relative else start + first, place - start]
            start, last = None, place
    return " ".join(map(str, numbers))


def write_rows(folder: Path, header: str, rows: Sequence[str]) -> Path:
    path = folder / "train.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


LAYOUTS: dict[str, tuple[str, Callable[[str, str, np.ndarray], str], bool]] = {
    "dsb2018": ("ImageId,EncodedPixels", lambda i, c, m: f"{i},{runs_of(m)}", False),
    "from zero": ("ImageId,EncodedPixels", lambda i, c, m: f"{i},{runs_of(m, first=0)}", False),
    "airbus": ("ImageId,EncodedPixels", lambda i, c, m: f"{i}.png,{runs_of(m)}", False),
    "siim": ("ImageId, EncodedPixels", lambda i, c, m: f"{i}, {runs_of(m, relative=True)}", False),
    "siim again": ("\ufefffname,mask", lambda i, c, m: f"{i}.png,{runs_of(m, relative=True)}", False),
    "severstal 2019": ("ImageId_ClassId,EncodedPixels", lambda i, c, m: f"{i}.png_{c},{runs_of(m)}", True),
    "clouds": ("Image_Label,EncodedPixels", lambda i, c, m: f"{i}.png_{c},{runs_of(m)}", True),
    "severstal": ("ImageId,ClassId,EncodedPixels", lambda i, c, m: f"{i}.png,{c},{runs_of(m)}", True),
    "imaterialist": (
        "ImageId,EncodedPixels,Height,Width,ClassId",
        lambda i, c, m: f"{i},{runs_of(m)},40,56,{c}",
        True,
    ),
    "sartorius": (
        "id,annotation,width,height,cell_type",
        lambda i, c, m: f"{i},{runs_of(m, 'right')},56,40,{c}",
        True,
    ),
    "carvana": ("img,rle_mask", lambda i, c, m: f"{i}.png,{runs_of(m, 'right')}", False),
    "uw madison": ("id,class,segmentation", lambda i, c, m: f"{i},{c},{runs_of(m, 'right')}", True),
    "hubmap": ("id,encoding", lambda i, c, m: f"{i},{runs_of(m)}", False),
    "semicolons": ("ImageId;EncodedPixels", lambda i, c, m: f"{i};{runs_of(m)}", False),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_masks(tmp_path: Path, layout: str) -> None:
    header, row, classes = LAYOUTS[layout]
    save_images(tmp_path / "train")
    things = [(image, thing) for image, own in scene().items() for thing in own]
    if layout == "from zero":  # only an object in the first pixel shows it
        things.append(("two", scene()["one"][0]._replace(mask=np.arange(40 * 56).reshape(56, 40).T < 3)))
    rows = [row(image, thing.name, thing.mask) for image, thing in things]
    rows = rows[::2] + rows[1::2]  # those of an image need not be adjacent
    dataset = read_dataset(write_rows(tmp_path, header, rows), strict=True)
    assert dataset.format == "run-length CSV"
    number = {record.path.stem: place for place, record in enumerate(dataset.records)}
    label = None if classes else "object"
    assert masks(dataset, number["one"]) == expected("one", label)
    assert expected("two", label)[0] in masks(dataset, number["two"])
    assert dataset.records[0].path.is_file()


def test_slices_of_scans_are_found_by_their_case_day_and_number(tmp_path: Path) -> None:
    mask = np.zeros((6, 9), dtype=bool)
    mask[2:4, 3:8] = True
    for day in (1, 20):
        folder = tmp_path / "train" / "case2" / f"case2_day{day}" / "scans"
        folder.mkdir(parents=True)
        save_picture(folder / "slice_0004_9_6_1.50_1.50.png", np.full((6, 9), day, dtype=np.uint8))
    row = f"case2_day20_slice_0004,stomach,{runs_of(mask, 'right')}"
    path = write_rows(tmp_path, "id,class,segmentation", [row, "case2_day1_slice_0004,stomach,"])
    for images in (None, tmp_path / "train"):
        dataset = read_dataset(path, images=images, strict=True)
        assert {str(record.image_id): record.path.parent.parent.name for record in dataset.records} == {
            "case2_day20_slice_0004": "case2_day20",
            "case2_day1_slice_0004": "case2_day1",
        }
        assert [len(dataset.annotations(number)) for number in range(2)] == [1, 0]
        assert np.array_equal(dataset.annotations(0).rle(0).dense(), mask)


@pytest.mark.parametrize("empty", ["", "-1", " -1", "NaN"])
def test_images_without_objects_have_an_empty_row(tmp_path: Path, empty: str) -> None:
    save_images(tmp_path, ("one", "two", "three"))
    rows = [f"one,{runs_of(scene()['one'][0].mask)}", f"two,{empty}"]
    path = write_rows(tmp_path, "ImageId,EncodedPixels", rows)
    dataset = read_dataset(path)
    assert [record.count for record in dataset.records] == [1, 0]
    assert "1 image without annotations is left out, first: three.png" in dataset.choices[0]
    assert len(read_dataset(path, hints=Hints(missing="empty"))) == 3


def test_classes_with_attributes_and_described_names(tmp_path: Path) -> None:
    save_images(tmp_path)
    cell = runs_of(scene()["one"][0].mask)
    path = write_rows(tmp_path, "ImageId,EncodedPixels,Height,Width,ClassId", [f"one,{cell},40,56,31_12_45"])
    assert read_dataset(path).categories[0].name == "31"
    (tmp_path / "label_descriptions.json").write_text('{"categories": [{"id": 31, "name": "sleeve"}]}')
    dataset = read_dataset(path)
    assert [(category.id, category.name) for category in dataset.categories] == [(31, "sleeve")]


def test_the_parts_of_a_semantic_mask_become_objects_on_request(tmp_path: Path) -> None:
    save_images(tmp_path)
    whole = np.any([thing.mask for thing in scene()["one"][2:]], axis=0)
    path = write_rows(tmp_path, "ImageId,ClassId,EncodedPixels", [f"one.png,1,{runs_of(whole)}"])
    dataset = read_dataset(path)
    assert [record.count for record in dataset.records] == [1, 0]  # in this layout no row means no object
    assert any("--parts makes each connected part an object" in choice for choice in dataset.choices)
    assert [record.count for record in read_dataset(path, hints=Hints(parts=True)).records] == [3, 0]


def test_square_images_do_not_show_the_order(tmp_path: Path) -> None:
    mask = np.zeros((30, 30), dtype=bool)
    mask[3:9, 5:25] = True
    save_picture(tmp_path / "a.png", np.zeros((30, 30), dtype=np.uint8))
    path = write_rows(tmp_path, "ImageId,EncodedPixels", [f"a,{runs_of(mask, 'right')}"])
    dataset = read_dataset(path)
    assert "square images do not show the order of pixels" in dataset.choices[0]
    assert objects(dataset) == [("object", 120, [3.0, 5.0, 9.0, 25.0])]
    assert objects(read_dataset(path, hints=Hints(order="right"))) == [("object", 120, [5.0, 3.0, 25.0, 9.0])]
    save_picture(tmp_path / "a.png", np.zeros((30, 40), dtype=np.uint8))
    write_rows(tmp_path, "ImageId,EncodedPixels", ["a,1 5 71 5"])
    assert "so few runs do not show the order of pixels" in read_dataset(path).choices[0]


def test_an_order_against_what_the_runs_show_is_said(tmp_path: Path) -> None:
    save_images(tmp_path)
    path = write_rows(tmp_path, "ImageId,EncodedPixels", [f"one,{runs_of(scene()['one'][0].mask)}"])
    dataset = read_dataset(path, hints=Hints(order="right"))
    assert "read with --order right, although the runs look like --order down" in dataset.choices[0]


def test_runs_of_images_of_another_size_are_refused(tmp_path: Path) -> None:
    mask = np.zeros((25, 90), dtype=bool)
    mask[3:9, 5:80] = True
    save_images(tmp_path)
    path = write_rows(tmp_path, "ImageId,EncodedPixels", [f"one,{runs_of(mask)}"])
    with pytest.raises(DataError, match=r"expected run lengths for the images \(56 x 40 pixels\), found .* every 25"):
        read_dataset(path)


def test_columns_can_be_named(tmp_path: Path) -> None:
    save_images(tmp_path)
    path = write_rows(tmp_path, "picture,what,where", [f"one,cell,{runs_of(scene()['one'][0].mask)}"])
    with pytest.raises(DataError, match=r"found a CSV with the columns picture, what, where; .*--columns"):
        read_dataset(path)
    hints = Hints(format="rle-csv", columns=("image=picture", "mask=where", "class=what"))
    assert masks(read_dataset(path, hints=hints)) == expected("one")[:1]
    with pytest.raises(DataError, match=r"--columns: expected one of image, .* found mask=there"):
        read_dataset(path, hints=Hints(format="rle-csv", columns=("mask=there",)))


def test_the_only_table_of_a_folder_is_read_to_say_what_is_wrong_with_it(tmp_path: Path) -> None:
    path = write_rows(tmp_path, "picture,what", ["one,1 2"])
    found = r"a folder with .*; train\.csv is a CSV with the columns picture, what; .*, name its columns with --columns"
    with pytest.raises(DataError, match=found):
        read_dataset(tmp_path)
    with pytest.raises(DataError, match=r"train\.csv: expected a column with the image .*, found picture, what; say"):
        read_dataset(tmp_path, hints=Hints(format="rle-csv"))
    path.write_text(path.read_text(), encoding="utf-16")
    with pytest.raises(DataError, match=r"train\.csv: expected a CSV in UTF-8, its text is UTF-16; save it as UTF-8"):
        read_dataset(tmp_path, hints=Hints(columns=("image=picture", "mask=what")))


BROKEN = {
    "an odd number": ("two,1 2 3", "line 3: expected pairs of start and length, found 3 numbers"),
    "words": ("two,1 two", "line 3: expected run lengths as whole numbers, found '1 two'"),
    "an overlap": ("two,5 9 7 2", "line 3: expected runs in increasing order that do not overlap, found run 1"),
    "outside": ("two,1 2241", "line 3: expected runs inside the 2240 pixels of the image, found one up to 2241"),
    "an empty run": ("two,7 0", "line 3: expected runs of 1 or more pixels, found 0"),
    "too large": (f"two,1 {10**12}", "line 3: expected numbers from 0 to "),
    "no image": (",1 2", "line 3: expected the name of an image, found ''"),
    "one cell": ("two", "line 3: expected 2 or more cells, found 1"),
    "cut by Excel": ("two," + "1 2 " * 8191 + "1 2", "line 3: the run lengths end after 32767 characters"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_row_is_named_with_its_line_and_does_not_stop_the_rest(tmp_path: Path, fault: str) -> None:
    row, words = BROKEN[fault]
    save_images(tmp_path)
    path = write_rows(tmp_path, "ImageId,EncodedPixels", [f"one,{runs_of(scene()['one'][0].mask)}", row])
    dataset = read_dataset(path)
    assert len(dataset.columns["labels"]) == 1
    assert [problem.removeprefix(f"{path}: ")[: len(words)] for problem in dataset.problems] == [words]
    with pytest.raises(DataError, match="line 3") as caught:
        read_dataset(path, strict=True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("row", ["two,5 3,", "two,5 3"])
def test_an_object_without_a_class_beside_numbers_is_left_out(tmp_path: Path, row: str) -> None:
    save_images(tmp_path)
    own = f"one,{runs_of(scene()['one'][0].mask)},3"
    path = write_rows(tmp_path, "ImageId,EncodedPixels,ClassId", [own, row, "two,9 3,4"])
    dataset = read_dataset(path)
    assert dataset.problems == (f"{path}: line 3: expected the number of a class, found ''",)
    assert [record.count for record in dataset.records] == [1, 1]
    assert [category.id for category in dataset.categories] == [3, 4]
    with pytest.raises(DataError, match="line 3: expected the number of a class"):
        read_dataset(path, strict=True)


def test_a_table_of_another_encoding_is_one_error(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_bytes(b"ImageId,EncodedPixels\nb\xe4r,1 2\n")
    with pytest.raises(DataError, match="expected a CSV in UTF-8, found another character at byte 23 in line 2"):
        read_dataset(path)


def test_real_tables(shared: Path) -> None:
    folder = shared / "data" / "formats" / "rle_csv"
    bowl = read_dataset(folder / "dsb2018", strict=True)
    assert [record.count for record in bowl.records] == [15, 6]
    assert objects(bowl)[:2] == [("object", 198, [185, 43, 198, 62]), ("object", 389, [158, 116, 184, 152])]
    cells = read_dataset(folder / "sartorius", strict=True)
    assert objects(cells, "a6515d730778")[:2] == [("shsy5y", *o[1:]) for o in objects(bowl)[:2]]
    assert objects(cells, "8e507d58f4c2")[0] == ("cort", 106, [0, 228, 14, 239])
    steel = read_dataset(folder / "severstal_2019_final", strict=True)
    assert [record.count for record in steel.records] == [3, 3, 0]
    assert objects(steel)[1:] == [("2", 1406, [84, 14, 198, 152]), ("3", 1055, [67, 0, 320, 82])]
    parts = read_dataset(folder / "severstal_2019_final", hints=Hints(parts=True))
    assert [record.count for record in parts.records] == [15, 6, 0]
    lungs = read_dataset(folder / "siim_submission", strict=True)
    assert [sum(record.count == number for record in lungs.records) for number in (0, 1)] == [53, 7]
    assert objects(lungs, "ID_32b4fa7ee") == [("object", 26949, [129, 144, 465, 758])]
    assert lungs.records[0].size == (1024, 1024)
