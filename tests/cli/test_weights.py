from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from maskrcnn.config import Channel, config_to_dict
from maskrcnn.weights.frameworks.torchvision import Torchvision
from maskrcnn.weights.frameworks.torchvision.settings import with_rules
from maskrcnn.weights.model_file import save_model
from maskrcnn.weights.open import open_weights
from small_data import random_predictor, write_small
from small_network import lively_network, network_config


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A small checkpoint of torchvision with two classes."""
    config = with_rules(network_config(num_classes=2).model)
    path = tmp_path_factory.mktemp("weights") / "theirs.pth"
    torch.save(Torchvision().export_state(config, lively_network(config).state_dict()), path)
    return path


@pytest.fixture
def partial(file, tmp_path):
    state = torch.load(file)
    del state["roi_heads.mask_predictor.mask_fcn_logits.bias"]
    torch.save(state | {"extra.weight": torch.zeros(1)}, tmp_path / "partial.pth")
    return tmp_path / "partial.pth"


def test_inspect_says_what_it_is_and_what_was_assumed(command, file):
    ran = command("weights", "inspect", file)
    assert (ran.code, ran.err) == (0, "")
    assert "torchvision: ResNet-10 of width 8, fpn, 2 classes, boxes, masks" in ran.out
    assert "conventions.pixels.kernel bilinear" in ran.out
    assert "conventions.masks.paste expanded_box" in ran.out
    assert "assumed: the 2 classes have no names" in ran.out
    found = json.loads(command("weights", "inspect", file, "--json").out)
    assert found["framework"] == "torchvision"
    assert found["config"]["conventions"]["pixels"]["rounding"] == "floor"
    assert found["problem"] is None


def test_channels_are_not_written_for_frameworks_without_a_stretch(command, tmp_path):
    config = network_config(num_classes=2)
    channels = tuple(Channel(name, "none", mean=0, std=1) for name in ("nir", "red"))
    config = replace(config, image=replace(config.image, channels=channels))
    save_model(tmp_path / "m.safetensors", lively_network(config), config, {})
    ran = command("weights", "convert", tmp_path / "m.safetensors", tmp_path / "m.pth", "--to", "detectron2")
    assert ran.code == 2
    assert "expected a model of RGB for --to detectron2, found one of the channels nir, red" in ran.err
    assert command("weights", "convert", tmp_path / "m.safetensors", tmp_path / "n.safetensors").code == 0


def test_inspect_lists_missing_and_unexpected_tensors(command, partial):
    ran = command("weights", "inspect", partial)
    assert ran.code == 0
    assert "missing: roi_heads.mask.heads.0.predictor.bias" in ran.out
    assert "unexpected: extra.weight" in ran.out


def test_names_with_control_codes_are_printed_as_escapes(command, partial):
    torch.save(torch.load(partial) | {"\x1b[2J\x9bgone": torch.zeros(1)}, partial)
    ran = command("weights", "inspect", partial)
    assert "unexpected: \\x1b[2J\\x9bgone" in ran.out
    refused = command("weights", "convert", partial, partial.with_name("m.safetensors"))
    assert "\\x1b[2J\\x9bgone" in refused.err
    assert not {"\x1b", "\x9b"} & set(ran.out + refused.err)


def test_inspect_of_another_family(command, tmp_path):
    torch.save({"model.0.conv.weight": torch.zeros(2, 3)}, tmp_path / "yolo.pt")
    ran = command("weights", "inspect", tmp_path / "yolo.pt")
    assert ran.code == 2
    assert "torch, 1 tensors" in ran.out
    assert "YOLO" in ran.err
    assert ran.err.count("\n") == 1
    ran = command("weights", "inspect", tmp_path / "yolo.pt", "--json")
    assert "YOLO" in json.loads(ran.out)["problem"]


def test_convert_and_back_is_the_same_bit_for_bit(command, file, tmp_path):
    ours, theirs, again = (tmp_path / name for name in ("m.safetensors", "m.pth", "again.safetensors"))
    ran = command("weights", "convert", file, ours)
    assert ran.code == 0
    assert "assumed: " in ran.err
    ran = command("weights", "convert", ours, theirs, "--to", "torchvision")
    assert (ran.code, ran.err) == (0, "")  # of our own file nothing is assumed
    assert command("weights", "convert", theirs, again).code == 0
    first, second = open_weights(ours), open_weights(again)
    assert config_to_dict(first[1]) == config_to_dict(second[1])
    for name, value in first[0].state_dict().items():
        assert torch.equal(value, second[0].state_dict()[name]), name


def test_convert_names_the_settings_that_an_export_cannot_hold(command, tmp_path):
    from maskrcnn.weights.model_file import save_model

    config = network_config()
    save_model(tmp_path / "m.safetensors", lively_network(config), config, {})
    ran = command("weights", "convert", tmp_path / "m.safetensors", tmp_path / "m.pth", "--to", "torchvision")
    assert ran.code == 0
    assert (
        "not in the file: conventions.pixels.kernel is 'antialias', and torchvision's default is 'bilinear'" in ran.err
    )


def test_convert_of_a_partial_file(command, partial, tmp_path):
    ran = command("weights", "convert", partial, tmp_path / "m.safetensors")
    assert ran.code == 2
    assert ran.err.count("\n") == 1
    assert "mask_fcn_logits.bias" in ran.err
    assert "extra.weight" in ran.err
    assert not (tmp_path / "m.safetensors").exists()
    ran = command("weights", "convert", partial, tmp_path / "m.safetensors", "--allow-partial")
    assert ran.code == 0
    assert "initialised anew: roi_heads.mask.heads.0.predictor.bias\n" in ran.err
    assert "left out: extra.weight\n" in ran.err


@pytest.fixture
def pair(partial, file, tmp_path):
    """A student and its teacher, which lacks a tensor."""
    torch.save({"student": torch.load(file), "teacher": torch.load(partial)}, tmp_path / "pair.pth")
    return tmp_path / "pair.pth"


@pytest.fixture
def commands(pair, tmp_path):
    """The arguments of every command that opens a model, without those that say how."""
    write_small(tmp_path, "images", 1)
    return {
        "inspect": ("weights", "inspect", pair),
        "convert": ("weights", "convert", pair, tmp_path / "m.safetensors"),
        "predict": ("predict", tmp_path / "images", "--model", pair, "--out", tmp_path / "o", "--no-draw"),
        "evaluate": ("evaluate", "--data", tmp_path / "images.json", "--model", pair),
        "export": ("export", tmp_path / "m.onnx", "--model", pair),
        "serve": ("serve", "--model", pair, "--port", 0),
        "train": ("train", tmp_path / "images.json", "--weights", pair, "--out", tmp_path / "run"),
        "ablate": (
            *("ablate", tmp_path / "images.json", "--val", tmp_path / "images.json", "--weights", pair),
            *("--out", tmp_path / "rows", "--tables", "backbone"),
        ),
    }


@pytest.mark.parametrize("name", ["inspect", "convert", "predict", "evaluate"])
def test_every_command_opens_a_part_of_a_file(command, commands, tmp_path, name):
    categories = [{"id": 3, "name": "blue"}, {"id": 7, "name": "red"}]
    settings = {"min_size": 64, "max_size": 96, "categories": categories}
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    flags = ["--config", tmp_path / "settings.json", *(["--allow-partial"] if name != "inspect" else [])]
    ran = command(*commands[name], "--part", "teacher", *flags)
    assert ran.code == 0, ran.err
    said = ran.out if name == "inspect" else ran.err
    assert "roi_heads.mask.heads.0.predictor.bias" in said  # the tensor that the teacher lacks
    assert "sizes, anchors and thresholds are torchvision's defaults" not in said


@pytest.mark.parametrize("name", ["inspect", "convert", "predict", "evaluate", "export", "serve", "train", "ablate"])
def test_the_flags_that_an_error_names_are_those_of_the_command(command, commands, name):
    ran = command(*commands[name])
    assert ran.code == 2
    assert "found those of 'student', 'teacher'; to choose one: --part student" in ran.err
    if name != "inspect":
        ran = command(*commands[name], "--part", "teacher")
        assert ran.code == 2
        assert "to continue without them: --allow-partial" in ran.err
    every = "--help" if name in ("inspect", "convert", "export", "serve") else "--help-all"
    text = command(*commands[name][: 2 if name in ("inspect", "convert") else 1], every).out
    assert "--part" in text
    assert ("--allow-partial" in text) == (name != "inspect")


@pytest.mark.parametrize(
    ("out", "flags", "expected"),
    [
        ("m.pth", (), "expected .safetensors, the ending of a model file"),
        ("m.pth", ("--to", "caffe"), "expected one of maskrcnn, torchvision"),
    ],
)
def test_convert_to_what_cannot_be(command, file, tmp_path, out, flags, expected):
    ran = command("weights", "convert", file, tmp_path / out, *flags)
    assert ran.code == 2
    assert expected in ran.err


def test_list_and_its_words(command):
    every = command("weights", "list").out.splitlines()
    assert len(every) > 60
    some = command("weights", "list", "torchvision", "mask").out.splitlines()
    assert [line.split()[0] for line in some[1:]] == [
        "torchvision/maskrcnn_resnet50_fpn",
        "torchvision/maskrcnn_resnet50_fpn_v2",
    ]
    assert "37.9  34.6     -   170  BSD-3-Clause" in some[1]
    found = json.loads(command("weights", "list", "keypoint", "R_101", "--json").out)
    assert list(found) == ["detectron2/COCO-Keypoints/keypoint_rcnn_R_101_FPN_3x"]
    assert found["detectron2/COCO-Keypoints/keypoint_rcnn_R_101_FPN_3x"]["keypoint_ap"] == 66.1


def test_predict_takes_a_foreign_file(command, file, tmp_path):
    from PIL import Image

    Image.new("RGB", (60, 40), (90, 20, 200)).save(tmp_path / "a.png")
    (tmp_path / "settings.json").write_text('{"min_size": 64, "max_size": 96}')
    args = ("predict", tmp_path / "a.png", "--model", file, "--out", tmp_path / "o", "--no-draw")
    ran = command(*args, "--config", tmp_path / "settings.json")
    assert ran.code == 0
    assert "assumed: the 2 classes have no names" in ran.err
    assert (tmp_path / "o" / "predictions.json").exists()


def test_a_list_of_nothing_is_an_error(command):
    ran = command("weights", "list", "torchvision", "yolo")
    assert (ran.code, ran.out) == (2, "")
    assert "no model has torchvision and yolo in its name" in ran.err


def test_the_list_begins_with_the_models_that_ship(command):
    assert command("weights", "list").out.startswith("nuclei  ships with the package: ")
    assert command("weights", "list", "nucl").out.count("\n") == 1
    found = json.loads(command("weights", "list", "nuclei", "--json").out)
    assert found["nuclei"]["file"].endswith("nuclei.safetensors")


def test_convert_to_half_the_size(command, file, tmp_path):
    whole, half = tmp_path / "whole.safetensors", tmp_path / "half.safetensors"
    assert command("weights", "convert", file, whole).code == 0
    assert command("weights", "convert", whole, half, "--half").code == 0
    assert half.stat().st_size < 0.6 * whole.stat().st_size
    ran = command("weights", "convert", whole, tmp_path / "m.pth", "--to", "torchvision", "--half")
    assert ran.code == 2
    assert "--half belongs to model files" in ran.err


@pytest.mark.parametrize("flags", [(), ("--to", "torchvision")])
def test_convert_does_not_overwrite_its_source(command, tmp_path, flags):
    file = tmp_path / "m.safetensors"
    random_predictor().save(file)
    before = file.read_bytes()
    ran = command("weights", "convert", file, file, *flags)
    assert (ran.code, ran.out) == (2, "")
    assert "expected a file to write, found one that is read" in ran.err
    assert file.read_bytes() == before
