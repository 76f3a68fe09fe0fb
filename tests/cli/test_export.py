from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from maskrcnn.cli.calibrating import Calibrating
from maskrcnn.export import save
from maskrcnn.export.check import Exactness
from maskrcnn.models.build import build_model
from maskrcnn.predict import Predictor, TorchBackend
from small_data import random_predictor, small_config, write_small


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


@pytest.mark.parametrize(
    ("name", "form", "expected"),
    [
        ("model", "onnx", "a name that ends in .onnx for --format onnx"),
        ("model.pt2", "onnx", "a name that ends in .onnx for --format onnx"),
        ("model.onnx", "torch", "a name that ends in .pt2 for --format torch"),
        ("model.xml", "openvino", "the name of a folder for --format openvino, found a file's"),
    ],
)
def test_the_name_of_an_export_fits_its_format(command, tmp_path, name, form, expected):
    ran = command("export", "--model", tmp_path / "m.safetensors", "--format", form, tmp_path / name)
    assert ran.code == 2
    assert ran.err == (
        f"error: {tmp_path / name}: expected {expected}; --format onnx writes a file .onnx, --format torch a file "
        ".pt2, --format openvino a folder\n"
    )


def test_a_place_and_a_package_are_asked_for_before_the_work(command, tmp_path, monkeypatch):
    random_predictor().save(tmp_path / "m.safetensors")
    data = write_small(tmp_path, "images", 8)
    flags = ["--precision", "int8", "--calibrate", tmp_path / "images", "--data", data]
    monkeypatch.setattr(Calibrating, "start", lambda *arguments: pytest.fail("the model is measured"))
    words = ["export", "--model", tmp_path / "m.safetensors", *flags, "--format", "openvino"]
    taken = command(*words, tmp_path)
    assert (taken.code, taken.err.count("\n")) == (2, 1)
    assert f"{tmp_path}: expected a new folder, or one of an earlier export, found images in it" in taken.err
    monkeypatch.setitem(sys.modules, "nncf", None)
    missing = command(*words, tmp_path / "new")
    assert (missing.code, missing.err.count("\n")) == (2, 1)
    assert "--precision int8 needs nncf, which is missing: pip install 'maskrcnn[int8]'" in missing.err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("norm", "form", "noted"), [("group_norm", "onnx", 1), ("group_norm", "openvino", 0), ("none", "onnx", 0)]
)
def test_int8_without_a_gain_in_speed_is_noted_before_the_work(command, tmp_path, monkeypatch, norm, form, noted):
    config = small_config()
    config = replace(config, model=replace(config.model, fpn_norm=norm))
    Predictor(TorchBackend(build_model(config).eval()), config).save(tmp_path / "m.safetensors")
    monkeypatch.setattr(save, "require_packages", lambda *arguments, **options: None)
    monkeypatch.setattr(Calibrating, "start", lambda *arguments: None)
    monkeypatch.setattr(save, "export_model", lambda *arguments, **options: Exactness(1, 0, 0, 0, 1, 0))
    flags = ["--precision", "int8", "--calibrate", tmp_path, "--format", form]
    ran = command(
        "export", "--model", tmp_path / "m.safetensors", *flags, tmp_path / ("m.onnx" if form == "onnx" else "m")
    )
    assert ran.code == 0
    assert ran.err.count("computes models with group norm in int8 no faster than in fp32") == noted
