"""JSON files: what is read, and what each kind of unreadable file is told."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from maskrcnn.errors import DataError
from maskrcnn.files.json_file import json_outline, read_json, read_json_lines


def test_the_content_comes_out(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": [1, "é"]}', encoding="utf-8")
    assert read_json(tmp_path / "a.json", "something") == {"a": [1, "é"]}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_every_encoding_of_json_is_read(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"images": ["é"]}', encoding=encoding)
    outline = json_outline(path)
    assert outline is not None
    assert outline.keys[0] == {"images"}
    assert read_json(path, "something") == {"images": ["é"]}


def test_gzip_is_expanded_within_limits(tmp_path: Path) -> None:
    path = tmp_path / "a.json.gz"
    path.write_bytes(gzip.compress(b'{"images": [1, 2]}'))
    assert read_json(path, "something") == {"images": [1, 2]}
    outline = json_outline(path)
    assert outline is not None
    assert outline.keys[0] == {"images"}
    for content, words in (
        (gzip.compress(b" " * 10**6), "expands to more than 200 times its size"),
        (path.read_bytes()[:-3], "cut off"),
        (b"\x1f\x8bnothing", "broken gzip"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=words):
            read_json(path, "something")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"a\.json: no such file, expected a list"),
        (b"[1, 2", r"a\.json: not JSON .*, expected a list; the file may be truncated"),
        (b"", r"a\.json: not JSON that can be read \(the file is empty\), expected a list; write it again"),
        (b"\xff\xfe", r"a\.json: not JSON"),
        (b'["\xe9"]', r"\(no utf-8 text at byte 2 in line 1\), expected a list; save it as UTF-8"),
        (b'[1,\n"\xe9"]', r"at byte 5 in line 2\), expected a list; save it as UTF-8"),
        (b'["a, 2', r"starting at: line 1 column 2 .*; the file may be truncated"),
        (b'["a", 2,]', r"line 1 column 9 .*, expected a list; correct it there"),
        (b"image,mask\n", r"line 1 column 1 .*, expected a list; name a file of this kind"),
        (b"[1 2]\n", r"line 1 column 4 .*, expected a list; correct it there"),
        (b"[1] 2", r"Extra data: line 1 column 5 .*, expected a list; correct it there"),
        (b"[" * 100_000, r"\(its lists or objects are nested too deeply\), expected a list; write it again"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_json(path, "a list")
    with pytest.raises(DataError, match=r"cannot be read \(Is a directory\)"):
        read_json(tmp_path, "a list")


@pytest.mark.parametrize("content", ['{"a": 1}\n\n{"a": 2}\n', '[{"a": 1}, {"a": 2}]', '\ufeff[{"a": 1},\n{"a": 2}]'])
def test_json_lines_and_a_list_are_read_alike(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.ndjson").write_text(content, "utf-8")
    assert [value for _, value in read_json_lines(tmp_path / "a.ndjson", "rows")] == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_of_json_end_only_where_lines_of_text_do(tmp_path: Path, end: str) -> None:
    """JSON allows some characters inside texts at which Python's `splitlines` divides."""
    names = [f"a{character}b" for character in "\u2028\u2029\x85\x7f"]
    content = "".join(f'{{"a": "{name}"}}{end}' for name in names)
    (tmp_path / "a.ndjson").write_bytes(content.encode())
    rows = list(read_json_lines(tmp_path / "a.ndjson", "rows"))
    assert rows == [(number, {"a": name}) for number, name in enumerate(names, start=1)]


def test_a_broken_line_of_json_stands_in_its_place(tmp_path: Path) -> None:
    path = tmp_path / "a.ndjson"
    path.write_text('{"a": 1}\n{"a":\n3\n')
    first, second, third = read_json_lines(path, "rows")
    assert (first, third) == ((1, {"a": 1}), (3, 3))
    assert isinstance(second[1], DataError)
    path.write_text('{\n  "a": 1\n}')
    assert list(read_json_lines(path, "rows")) == [(1, {"a": 1})]
    path.write_text("{,")
    with pytest.raises(DataError, match=r"a\.ndjson: not JSON .*, expected rows"):
        list(read_json_lines(path, "rows"))
    with pytest.raises(DataError, match=r"b\.ndjson: cannot be read .*, expected rows"):
        list(read_json_lines(path.with_name("b.ndjson"), "rows"))
