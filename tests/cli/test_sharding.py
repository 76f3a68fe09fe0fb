from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import fsspec
import pyarrow.parquet as pq
import pytest

from maskrcnn.scale import parts
from small_data import random_predictor, write_small


@pytest.fixture
def many(tmp_path, monkeypatch):
    """Five images of which one is broken, a model, and the flags that name both."""
    monkeypatch.chdir(tmp_path)
    write_small(tmp_path, "images", 4)
    (tmp_path / "images" / "1b.png").write_bytes(b"no image")
    random_predictor().save("m.safetensors")
    return ("predict", "images", "--model", "m.safetensors", "--precision", "fp32", "--shard-size", 2, "--out")


def rows(folder="o"):
    return pq.read_table(folder).to_pylist()


def as_rows(folder):
    """The rows that predictions.json stands for."""
    found = {}
    for entry in json.loads((Path(folder) / "predictions.json").read_text()):
        found.setdefault(entry["file_name"], []).append(entry)
    return found


@pytest.mark.slow
def test_parts_hold_what_predictions_json_does(command, many):
    ran = command(*many, "o")
    assert ran.code == 0, ran.err
    assert "in 5 images: o\nParquet files: 3 written, 0 kept\nnot read: 1 image" in ran.out
    assert sorted(os.listdir("o")) == ["_manifest.parquet", *(f"part-0000{number}.parquet" for number in range(3))]
    ran = command(*many[:6], "--no-draw", "--out", "plain")
    assert ran.code == 0, ran.err
    expected = as_rows("plain")
    found = rows()
    assert [row["path"] for row in found] == [f"images/{name}.png" for name in ("0", "1", "1b", "2", "3")]
    broken = found.pop(2)
    assert broken["error"] == "images/1b.png: expected an image, found a file of another kind"
    assert (broken["size"], broken["boxes"], broken["masks"]) == (None, [], [])
    for row in found:
        entries = expected[row["path"]]
        assert row["error"] is None
        assert row["scores"] == [entry["score"] for entry in entries]
        assert row["names"] == [{3: "blue", 7: "red"}[entry["category_id"]] for entry in entries]
        assert row["names"] == [("blue", "red")[label] for label in row["labels"]]
        assert [{"size": row["size"], "counts": mask} for mask in row["masks"]] == [e["segmentation"] for e in entries]
        for (x1, y1, x2, y2), entry in zip(row["boxes"], entries, strict=True):
            assert [x1, y1, x2 - x1, y2 - y1] == pytest.approx(entry["bbox"], abs=2e-3)


@pytest.mark.slow
def test_a_second_run_keeps_what_is_whole(command, many, monkeypatch):
    assert command(*many, "o").code == 0
    before = rows()
    middle = Path("o/part-00001.parquet")
    middle.write_bytes(middle.read_bytes()[:-20])
    Path("o/part-00002.parquet").unlink()
    Path("o/.part-00002.0123abcd.tmp.parquet").touch()  # of a process that was killed
    read = []
    monkeypatch.setattr(
        parts, "read_image", lambda path, *more, real=parts.read_image: read.append(path) or real(path, *more)
    )
    ran = command(*many, "o", "--json")
    assert ran.code == 0, ran.err
    summary = json.loads(ran.out)
    assert (summary["written"], summary["kept"], summary["images"], summary["errors"]) == (2, 1, 5, 1)
    assert "part-00001.parquet is truncated, or no part of a run: it is written again" in ran.err
    assert sorted(read) == ["images/1b.png", "images/2.png", "images/3.png"]
    assert rows() == before
    assert len(os.listdir("o")) == 4
    shutil.copy("o/part-00000.parquet", "o/part-00002.parquet")  # of this run, with other images
    ran = command(*many, "o")
    assert "part-00002.parquet is a part of another run" in ran.err
    assert rows() == before


@pytest.mark.slow
def test_another_run_is_refused(command, many):
    assert command(*many, "o").code == 0
    before = rows()
    shutil.copy("images/0.png", "images/9.png")
    ran = command(*many, "o")
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert "with 5 images instead of 6: that run lacks images/9.png" in ran.err
    os.remove("images/9.png")
    for flags, difference in (
        (("--min-score", 0.3), "with --min-score None instead of 0.3"),
        (("--shard-size", 3), "with --shard-size 2 instead of 3"),
        (("--tta",), "with --tta False instead of True"),
    ):
        ran = command(*many, "o", *flags)
        assert (ran.code, ran.err.count("\n")) == (2, 1)
        assert difference in ran.err
    shutil.copy("m.safetensors", "same.safetensors")
    assert command(*many, "o", "--model", "same.safetensors", "--batch-size", 2).code == 0
    content = bytearray(Path("m.safetensors").read_bytes())
    content[-1] ^= 1
    Path("m.safetensors").write_bytes(content)
    ran = command(*many, "o")
    assert (ran.code, "with --model blake2b:" in ran.err) == (2, True)
    assert rows() == before


@pytest.mark.slow
def test_tasks_write_their_own_parts(command, many):
    assert command(*many, "whole").code == 0
    for task, count in (("1/2", 1), ("0/2", 2)):
        ran = command(*many, "o", "--shard", task, "--json")
        assert (ran.code, json.loads(ran.out)["written"]) == (0, count), ran.err
    assert rows() == rows("whole")
    ran = command(*many, "o", "--shard", "5/8")
    assert (ran.code, "nothing to do" in ran.out) == (0, True)


def test_images_of_an_object_store(command, many):
    store = fsspec.filesystem("memory")
    for name in ("0.png", "1b.png"):
        store.pipe(f"/shapes/{name}", Path("images", name).read_bytes())
    try:
        assert command(*many, "local").code == 0
        assert command("predict", "memory://shapes", *many[1:], "o").code == 0
        both = [row for row in rows() if row["path"].startswith("memory:")]
        assert [row["path"] for row in both] == ["memory:///shapes/0.png", "memory:///shapes/1b.png"]
        assert {**both[0], "path": ""} == {**rows("local")[0], "path": ""}
        assert "memory:///shapes/1b.png: expected an image" in both[1]["error"]
    finally:
        store.rm("/shapes", recursive=True)
    ran = command("predict", "memory://shapes", *many[1:4], "--out", "p")
    assert (ran.code, ran.err) == (
        2,
        "error: memory://shapes: expected a path; object stores are read with --parquet\n",
    )
    ran = command("predict", "list.txt", *many[1:4], "--out", "p")
    assert (ran.code, ran.err) == (2, "error: list.txt: expected an image; lists of images are read with --parquet\n")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--shard", "3/2"), "--shard: expected I/N with I from 0 to N - 1, found 3/2"),
        (("--shard", "2/2"), "found 2/2"),
        (("--shard", "0/0"), "found 0/0"),
        (("--shard", "half"), "--shard: expected I/N, from 0/8 to 7/8 for 8 tasks, found half"),
        (("--shard-size", "0"), "--shard-size: expected 1 image or more in a part, found 0"),
        (("--workers", "0"), "--workers: expected 1 process or more, found 0"),
        (("--min-score", "2"), "min score: expected a score from 0 to 1, found 2.0"),
        (("--table", "t.csv"), "--table has no effect on Parquet files, for which --shard-size asks"),
        (("--save", "coco"), "--save has no effect on Parquet files"),
        (("--ray", "images"), "expected an address such as 10.0.0.1:6379 or none, found images"),
        (("--ray", "127.0.0.1:1"), "--ray 127.0.0.1:1: no head of a cluster answers there"),
        (("--out", "images/0.png"), "expected a folder to write to, found a file"),
        (("--out", "s3://bucket/parts"), "expected a folder on a disk"),
        (("--model", "images/0.png"), "images/0.png"),
    ],
)
def test_what_cannot_be_done_is_one_line(command, many, flags, message):
    ran = command(*many, "o", *flags)
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert message in ran.err
    assert not Path("o").exists()


def test_no_images_are_one_line(command, many, tmp_path):
    (tmp_path / "none").mkdir()
    for images, message in (("none", "no images in the folder"), ("no.txt", "no.txt: expected a list of images")):
        ran = command("predict", images, *many[2:], "o")
        assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
        assert message in ran.err


def test_broken_images_alone_are_an_error(command, many):
    ran = command(*many[:1], "images/1b.png", *many[2:], "o")
    assert (ran.code, "no image could be read, of 1;" in ran.err) == (2, True)
    assert "reads them again when the files are deleted" in ran.err
    assert [row["path"] for row in rows()] == ["images/1b.png"]
    ran = command(*many, "p", "--strict")
    assert ran.code == 2
    assert ran.err.splitlines()[-1].startswith("error: images/1b.png: expected an image")


def test_a_disk_that_fills_loses_no_part(command, many, monkeypatch):
    def full(path, content, write=Path.write_bytes):
        if "part-00001" in path.name:
            write(path, bytes(content)[:10])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    ran = command(*many, "o")
    assert ran.code == 2
    assert ran.err.splitlines()[-1].startswith("error: No space left on device: ")
    assert "part-00001.parquet; free the space" in ran.err
    assert sorted(os.listdir("o")) == ["_manifest.parquet", "part-00000.parquet"]
