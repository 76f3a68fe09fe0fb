"""Every command and example of the README and the guide runs, on small data and with few steps."""

from __future__ import annotations

import csv
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from maskrcnn.cli import main
from maskrcnn.cli.settings import base_settings
from maskrcnn.config import KeypointHeadConfig
from maskrcnn.data.convert import convert
from maskrcnn.data.formats import read_dataset
from maskrcnn.files.images import read_image
from maskrcnn.predict import load
from maskrcnn.weights.frameworks.torchvision import Torchvision
from maskrcnn.weights.frameworks.torchvision.settings import our_config, with_rules
from small_data import write_small
from small_network import lively_network, network_config

README = Path(__file__).parents[1] / "README.md"
CHECKPOINTS = README.parent / "docs" / "checkpoints.md"
GUIDE = README.parent / "docs" / "getting-started.md"
RUN_LENGTHS = README.parent / "docs" / "run-lengths.md"

# The README's run is a real one: hours of training from weights that are downloaded. Here it is the same command,
# shortened to seconds.
SHORTER = {
    "maskrcnn train train.json --out": "maskrcnn train train.json --preset mask_rcnn_tiny --recipe auto --weights none "
    "--image.short-side 64 --image.long-side 96 --train.steps 2 --train.workers 0 --out",
    "--preset mask_rcnn_R_50_FPN --weights resnet50 --image.fixed-size": "--preset mask_rcnn_tiny --train.steps 2 "
    "--train.workers 0 --image.fixed-size",
    'preset("mask_rcnn_R_50_FPN")': 'preset("mask_rcnn_tiny")',
    ', weights="resnet50")': ")",
    "maskrcnn.train(config": "maskrcnn.train(short(config)",
}
SHORT = """
from dataclasses import replace
def short(config): return replace(config, train=replace(config.train, steps=2, workers=0))
"""


def blocks(document: Path, language: str) -> list[str]:
    """The fenced blocks of a page that name this language; "" for those that name none."""
    found = re.findall(r"^```(\w*)\n(.*?)^```", document.read_text(), flags=re.DOTALL | re.MULTILINE)
    return [text for named, text in found if named == language]


def commands_of(text: str) -> list[str]:
    return [line for line in shortened(text).splitlines() if line.startswith("maskrcnn ")]


def shortened(text: str) -> str:
    for long, short in SHORTER.items():
        text = text.replace(long, short)
    return text


def run(command: str, *more: str) -> None:
    """A command in this process, in the working directory."""
    assert main([*shlex.split(command)[1:], *more]) == 0, command


@pytest.mark.slow
def test_commands_and_python_run_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_small(tmp_path, "train", 4)
    write_small(tmp_path, "val", 2, seed=1)
    for image in ("photos/a.jpg", "more/b.png", "street.jpg"):
        (tmp_path / image).parent.mkdir(exist_ok=True)
        Image.fromarray(np.zeros((60, 80, 3), dtype=np.uint8)).save(tmp_path / image)
    commands = commands_of(next(block for block in blocks(README, "") if "data check" in block))
    assert [command.split()[1] for command in commands] == ["data", "data", "train", "evaluate", "predict"]
    for command in commands:
        run(command)
    for produced in ("runs/look", "runs/x/model.safetensors", "runs/x/curves.png", "runs/x/pictures/predictions.json"):
        assert (tmp_path / produced).exists(), produced

    judge = "maskrcnn evaluate --model runs/x/model.safetensors --data val.json"
    run(judge, "--results-out", "any_detector.json")  # the guide judges these
    of_guide = [command for block in blocks(GUIDE, "") for command in commands_of(block)]
    assert len(of_guide) >= 6
    for command in of_guide:
        if command not in commands:
            run(command)

    (example,) = blocks(README, "python")
    exec(SHORT + shortened(example), {})


@pytest.mark.slow
def test_commands_on_checkpoints_run_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_small(tmp_path, "train", 2)
    (tmp_path / "photos").mkdir()
    Image.fromarray(np.zeros((60, 80, 3), dtype=np.uint8)).save(tmp_path / "photos" / "a.png")
    config = with_rules(network_config(num_classes=2).model)
    torch.save(Torchvision().export_state(config, lively_network(config).state_dict()), tmp_path / "theirs.pth")
    commands = commands_of(blocks(CHECKPOINTS, "")[0])  # the other blocks name files of each framework
    assert len(commands) == 6
    for command in commands:
        shorter = (
            ["--train.steps", "1", "--train.workers", "0", "--image.short-side", "64"] if " train " in command else []
        )
        run(command, *shorter)
    for produced in ("runs/theirs/predictions.json", "model.safetensors", "back.pth", "runs/tuned/model.safetensors"):
        assert (tmp_path / produced).exists(), produced
    (settings,) = blocks(CHECKPOINTS, "json")
    assert our_config(config.model, json.loads(settings))[0].image.short_side == 640


@pytest.mark.slow
def test_a_run_length_project_runs_as_written(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nuclei = read_dataset(shared / "data" / "nuclei" / "train.json")
    small = [number for number in range(len(nuclei)) if nuclei.records.sizes_hw[number].max() <= 400]
    convert(nuclei.subset(small[:5]), tmp_path / "train", "rle-csv", link=True)
    (tmp_path / "train" / "annotations.csv").rename(tmp_path / "train.csv")
    (tmp_path / "test").mkdir()
    for number in small[5:8]:
        (tmp_path / "test" / nuclei.records[number].path.name).symlink_to(nuclei.records[number].path)
    asked = sorted(file.stem for file in (tmp_path / "test").iterdir())[::-1]
    (tmp_path / "sample_submission.csv").write_text("\n".join(["ImageId,EncodedPixels", *(f"{own}," for own in asked)]))
    monkeypatch.chdir(tmp_path)
    for command in commands_of(blocks(RUN_LENGTHS, "")[0]):
        words = shlex.split(command)[1:]
        assert main([*words, *(["--min-score", "0"] if words[0] == "predict" else [])]) == 0
    (step,) = (tmp_path / "runs/x/metrics.jsonl").read_text().splitlines()[-1:]
    assert json.loads(step)["step"] == 2
    assert load("runs/x/model.safetensors").config.image.fixed_size == (512, 512)
    with open("runs/answer/rle-csv/annotations.csv", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["ImageId", "EncodedPixels", "ClassId"]
    assert list(dict.fromkeys(name for name, _, _ in rows)) == asked
    assert sum(bool(cell) for _, cell, _ in rows) > 3
    for image in asked:
        covered = [
            pixel
            for name, cell, _ in rows
            if name == image
            for start, length in np.array(cell.split(), dtype=int).reshape(-1, 2)
            for pixel in range(start, start + length)
        ]
        height, width = read_image(tmp_path / "test" / f"{image}.png").shape[:2]
        assert len(set(covered)) == len(covered)
        assert all(1 <= pixel <= height * width for pixel in covered)


def test_files_that_the_documents_name_exist() -> None:
    root = README.parent
    for document in (README, *sorted((root / "docs").glob("*.md")), root / "CONTRIBUTING.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_the_file_of_settings_in_the_guide_is_read(tmp_path: Path) -> None:
    (text,) = blocks(GUIDE, "yaml")
    (tmp_path / "run.yaml").write_text(text)
    name, config = base_settings(["--config", str(tmp_path / "run.yaml")], "mask_rcnn_tiny")
    assert (name, config.train.steps, config.image.short_side) == ("mask_rcnn_R_18_FPN", 5000, 1024)
    assert config.model.mask_head is None
    assert config.model.keypoint_head == KeypointHeadConfig()
