from __future__ import annotations

import pytest

from maskrcnn.cli import predict


def test_flags():
    parsed = predict.parse(["--model", "m.safetensors", "a.jpg", "photos/*.png", "--out", "o", "--no-draw"])
    assert parsed.images == ("a.jpg", "photos/*.png")
    assert parsed.draw is False
    assert predict.parse(["a.jpg", "--model", "m", "--out", "o"]).draw is True


@pytest.mark.parametrize("wrong", ["no/such.jpg", "no/such/*.jpg"])
def test_missing_images_are_one_line(command, tmp_path, wrong):
    ran = command("predict", wrong, "--model", tmp_path / "m.safetensors", "--out", tmp_path / "o")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error: ")
    assert wrong in ran.err
    assert ran.err.count("\n") == 1
