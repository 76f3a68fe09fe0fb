"""JSON files: what is read, and what each kind of unreadable file is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from maskrcnn.errors import DataError
from maskrcnn.files.json_file import read_json


def test_the_content_comes_out(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": [1, "é"]}', encoding="utf-8")
    assert read_json(tmp_path / "a.json", "something") == {"a": [1, "é"]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"a\.json: no such file, expected a list"),
        (b"[1, 2", r"a\.json: not JSON .*, expected a list; the file may be truncated"),
        (b"\xff\xfe", r"a\.json: not JSON"),
        (b"[" * 100_000, r"a\.json: not JSON"),
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
