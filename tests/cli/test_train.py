from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from maskrcnn.cli import train
from maskrcnn.config import Config
from maskrcnn.config.presets import PRESETS, preset
from maskrcnn.errors import ConfigError
from small_data import write_small

BASE = ["d.json", "--out", "runs/x"]


def test_flags_default_to_the_preset():
    kinds = {parts(preset(name)): name for name in PRESETS}  # the flags of a part are the same in all presets
    assert len(kinds) > 5
    for name in kinds.values():
        assert train.parse([*BASE, "--preset", name]).settings.config == preset(name)
    assert train.parse(BASE).settings.config == preset(train.DEFAULT_PRESET)
    assert train.parse([*BASE, "--preset=mask_rcnn_tiny"]).settings.config == preset("mask_rcnn_tiny")


def test_flags_change_single_fields_of_the_preset():
    flags = (
        "--train.steps 500 --image.scale 1.5 --model.detect.max-detections 200 --augment.crop 256 320 "
        "--model.mask-head.convs 2 --train.optimizer adamw --augment.quarter-turns --train.clip-norm None"
    )
    config = train.parse([*BASE, *flags.split()]).settings.config
    expected = preset(train.DEFAULT_PRESET)
    assert config.model.mask_head is not None
    assert config == dataclasses.replace(
        expected,
        model=dataclasses.replace(
            expected.model,
            detect=dataclasses.replace(expected.model.detect, max_detections=200),
            mask_head=dataclasses.replace(expected.model.mask_head, convs=2),
        ),
        image=dataclasses.replace(expected.image, scale=1.5),
        augment=dataclasses.replace(expected.augment, crop=(256, 320), quarter_turns=True),
        train=dataclasses.replace(expected.train, steps=500, optimizer="adamw", clip_norm=None),
    )


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("8 16 32 64 128", ((8.0,), (16.0,), (32.0,), (64.0,), (128.0,))),
        ("8,12 16,24 32,48 64,96 128,192.5", ((8, 12), (16, 24), (32, 48), (64, 96), (128, 192.5))),
    ],
)
def test_anchor_sizes_of_each_level(text, sizes):
    assert train.parse([*BASE, "--model.anchors.sizes", *text.split()]).settings.config.model.anchors.sizes == sizes


def parts(value: object, path: str = "") -> frozenset[str]:
    """The dataclasses that a config is made of, by their places."""
    if not dataclasses.is_dataclass(value):
        return frozenset()
    below = (parts(getattr(value, field.name), f"{path}.{field.name}") for field in dataclasses.fields(value))
    return frozenset({f"{path} {type(value).__name__}"}).union(*below)


def leaves(value: object, path: str = "") -> list[str]:
    if not dataclasses.is_dataclass(value):
        return [path]
    return [
        leaf
        for field in dataclasses.fields(value)
        for leaf in leaves(getattr(value, field.name), f"{path}.{field.name}".lstrip("."))
    ]


@pytest.mark.slow
def test_every_field_of_the_config_is_a_flag(command):
    text = command("train", "--help-all").out
    from_the_data = {"categories"}
    flags = {"--" + leaf.replace("_", "-") for leaf in leaves(Config()) if leaf not in from_the_data}
    flags = {flag for flag in flags if not flag.startswith("--conventions.")}
    assert len(flags) > 60
    parts = {"--model.keypoint-head", "--model.mask-head.point-rend"}  # None here: flags of the presets that have them
    assert [flag for flag in sorted(flags - parts) if flag not in text] == []


@pytest.mark.parametrize(
    ("preset_name", "flag"),
    [
        ("keypoint_rcnn_R_50_FPN", "--model.keypoint-head.channels"),
        ("pointrend_rcnn_R_50_FPN", "--model.mask-head.point-rend.train-points"),
        ("mask_rcnn_ConvNeXt_T_FPN", "--model.backbone.name"),
        ("cascade_mask_rcnn_R_50_FPN", "--model.box-head.cascade-ious"),
    ],
)
def test_parts_of_a_preset_have_flags(command, preset_name, flag):
    assert flag in command("train", "--preset", preset_name, "--help-all").out


def test_an_unknown_preset_names_the_nearest(command):
    ran = command("train", *BASE, "--preset", "mask_rcnn_R50_FPN")
    assert ran.code == 2
    assert ran.err.startswith("error: unknown preset 'mask_rcnn_R50_FPN'; nearest: mask_rcnn_R_50_FPN")
    assert ran.err.count("\n") == 1


def test_an_impossible_setting_is_refused_with_its_reason(command):
    ran = command("train", *BASE, "--train.steps", "-1")
    assert ran.code == 2
    assert "train.steps must be a whole number from 1 to 1000000000, found -1" in " ".join(ran.err.split())


def test_a_flag_with_a_slip_names_the_nearest(command):
    ran = command("train", *BASE, "--train.stepss", "9")
    assert ran.code == 2
    assert "--train.steps" in ran.err


def test_a_folder_of_validation_images_needs_their_annotations(command):
    ran = command("train", *BASE, "--val-images", "photos")
    assert (ran.code, ran.out, ran.err) == (2, "", "error: expected --val with --val-images, found none\n")


def test_the_command_that_resumes_is_the_same_with_resume_and_the_folder(monkeypatch):
    argv = ["my data.json", "--out", "runs/x"]
    out = Path("runs/x")
    assert train.resume_command(argv, out) == "maskrcnn train 'my data.json' --out runs/x --resume"
    assert train.parse(argv).argv == tuple(argv)
    assert train.resume_command([*argv, "--resume"], out) == train.resume_command(argv, out)
    for here, started in ((2, "torchrun --standalone --nproc-per-node 2 -m"), (1, "torchrun ... -m")):
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(here))
        assert train.resume_command(["d.json"], out) == f"{started} maskrcnn train d.json --out runs/x --resume"
    monkeypatch.undo()
    assert train.resume_command(["d.json"], Path("runs/d-2")) == "maskrcnn train d.json --out runs/d-2 --resume"


@pytest.mark.parametrize("given", [["d.json"], ["--data", "d.json"], ["--data=d.json"]])
def test_the_data_are_an_argument_and_may_be_named_as_in_other_commands(given):
    parsed = train.parse(["--augment.crop", "64", "64", *given]) if len(given) > 1 else train.parse(given)
    assert (parsed.data, parsed.argv[0]) == (Path("d.json"), "d.json")


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ("", "auto"),
        ("--train.steps 5", "auto"),
        ("--preset mask_rcnn_tiny", "none"),
        ("--config a.yaml", "none"),
        ("--preset mask_rcnn_R_18_FPN --recipe auto", "auto"),
        ("--config a.yaml --recipe 3x", "3x"),
        ("--recipe none", "none"),
    ],
)
def test_a_recipe_chooses_unless_a_preset_or_a_file_names_the_settings(flags, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text("train: {seed: 3}\n")
    assert train.parse(["d.json", *flags.split()]).recipe_name == name


@pytest.mark.parametrize("named", ["in the file", "by its flag", "not at all"])
def test_a_recipe_starts_from_the_preset_that_is_named(named, tmp_path, monkeypatch):
    """`--print-config` writes the name into the file."""
    asked = []

    def keep(recipe, *given, **more):
        asked.append(recipe)
        raise ConfigError("enough")

    monkeypatch.setattr("maskrcnn.training.loop.train", keep)
    monkeypatch.setattr(train, "open_dataset", lambda *given, **more: None)
    file = tmp_path / "run.yaml"
    preset = "preset: mask_rcnn_R_101_FPN\n" if named == "in the file" else ""
    file.write_text(f"{preset}train: {{seed: 3}}\n")
    flag = ["--preset", "mask_rcnn_R_101_FPN"] if named == "by its flag" else []
    with pytest.raises(ConfigError, match="enough"):
        train.parse(["d.json", "--config", str(file), "--recipe", "auto", *flag]).run()
    (recipe,) = asked
    assert recipe.given == {"train.seed": 3}
    assert (None if recipe.base is None else recipe.base.model.resnet.depth) == (None if named == "not at all" else 101)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--val v.json --hold-out 0.2", "--hold-out takes images from DATA, and --val gives others"),
        ("--limit 0", "--limit: expected 1 image or more to train on, found 0"),
    ],
)
def test_flags_of_images_without_sense_are_refused(flags, message, command, tmp_path):
    data = write_small(tmp_path, "train", 2)
    ran = command("train", data, "--out", tmp_path / "run", "--weights", "none", *flags.split())
    assert ran.code == 2
    assert ran.err.splitlines()[-1].startswith(f"error: {message}")


def test_a_run_without_a_folder_gets_one_after_its_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = Path("cells/train.json")
    with pytest.raises(ConfigError, match=r"there is no run of cells/train\.json in runs"):
        train.default_folder(data, resume=True)
    assert train.default_folder(data, resume=False) == Path("runs/train")
    Path("runs/train").mkdir(parents=True)
    assert train.default_folder(data, resume=False) == Path("runs/train-2")
    Path("runs/train-2").mkdir()
    assert train.default_folder(data, resume=True) == Path("runs/train-2")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="expected --out with several processes"):
        train.default_folder(data, resume=False)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("1.5h", 5400), ("1h30m", 5400)])
def test_a_budget_is_a_time(text, seconds):
    assert train.seconds_in(text) == seconds


@pytest.mark.parametrize("text", ["0", "0s", "", "soon", "10", "-5m", "30 minutes", "1.2.3m", "5m1h"])
def test_a_budget_that_is_no_time_is_refused(command, text):
    ran = command("train", "d.json", f"--budget={text}")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == f"error: --budget: expected a time above 0 such as 90s, 30m or 2h, found {text!r}\n"
