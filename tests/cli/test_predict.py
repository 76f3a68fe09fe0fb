from __future__ import annotations

import pytest

from maskrcnn.cli import predict
from maskrcnn.predict.backend import TorchBackend
from small_data import random_predictor, write_small


def test_flags():
    parsed = predict.parse(["--model", "m.safetensors", "a.jpg", "photos/*.png", "--out", "o", "--no-draw"])
    assert parsed.images == ("a.jpg", "photos/*.png")
    assert parsed.draw is False
    assert predict.parse(["a.jpg", "--model", "m", "--out", "o"]).draw is True


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_batches_and_precision_reach_the_network(command, tmp_path, monkeypatch, precision):
    write_small(tmp_path, "images", 3)
    random_predictor().save(tmp_path / "m.safetensors")
    seen = []
    detect = TorchBackend.detect

    def noted(self, images, settings):
        seen.append((self.precision, len(images)))
        return detect(self, images, settings)

    monkeypatch.setattr(TorchBackend, "detect", noted)
    words = ["--model", tmp_path / "m.safetensors", "--batch-size", 2, "--precision", precision]
    ran = command("predict", tmp_path / "images", "--out", tmp_path / "o", "--no-draw", *words)
    assert ran.code == 0, ran.err
    assert seen == [(precision, 2), (precision, 1)]
    seen.clear()
    assert command("evaluate", "--data", tmp_path / "images.json", *words).code == 0
    assert seen == [(precision, 2), (precision, 1)]


@pytest.mark.parametrize("wrong", ["no/such.jpg", "no/such/*.jpg"])
def test_missing_images_are_one_line(command, tmp_path, wrong):
    ran = command("predict", wrong, "--model", tmp_path / "m.safetensors", "--out", tmp_path / "o")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error: ")
    assert wrong in ran.err
    assert ran.err.count("\n") == 1
