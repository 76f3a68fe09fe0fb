"""A run by a recipe: what it chooses is written and kept, also by a resumed run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from maskrcnn.errors import ConfigError, DataError, TrainingError, WeightsError
from maskrcnn.training.checkpoint import load_checkpoint
from maskrcnn.training.loop import train
from maskrcnn.training.recipes.recipe import Recipe
from maskrcnn.training.recipes.settle import Sources, settle
from maskrcnn.training.world import World
from small_data import small_config, write_small

GIVEN = {"image.short_side": 64, "image.long_side": 96, "train.steps": 2, "train.batch_size": 1, "train.workers": 0}


def recipe(**changes: Any) -> Recipe:
    return Recipe(base=small_config(), given=GIVEN | changes.pop("given", {}), **changes)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small(tmp_path_factory.mktemp("data"), "train", 24)


@pytest.mark.slow
def test_a_recipe_is_written_and_a_resumed_run_keeps_it(
    data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    summary = train(recipe(), data, out=out)
    assert summary.report is not None  # images were held out
    said = capfd.readouterr().err
    assert "4 of 24 images are held out to judge by" in said
    written = json.loads((out / "recipe.json").read_text())
    rows = {row["setting"]: row for row in written["choices"]}
    assert rows["train.steps"]["reason"] == "given"
    assert rows["train.optimizer"]["value"] == "adamw"
    assert ["train.steps", "2", "given"] in [line.split() for line in said.splitlines()]
    assert written["data"]["images"] == 20
    saved = load_checkpoint(out)
    assert saved.config.train.ema
    assert saved.config.train.learning_rate == rows["train.learning_rate"]["value"]
    again = train(recipe(given={"train.steps": 3}), data, out=out, resume=True)  # the choices and images stay
    assert (again.steps, again.finished) == (3, True)
    assert load_checkpoint(out).config.train.warmup_steps == saved.config.train.warmup_steps
    with pytest.raises(TrainingError, match=r"data\.held_out\.share was 0\.15 and is 0\.0"):
        train(recipe(hold_out=0.0, given={"train.steps": 3}), data, out=out, resume=True)


def test_a_recipe_begins_from_weights_and_says_how_to_begin_without(data: Path, tmp_path: Path, monkeypatch) -> None:
    def refuse(url: str) -> Path:
        raise WeightsError(f"cannot download {url} (no network)")

    monkeypatch.setattr("maskrcnn.weights.named.downloaded", refuse)
    with pytest.raises(WeightsError, match=r"begins from the weights resnet18: cannot .*--weights none"):
        train(None, data, out=tmp_path / "run")
    assert not (tmp_path / "run" / "recipe.json").exists()


def test_equal_pictures_are_held_out_together(tmp_path: Path) -> None:
    data = write_small(tmp_path, "train", 24)
    for number in range(12, 24):  # the picture of another image, in another compression
        with Image.open(tmp_path / "train" / f"{number - 12}.png") as image:
            image.save(tmp_path / "train" / f"{number}.png", compress_level=0)
    sources = Sources(data, None, "none", None, strict=False, limit=None)
    found = settle(recipe(), sources, World(torch.device("cpu")))
    assert found.validation is not None
    held = [int(Path(path).stem) for path in found.validation.records.paths]
    assert sorted(number % 12 for number in held) == sorted(2 * sorted({number % 12 for number in held}))


def test_few_images_are_all_trained_on(data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    summary = train(recipe(given={"train.steps": 1}), data, out=tmp_path / "run", limit=1)
    assert summary.report is None
    assert "1 images are too few to hold some out" in capfd.readouterr().err


@pytest.mark.slow
def test_a_preset_holds_nothing_out_and_writes_no_recipe(data: Path, tmp_path: Path) -> None:
    summary = train(small_config(steps=1), data, out=tmp_path / "run")
    assert summary.report is None
    assert not (tmp_path / "run" / "recipe.json").exists()
    assert train(Recipe("none", small_config(steps=1), hold_out=0.2), data, out=tmp_path / "b").report is not None


def test_data_with_nothing_to_learn_and_wrong_settings_are_refused(tmp_path: Path, data: Path) -> None:
    content = json.loads(data.read_text())
    content["annotations"] = []
    empty = data.with_name("empty.json")
    for image in content["images"]:
        image["file_name"] = f"train/{image['file_name']}"
    empty.write_text(json.dumps(content))
    with pytest.raises(DataError, match="expected objects to learn from, found none"):
        train(recipe(), empty, out=tmp_path / "run")
    with pytest.raises(ConfigError, match=r"train\.stepz: there is no such setting"):
        train(recipe(given={"train.stepz": 1}), data, out=tmp_path / "run")
