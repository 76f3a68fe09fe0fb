from __future__ import annotations

import zipfile

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from maskrcnn.errors import ConfigError, DataError, ImageError, MissingPackageError
from maskrcnn.scale.inputs import listed_images, read_address


@pytest.fixture
def bucket():
    store = fsspec.filesystem("memory")
    for name in ("b.png", "deep/a.JPG", "deep/notes.txt"):
        store.pipe(f"/bucket/{name}", b"content of " + name.encode())
    yield "memory://bucket"
    store.rm("/bucket", recursive=True)


def test_images_of_all_inputs_are_sorted_and_listed_once(tmp_path, monkeypatch, bucket):
    monkeypatch.chdir(tmp_path)
    for name in ("c.png", "a.png", "in/b.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert listed_images(["."]) == ("a.png", "c.png", "in/b.jpg")
    assert listed_images(["c.png", "*.png", "in"]) == ("a.png", "c.png", "in/b.jpg")
    assert listed_images([bucket]) == ("memory:///bucket/b.png", "memory:///bucket/deep/a.JPG")
    assert listed_images([f"{bucket}/deep/*.JPG", "a.png"]) == ("a.png", "memory:///bucket/deep/a.JPG")
    assert listed_images([f"{bucket}/deep/notes.txt"]) == ("content of deep/notes.txt",)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("in/x.png", b"content of x")
    inside = f"zip://in/x.png::file://{tmp_path}/a.zip"
    for address in (inside, f"zip://in/*.png::file://{tmp_path}/a.zip"):
        assert listed_images([address]) == (inside,)
    assert read_address(inside) == b"content of x"
    assert listed_images([f"simplecache::{bucket}/b.png"]) == ("memory:///bucket/b.png",)
    assert listed_images([f"file://{tmp_path}/in"]) == (f"file://{tmp_path}/in/b.jpg",)


@pytest.mark.parametrize("suffix", ["txt", "csv", "parquet"])
def test_lists_of_each_kind(tmp_path, monkeypatch, suffix):
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "near.png").touch()
    (tmp_path / "far.png").touch()
    monkeypatch.chdir(tmp_path)

    def write(*paths):
        file = tmp_path / "lists" / f"images.{suffix}"
        if suffix == "parquet":
            pq.write_table(pa.table({"id": list(range(len(paths))), "path": list(paths)}), file)
        else:
            lines = [f'{number},"{path}"' for number, path in enumerate(paths)] if suffix == "csv" else list(paths)
            file.write_text("\n".join(["\ufeffid,path", *lines, ""] if suffix == "csv" else ["", *lines]))
        return [f"lists/images.{suffix}"]

    assert listed_images(write("far.png", "/b.png", "far.png", "s3://x/y")) == ("/b.png", "far.png", "s3://x/y")
    assert listed_images(write("near.png", "/b.png")) == ("/b.png", "lists/near.png")
    assert listed_images(write("nowhere.png")) == ("nowhere.png",)
    with pytest.raises(DataError, match="expected a list of images, found an empty one"):
        listed_images(write())


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_names_in_lists_may_have_any_character_but_the_end_of_a_line(tmp_path, end):
    names = tuple(f"/a{character}b.png" for character in "\x0b\x1c\x85\u2028\u2029")
    (tmp_path / "images.txt").write_bytes(end.join(names).encode())
    assert listed_images([str(tmp_path / "images.txt")]) == names


def test_lists_that_cannot_be_read_are_named(tmp_path, bucket):
    pq.write_table(pa.table({"file": ["a.png"]}), tmp_path / "no_path.parquet")
    pq.write_table(pa.table({"path": [1]}), tmp_path / "numbers.parquet")
    pq.write_table(pa.table({"path": ["a.png", None]}), tmp_path / "missing.parquet")
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "missing.parquet").read_bytes()[:-9])
    (tmp_path / "other.csv").write_text("image,label\na.png,1\n")
    (tmp_path / "latin.txt").write_bytes("größe.png".encode("latin-1"))
    for name, message in (
        ("no_path.parquet", "expected a column 'path', found 'file'"),
        ("numbers.parquet", "expected a path in row 1 of column 'path', found 1"),
        ("missing.parquet", "expected a path in row 2 of column 'path', found None"),
        ("cut.parquet", "expected a list of images as parquet"),
        ("other.csv", "expected a column 'path', found 'image', 'label'"),
        ("latin.txt", "expected a list of images as txt"),
        ("none.txt", "expected a list of images, found none"),
    ):
        with pytest.raises(DataError, match=message) as raised:
            listed_images([str(tmp_path / name)])
        assert name in str(raised.value)
    with pytest.raises(DataError, match=r"none\.txt: expected a list of images, found none"):
        listed_images([f"{bucket}/none.txt"])


def test_stores_that_do_not_answer_are_named(tmp_path, bucket, monkeypatch):
    for address in (f"{bucket}/none", f"{bucket}/*.gif", f"file://{tmp_path}"):
        with pytest.raises(ImageError, match="found no image there"):
            listed_images([address])
    assert read_address(f"{bucket}/b.png") == b"content of b.png"
    for name in ("none.png", "deep"):
        with pytest.raises(ImageError, match="expected an image, found nothing there"):
            read_address(f"{bucket}/{name}")
    with pytest.raises(ConfigError, match="nosuch://bucket: the store cannot be read"):
        listed_images(["nosuch://bucket"])

    def lost(*arguments, **options):
        raise TimeoutError("no answer\nfor 60 s")

    monkeypatch.setattr(fsspec, "open", lost)
    with pytest.raises(ConfigError, match=r"b\.png: the store cannot be read \(no answer for 60 s\)"):
        read_address(f"{bucket}/b.png")

    def uninstalled(*arguments, **options):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "open", uninstalled)
    with pytest.raises(MissingPackageError, match="Install s3fs"):
        read_address("s3://bucket/b.png")


def test_a_name_that_parquet_cannot_hold_is_refused(tmp_path):
    (tmp_path / "b\udcff.png").touch()
    with pytest.raises(ImageError, match="expected a name in UTF-8"):
        listed_images([str(tmp_path)])
