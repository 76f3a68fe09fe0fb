"""Files of every format, cut off and changed at random: each is read, or refused in one line."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from maskrcnn.data.formats import FORMATS, read_dataset
from maskrcnn.data.hints import Hints
from maskrcnn.errors import DataError
from small_formats import write_format
from small_scene import SIZE

MUTATIONS = 60
VALUES = ("null", "true", "-1", "1e999", "NaN", '""', "{}", "[]", "9" * 20, "0", '"a"', "[[1, 2]]", "4294967295", "0.5")
TOKEN = re.compile(r'-?\d+(\.\d+)?|"[^"]*"|\[[^\[\]]*\]|\{[^{}]*\}')


def changed(content: bytes, dice: random.Random) -> bytes:
    """The content cut off, with a byte or a stretch changed, or with another value in the place of one."""
    at, end = dice.randrange(len(content)), dice.randrange(1, 60)
    kind = dice.randrange(6)
    if kind == 0:
        return content[:at]
    if kind == 1:
        return content[:at] + bytes([dice.randrange(256)]) + content[at + 1 :]
    if kind == 2:
        return content[:at] + content[at + end :]
    text = content.decode("latin-1")
    places = list(TOKEN.finditer(text))
    if not places:
        return content[: at + end] + content[at:]
    place = dice.choice(places)
    return (text[: place.start()] + dice.choice(VALUES) + text[place.end() :]).encode("latin-1")


@pytest.mark.parametrize("key", [format.key for format in FORMATS])
def test_a_changed_file_is_read_or_refused_in_one_line(tmp_path: Path, key: str) -> None:
    file, folder = write_format(tmp_path, key)
    content = file.read_bytes()
    hints = Hints(format=key)  # type: ignore[arg-type]
    assert len(read_dataset(folder, hints=hints))
    refused = []
    for seed in range(MUTATIONS):
        file.write_bytes(changed(content, random.Random(f"{key} {seed}")))
        try:
            dataset = read_dataset(folder, hints=hints)
        except DataError as error:
            refused.append(error.args[0])
            continue
        for index in range(len(dataset)):
            for mask in dataset.annotations(index).masks():
                assert mask is None or mask.size in (SIZE, SIZE[::-1]), seed
    assert [message for message in refused if "\n" in message] == []
