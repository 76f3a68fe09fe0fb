"""benchmarks/small_data.py trains its sides on few images and has each judged once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import save_file
from torchvision.models import resnet18

from small_data import write_small

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "small_data.py"


def run_script(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), str(folder / "r18.safetensors"), "--data", str(folder), *words]
    return subprocess.run([*command, "--out", str(folder / "out")], capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_every_side_is_trained_and_judged(tmp_path: Path) -> None:
    write_small(tmp_path, "train", 21)
    write_small(tmp_path, "val", 1, seed=1)
    save_file(resnet18().state_dict(), tmp_path / "r18.safetensors")
    sides = ["recipe", "preset", "without copy-paste"]
    ran = run_script(tmp_path, "--sizes", "2", "--seeds", "0", "--steps", "1", "--sides", *sides)
    assert ran.returncode == 0, ran.stderr
    found = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert [(result["images"], result["side"]) for result in found] == [(2, sides[0]), (2, sides[1]), (20, sides[2])]
    assert all(-1 <= result["masks"] <= 1 for result in found)
    trained = json.loads((tmp_path / "out" / f"{tmp_path.name}-2-0" / "annotations.json").read_text())
    assert len(trained["images"]) == 2
    assert not list((tmp_path / "out").rglob("*.ckpt"))


def test_a_finished_run_is_not_repeated_and_seeds_share_a_row(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    finished = [
        {"data": tmp_path.name, "images": 5, "seed": seed, "side": "recipe", "steps": 3, "masks": ap, "boxes": 0.5}
        for seed, ap in ((0, 0.2), (1, 0.3))
    ]
    (tmp_path / "out" / "results.jsonl").write_text("".join(json.dumps(result) + "\n" for result in finished))
    ran = run_script(tmp_path, "--sizes", "5", "--seeds", "0", "1", "--sides", "recipe")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1] == f"| {tmp_path.name} | 5 | recipe | 2 | 0.250 ± 0.071 | 0.500 ± 0.000 |"


@pytest.mark.slow
def test_a_run_that_fails_is_named_in_the_end(tmp_path: Path) -> None:
    ran = run_script(tmp_path, "--sizes", "5", "--seeds", "0", "--sides", "recipe")
    assert ran.returncode == 1
    assert "train.json" in ran.stderr
