"""benchmarks/nuclei.py trains torchvision's network and has it judged, on a data set of a few rectangles."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import save_file
from torchvision.models import resnet18

from small_data import write_small

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "nuclei.py"


@pytest.mark.slow
def test_torchvision_is_trained_for_its_minutes_and_judged(tmp_path: Path) -> None:
    train = write_small(tmp_path, "train", 6)
    content = json.loads(train.read_text())
    content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] > 2]  # two without objects
    train.write_text(json.dumps(content))
    val = write_small(tmp_path, "val", 2, seed=1)
    save_file(resnet18().state_dict(), tmp_path / "r18.safetensors")
    words = [tmp_path, tmp_path / "r18.safetensors", "--out", tmp_path / "out", "--minutes", "0.2", "--sides", "theirs"]
    command = [sys.executable, str(SCRIPT), *map(str, words)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    steps = int(ran.stdout.partition("torchvision: ")[2].split()[0])
    assert steps >= 1
    assert "masks" in ran.stdout.partition("evaluate --results")[2]
    found = json.loads((tmp_path / "out" / "torchvision.json").read_text())
    content = json.loads(val.read_text())
    assert found
    assert {entry["image_id"] for entry in found} <= {image["id"] for image in content["images"]}


@pytest.mark.slow
def test_a_file_without_the_weights_of_a_resnet_18_is_one_line(tmp_path: Path) -> None:
    write_small(tmp_path, "train", 2)
    weights = resnet18().state_dict()
    save_file({"conv1.weight": weights["conv1.weight"]}, tmp_path / "part.safetensors")
    command = [sys.executable, str(SCRIPT), str(tmp_path), str(tmp_path / "part.safetensors"), "--sides", "theirs"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert ran.returncode == 1
    assert "expected a ResNet-18 with torchvision's names, found no bn1.weight" in ran.stderr.splitlines()[-1]
