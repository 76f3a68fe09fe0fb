"""Every command and example of the README runs, on small data and with few steps."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from small_data import write_small

README = Path(__file__).parents[1] / "README.md"

# The README's run is a real one: hours of training from weights that are downloaded. Here it is the same command,
# shortened to seconds.
SHORTER = {
    "--preset mask_rcnn_R_50_FPN --weights resnet50": "--preset mask_rcnn_tiny --train.steps 2 --train.workers 0",
    'preset("mask_rcnn_R_50_FPN")': 'preset("mask_rcnn_tiny")',
    ', weights="resnet50")': ")",
    "maskrcnn.train(config": "maskrcnn.train(short(config)",
}
SHORT = """
from dataclasses import replace
def short(config): return replace(config, train=replace(config.train, steps=2, workers=0))
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(), flags=re.DOTALL | re.MULTILINE)


def shortened(text: str) -> str:
    for long, short in SHORTER.items():
        text = text.replace(long, short)
    return text


@pytest.mark.slow
def test_commands_and_python_run_as_written(tmp_path: Path) -> None:
    write_small(tmp_path, "train", 4)
    write_small(tmp_path, "val", 2, seed=1)
    (tmp_path / "photos").mkdir()
    Image.fromarray(np.zeros((60, 80, 3), dtype=np.uint8)).save(tmp_path / "photos" / "a.jpg")
    Image.fromarray(np.zeros((60, 80, 3), dtype=np.uint8)).save(tmp_path / "street.jpg")
    own_data = next(block for block in blocks("") if "data check" in block)
    commands = [line for line in shortened(own_data).splitlines() if line.startswith("maskrcnn ")]
    assert [command.split()[1] for command in commands] == ["data", "data", "train", "evaluate", "predict"]
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    for command in commands:
        words = [sys.executable, "-m", *shlex.split(command)]
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    for produced in ("runs/look", "runs/x/model.safetensors", "runs/x/curves.png", "runs/x/pictures/predictions.json"):
        assert (tmp_path / produced).exists(), produced
    (example,) = blocks("python")
    done = subprocess.run(
        [sys.executable, "-c", SHORT + shortened(example)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_files_that_the_documents_name_exist() -> None:
    root = README.parent
    for document in (README, *sorted((root / "docs").glob("*.md")), root / "CONTRIBUTING.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"
