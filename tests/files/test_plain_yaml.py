from __future__ import annotations

import time
from pathlib import Path

import pytest

from maskrcnn.errors import ConfigError
from maskrcnn.files.plain_yaml import MAX_CHARACTERS, parse_yaml, read_yaml

DOUBLING = "a0: &a0 {x: 1}\n" + "\n".join(f"a{i}: &a{i} {{l: *a{i - 1}, r: *a{i - 1}}}" for i in range(1, 30))
MERGING = "a0: &a0 {x: 1}\n" + "\n".join(f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}" for i in range(1, 30))


def test_plain_data() -> None:
    text = "train: {steps: 5, learning_rate: 1e-4}\nsizes: &s [8, 16.5]\nagain: *s\nnone: null\nword: none\nyes: true\n"
    assert parse_yaml(text, "a.yaml") == {
        "train": {"steps": 5, "learning_rate": 1e-4},
        "sizes": [8, 16.5],
        "again": [8, 16.5],
        "none": None,
        "word": "none",
        True: True,
    }
    assert parse_yaml("# nothing\n", "a.yaml") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train:\n  steps: [1, 2\n", r"^a\.yaml, line 3: expected YAML, expected ',' or '\]'"),
        ("train:\n\tsteps: 1\n", r"^a\.yaml, line 2: expected YAML, found character '\\t'"),
        ("a: *nowhere\n", r"^a\.yaml, line 1: expected YAML, found undefined alias"),
        ("a: !!python/object/apply:os.system [ls]\n", r"^a\.yaml, line 1: .*could not determine a constructor"),
        ("a: 1\nb:\n  c: 1\n  c: 2\n", r"^a\.yaml, line 3: c is given twice"),
        (
            "a: &a [*a]\n",
            r"^a\.yaml, line 1: expected aliases of other values, found one inside the value that it names",
        ),
        ("a: 1\n---\nb: 2\n", r"^a\.yaml, line 2: expected YAML, but found another document"),
        ("a: \x00\n", r"^a\.yaml: expected YAML, unacceptable character"),
        ("a: 2001-99-99\n", r"^a\.yaml: expected YAML, month must be in 1\.\.12"),
        (f"a: {'9' * 5000}\n", r"^a\.yaml, line 1: expected a number, found one of 5000 characters"),
        (f"a: 0x{'f' * 5000}\n", r"^a\.yaml, line 1: expected a number, found one of 5002 characters"),
        ("[" * 5000, "^a.yaml: expected settings, found lists nested too deeply"),
        (DOUBLING, r"^a\.yaml, line \d+: expected at most 100,000 values"),
        (f"a: &a {'x' * 50_000}\nb: [{'*a, ' * 100}]", r"^a\.yaml, line 2: expected at most 100,000 values"),
        (MERGING, r"^a\.yaml, line \d+: expected at most 100,000 values"),
    ],
)
def test_what_is_refused_and_where(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        parse_yaml(text, "a.yaml")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"a\.yaml: expected a YAML file, but it cannot be read \(No such file or directory\)$"),
        (b"\xff\xfe\xfa", r"cannot be read \(.*decode"),
        (b"a: " + b"x" * (1 << 20), "at most 131,072 characters"),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "a.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        read_yaml(path)


def test_many_keys_take_little_time() -> None:
    """Counting each of n keys among all would take minutes."""
    keys = [f"{i:x}" for i in range(MAX_CHARACTERS // 20)]
    start = time.process_time()
    assert len(parse_yaml("\n".join(f"k{key}: 1" for key in keys), "a.yaml")) == len(keys)
    assert time.process_time() - start < 10


def test_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("image: {scale: 2}\n")
    assert read_yaml(tmp_path / "a.yaml") == {"image": {"scale": 2}}
