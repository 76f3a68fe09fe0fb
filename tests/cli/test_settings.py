"""Preset, file and flags: which wins, what is printed, and what the help shows."""

from __future__ import annotations

from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from maskrcnn.cli import settings, train
from maskrcnn.config.presets import preset
from maskrcnn.errors import ConfigError
from maskrcnn.weights.initialise import WeightsFile

BASE = ["d.json", "--out", "runs/x"]
# One preset of each kind of parts.
KINDS = (
    "mask_rcnn_R_50_FPN",
    "mask_rcnn_ConvNeXt_T_FPN",
    "mask_rcnn_R_50_C4",
    "cascade_mask_rcnn_R_50_FPN",
    "pointrend_rcnn_R_50_FPN",
    "keypoint_rcnn_tiny",
)
SCREEN = 70  # lines
WIDTH = 80


@pytest.fixture
def narrow(monkeypatch):
    monkeypatch.setenv("COLUMNS", str(WIDTH))


@pytest.mark.parametrize(
    ("name", "preset_name"),
    [*(("train", name) for name in KINDS), ("ablate", "mask_rcnn_tiny")],
)
def test_the_help_fits_on_one_screen(command, narrow, name, preset_name):
    ran = command(name, "--preset", preset_name, "--help")
    assert ran.code == 0
    lines = ran.out.splitlines()
    assert len(lines) <= SCREEN
    assert max(map(len, lines)) <= WIDTH


@pytest.mark.parametrize(
    ("name", "short", "rare"),
    [
        (
            "predict",
            ("[IMAGES]", "--out", "--no-draw", "--save", "--parquet", "--precision"),
            ("--columns", "--shard-size"),
        ),
        ("evaluate", ("--results", "--report", "--matching"), ("--columns", "--allow-partial")),
    ],
)
def test_the_short_help_of_a_command_without_settings(command, narrow, name, short, rare):
    text, whole = command(name, "--help").out, command(name, "--help-all")
    assert len(text.splitlines()) <= SCREEN
    assert whole.code == 0
    assert [flag for flag in (*short, "--model", "--json", "--help-all") if flag not in text] == []
    assert [flag for flag in rare if flag in text] == []
    assert [flag for flag in (*short, *rare) if flag not in whole.out] == []
    assert command(name, "--help-all").out.splitlines()[2] == text.splitlines()[2]  # the description


def test_the_help_shows_what_people_set_with_the_defaults_of_the_preset(command, narrow):
    text = command("train", "--preset", "mask_rcnn_tiny", "--help").out
    words = (
        "DATA --val --out --recipe --budget --preset --weights --resume --json --config --print-config --help-all "
        "--image.short-side "
        "--train.steps --train.batch-size --train.learning-rate --train.evaluate-every --train.checkpoint-every "
        "--train.precision --train.workers --train.seed --augment.crop --augment.flip-horizontal"
    )
    assert [flag for flag in words.split() if flag not in text] == []
    assert "--model." not in text
    assert "None" not in text.replace("(default: None)", "")
    tiny = preset("mask_rcnn_tiny")
    for value in (tiny.train.steps, tiny.train.batch_size, tiny.image.short_side):
        assert f"(default: {value})" in text


def test_the_short_help_names_settings_that_exist():
    for kind, names in settings.SHORT_HELP.items():
        assert set(names) <= {field.name for field in fields(kind)}


def test_settings_that_the_short_help_leaves_out_are_flags_after_it(command, narrow):
    assert command("train", "--help").code == 0
    assert train.parse([*BASE, "--image.scale", "2"]).settings.config.image.scale == 2


def test_flags_win_over_the_file_and_the_file_over_the_preset(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("preset: mask_rcnn_tiny\ntrain: {steps: 11, seed: 12}\nmodel: {mask_head: null}\n")
    found = train.parse([*BASE, "--config", str(path), "--train.seed", "13"]).settings
    tiny = preset("mask_rcnn_tiny")
    expected = replace(tiny, model=replace(tiny.model, mask_head=None), train=replace(tiny.train, steps=11, seed=13))
    assert (found.preset, found.config) == ("mask_rcnn_tiny", expected)
    other = train.parse([*BASE, f"--config={path}", "--preset", "mask_rcnn_R_18_FPN"]).settings
    assert other.config.model.backbone == preset("mask_rcnn_R_18_FPN").model.backbone
    assert (other.preset, other.config.train.steps) == ("mask_rcnn_R_18_FPN", 11)


def test_conventions_come_from_a_file_and_are_no_flags(command, narrow, tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("conventions.pixels: {kernel: pil, rounding: floor}\n")
    ran = command("train", "--config", path, "--print-config")
    assert yaml.safe_load(ran.out)["conventions"]["pixels"]["kernel"] == "pil"
    assert train.parse([*BASE, "--config", str(path)]).settings.config.conventions.pixels.rounding == "floor"
    assert "conventions" not in command("train", "--help-all").out
    assert command("train", *BASE, "--conventions.pixels.kernel", "pil").code == 2


def test_a_file_that_gives_a_part_has_its_flags(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("model: {keypoint_head: {num_keypoints: 4}}\n")
    found = train.parse([*BASE, "--config", str(path), "--model.keypoint-head.convs", "2"]).settings.config
    assert found.model.keypoint_head is not None
    assert (found.model.keypoint_head.num_keypoints, found.model.keypoint_head.convs) == (4, 2)


@pytest.mark.parametrize(("name", "preset_name"), [*(("train", name) for name in KINDS), ("ablate", "mask_rcnn_tiny")])
def test_what_is_printed_reads_back_to_the_same(command, tmp_path, name, preset_name):
    flags = ("--train.steps", "7", "--image.scale", "1.5", "--train.clip-norm", "None", "--train.learning-rate", "1e-5")
    printed = command(name, "--preset", preset_name, *flags, "--print-config")
    assert printed.code == 0
    path = tmp_path / "a.yaml"
    path.write_text(printed.out)
    assert command(name, "--config", path, "--print-config").out == printed.out
    values = yaml.safe_load(printed.out)
    assert (values["preset"], values["train"]["steps"]) == (preset_name, 7)
    assert "categories" not in values
    assert "&" not in printed.out


def test_an_empty_file_changes_nothing(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("# nothing yet\n")
    assert train.parse([*BASE, "--config", str(path)]) == replace(
        train.parse(BASE),
        argv=(*BASE, "--config", str(path)),
        settings=replace(train.parse(BASE).settings, file=path),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: {stepz: 5}", "train.stepz: there is no such setting; nearest: train.steps"),
        ("train: {steps: many}", "train.steps: expected a whole number, found 'many'"),
        ("train: {steps: -1}", "train.steps must be a whole number from 1 to 1000000000, found -1"),
        ("train: {steps: 5}\ntrain.steps: 6", "train.steps: expected each setting once, found this one twice"),
        ("train:\n  steps: [1\n", "line 3: expected YAML"),
        ("- 1", "expected settings by name (train: ...), found list"),
        ("preset: mask_rcnn_tiniest", "unknown preset 'mask_rcnn_tiniest'; nearest: mask_rcnn_tiny"),
        ("preset: [1]", "unknown preset '[1]'"),
        (None, "cannot be read"),
    ],
)
def test_a_file_with_a_fault_is_one_line_and_2(command, tmp_path, text, message):
    path = tmp_path / "a.yaml"
    if text is not None:
        path.write_text(text)
    ran = command("train", *BASE, "--config", path)
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert ran.err.startswith("error: ")
    assert message in ran.err
    assert "preset" in message or str(path) in ran.err


@pytest.mark.parametrize(("name", "required"), [("train", ()), ("ablate", ("val", "out"))])
def test_without_arguments_the_short_help_and_with_some_what_is_missing(command, narrow, name, required):
    ran = command(name)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == command(name, "--help").out
    assert ran.err.startswith(f"usage: maskrcnn {name} ")
    missing = command(name, "--json")
    assert (missing.code, missing.out) == (2, "")
    names = " ".join(["DATA", *(f"--{flag} PATH" for flag in required)])
    assert missing.err == f"error: Missing from maskrcnn {name}: {names}; see maskrcnn {name} --help\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("export --out a.onnx --model m", "--out: there is no such flag; give OUT alone, without a flag before it"),
        ("export --model=m --out=a.onnx", "--out: there is no such flag; give OUT alone, without a flag before it"),
        ("export --mod m a.onnx", "--mod: there is no such flag; nearest: --model"),
        ("export -o a.onnx --model m", "-o: there is no such flag"),
        ("export --max_drop 0.1 --model m --oops a.onnx", "--oops: there is no such flag"),
        ("export a.onnx --mod m", "Missing from maskrcnn export: --model STR; unrecognized: --mod, m"),
        ("data convert a --too coco b", "--too: there is no such flag; nearest: --to"),
    ],
)
def test_an_unknown_flag_before_a_place_is_named(command, narrow, words, message):
    ran = command(*words.split())
    chosen = " ".join(words.split()[: 2 if words.startswith("data") else 1])
    assert (ran.code, ran.out, ran.err) == (2, "", f"error: {message}; see maskrcnn {chosen} --help\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--train.steps abc", "--train.steps: expected a whole number, found abc; see"),
        ("--train.learning-rate 20%", "--train.learning-rate: expected a number, found 20%; see"),
        ("--limit 2.5", "--limit: expected a whole number, found 2.5; see"),
        ("--train.stepz 4", "Unrecognized options: --train.stepz, 4; nearest: --train.steps"),
        ("--train.precision fp64", "error: --train.precision: expected one of auto, fp32, bf16, fp16, found fp64; see"),
        ("--train.learning-rate nan", "error: train.learning_rate must be"),
        ("--train.drops 0.5 nan", "error: train.drops "),
        ("--augment.crop 64", "--augment.crop: expected {None}|{INT INT}, found 64; see"),
        ("--limit", "error: --limit: expected a value, found none; see"),
        ("--weights [bold]x --oops", "Unrecognized options: --oops"),
        (f"--weights a --no-such{'x' * 150}", f"Unrecognized options: --no-such{'x' * 150}"),
    ],
)
@pytest.mark.parametrize("name", ["train", "ablate"])
def test_a_flag_with_a_fault_is_one_line_and_2(command, narrow, name, flags, message):
    if name == "ablate":
        flags = flags.replace("--limit", "--seeds")
        message = message.replace("--limit", "--seeds")
    ran = command(name, *BASE, "--val", "v.json", *flags.split())
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert ran.err.startswith("error: ")
    assert message in ran.err


def test_every_setting_has_a_help_text(command, narrow):
    lines = [line.strip("│ ") for line in command("train", "--help-all").out.splitlines()]
    flags = [flag for flag in lines if flag.startswith("--")]
    silent = [f for f, text in pairwise(lines) if f in flags and text.startswith("(default")]
    assert len(flags) > 60
    assert silent == []


def test_flags_of_weights_need_weights():
    start = train.parse([*BASE, "--weights", "w.pth", "--weights-config", "c.yaml", "--allow-partial"]).start
    assert start.file() == WeightsFile("w.pth", Path("c.yaml"), allow_partial=True)
    assert train.parse(BASE).start.file() is None
    with pytest.raises(ConfigError, match="expected --weights with --weights-config, --part, found none"):
        train.parse([*BASE, "--weights-config", "c.yaml", "--part", "teacher"]).start.file()


def test_channels_are_names_with_a_stretch():
    names = ["red", "nir:0:4095", "swir:2%:98%", "depth:none"]
    red, nir, swir, depth = train.parse([*BASE, "--image.channels", *names]).settings.config.image.channels
    assert (red.name, red.stretch, red.low) == ("red", "percentile", None)
    assert (nir.name, nir.stretch, nir.low, nir.high) == ("nir", "range", 0, 4095)
    assert (swir.stretch, swir.percentiles) == ("percentile", (2, 98))
    assert (depth.name, depth.stretch) == ("depth", "none")
    for wrong in ("red:0", "red:low:high", "red:9:1", "red:98%:2%"):
        with pytest.raises(ConfigError, match=r"image\.channels"):
            train.parse([*BASE, "--image.channels", wrong])


def test_channels_in_a_file_pass_through_it(tmp_path, capsys):
    given = [*BASE, "--preset", "mask_rcnn_tiny", "--image.channels", "nir:0:4095", "red", "--print-config"]
    assert train.parse(given).run() == 0
    (tmp_path / "a.yaml").write_text(capsys.readouterr().out)
    read = train.parse([*BASE, "--config", str(tmp_path / "a.yaml")]).settings.config
    assert read.image.channels == train.parse(given).settings.config.image.channels
