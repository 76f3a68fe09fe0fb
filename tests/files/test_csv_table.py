"""Tables in text files: separators, quotes, long cells, and what cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from maskrcnn.errors import DataError
from maskrcnn.files.csv_table import csv_beginning, csv_rows, text_fault


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_separators_quotes_and_spaces(tmp_path: Path, separator: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text("\ufeff" + separator.join(["image", " mask"]) + "\n\n" + separator.join(['"a, b"', " 1 2 "]) + "\n")
    assert list(csv_rows(path)) == [(1, ["image", "mask"]), (3, ["a, b", "1 2"])]
    assert csv_beginning(path)[0] == ["image", "mask"]


def test_a_cell_may_be_long(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("image,mask\na," + "1 " * 200_000 + "\n")
    assert len(list(csv_rows(path))[1][1][1]) == 399_999
    assert csv_beginning(path)[0] == ["image", "mask"]


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"image\n\xff\n")
    with pytest.raises(
        DataError, match=r"a\.csv: expected a CSV in UTF-8, found another character at byte 6 in line 2;"
    ):
        list(csv_rows(path))
    path.write_text("image,mask", encoding="utf-16")
    with pytest.raises(DataError, match=r"a\.csv: expected a CSV in UTF-8, its text is UTF-16; save it as UTF-8"):
        list(csv_rows(path))
    assert csv_beginning(path) == [], "no row of the bytes between the letters"
    with pytest.raises(DataError, match=r"cannot be read \(Is a directory\), expected a CSV"):
        list(csv_rows(tmp_path))
    assert csv_beginning(tmp_path) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the file is empty"),
        (b" \n", "the file is empty"),
        ("image,mask".encode("utf-16"), "its text is UTF-16; save it as UTF-8"),
        ("image,mask".encode("utf-16-be"), "its text is UTF-16; save it as UTF-8"),
        ("image,mask".encode("utf-16-le"), "its text is UTF-16; save it as UTF-8"),
        ("image,mask".encode("utf-8-sig"), ""),
        (b"i", ""),
    ],
)
def test_what_is_no_text_is_named(content: bytes, said: str) -> None:
    assert text_fault(content).startswith(said)
    assert bool(text_fault(content)) == bool(said)
