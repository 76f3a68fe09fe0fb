from __future__ import annotations

import pytest

from small_data import random_predictor, write_small


@pytest.mark.parametrize("taken", ["m.safetensors", "images.json"])
def test_what_an_export_reads_is_not_overwritten(command, tmp_path, taken):
    random_predictor().save(tmp_path / "m.safetensors")
    write_small(tmp_path, "images", 8)
    before = (tmp_path / taken).read_bytes()
    words = ["--precision", "int8", "--calibrate", tmp_path / "images", "--data", tmp_path / "images.json"]
    ran = command("export", "--model", tmp_path / "m.safetensors", *words, tmp_path / taken)
    assert ran.code == 2
    assert (
        ran.err == f"error: {tmp_path / taken}: expected a file to write, found one that is read; choose another path\n"
    )
    assert (tmp_path / taken).read_bytes() == before


@pytest.mark.parametrize("name", ["model", "model.pt2", "model.xml"])
def test_an_onnx_file_has_the_name_of_one(command, tmp_path, name):
    ran = command("export", "--model", tmp_path / "m.safetensors", tmp_path / name)
    assert ran.code == 2
    assert ran.err == (
        f"error: {tmp_path / name}: expected a name that ends in .onnx; --format openvino writes a folder, "
        "--format torch a file whose name ends in .pt2\n"
    )
