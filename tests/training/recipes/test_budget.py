"""Steps that fit a time: measured once, then fixed, also for a resumed run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from maskrcnn.config import TrainConfig
from maskrcnn.data.formats import read_dataset
from maskrcnn.errors import ConfigError
from maskrcnn.training.checkpoint import Progress, load_checkpoint
from maskrcnn.training.loop import train
from maskrcnn.training.recipes import fit
from maskrcnn.training.recipes.budget import FREE, BudgetError, Costs, Pace, fitted
from maskrcnn.training.recipes.fit import usual_detections
from maskrcnn.training.recipes.recipe import Recipe
from maskrcnn.training.run import Run
from maskrcnn.training.world import World
from maskrcnn.weights.open import open_weights
from small_data import small_config, write_small

GIVEN = {"image.short_side": 64, "image.long_side": 96, "train.batch_size": 1, "train.workers": 0}
GIVEN |= {"train.checkpoint_every": 1000}


def test_the_steps_take_what_evaluations_and_checkpoints_leave() -> None:
    settings = TrainConfig()
    found = fitted(settings, 100, 3000, Costs(1.5, 60, 2), FREE)
    steps, judged = found["train.steps"], 3000 // 10 // 65
    assert found["train.evaluate_every"] == -(-steps // judged)
    assert 0.9 * 3000 < (steps - 100) * 1.5 + judged * 65 < 3000
    assert fitted(settings, 100, 3000, Costs(1.5, None, 2), ()).keys() == {"train.steps"}


def test_settings_that_are_given_count_by_the_step() -> None:
    often, never = (
        fitted(TrainConfig(evaluate_every=every, checkpoint_every=1000), 0, 1000, Costs(1, 5, 1), ())["train.steps"]
        for every in (20, 0)
    )
    assert often == pytest.approx(never / 1.5, rel=0.02)


def test_a_time_for_less_than_a_few_steps_is_refused() -> None:
    with pytest.raises(BudgetError, match=r"too short by about \d+ s: a step takes 3 s here and an evaluation 65 s"):
        fitted(TrainConfig(), 5, 70, Costs(3, 60, 1), FREE)


def test_a_pace_is_known_after_warm_up_or_a_tenth_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 50.0
    monkeypatch.setattr("maskrcnn.training.recipes.budget.time.monotonic", lambda: now)
    pace = Pace(100, 45, (), [9.0, 3.0, 1.0, 1.0])
    assert pace.left == 95
    assert not pace.is_known(4, 4)  # too few steps to trust
    pace.spent.append(1.0)
    assert pace.step == 1.0
    assert pace.is_known(5, 5)
    assert not pace.is_known(5, 50)
    now = 56.0
    assert pace.is_known(5, 50)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small(tmp_path_factory.mktemp("data"), "train", 4)


def test_an_evaluation_is_timed_with_as_many_objects_as_a_trained_network_finds(data: Path) -> None:
    dataset, config = read_dataset(data), small_config()
    objects = len(dataset.columns["labels"]) / len(dataset)
    assert 2 * objects <= usual_detections(config, dataset) < 2 * objects + 1
    few = replace(config.model, detect=replace(config.model.detect, max_detections=1))
    assert usual_detections(replace(config, model=few), dataset) == 1


@pytest.mark.usefixtures("pace")
@pytest.mark.parametrize(
    ("settings", "seconds"),
    [({}, 1.0), ({"batch_norm_images": 30}, 2.0), ({"validation_losses": True}, 1.4)],
)
def test_an_evaluation_takes_what_its_settings_add(
    settings: dict[str, Any], seconds: float, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step of one image takes 0.1 s here, a third of it forward; there are 12 validation images."""
    asked: list[Costs] = []

    def keep(settings: Any, step: int, left: float, costs: Costs, free: Any) -> dict[str, int]:
        asked.append(costs)
        return {"train.steps": 8}

    monkeypatch.setattr(fit, "_prediction_seconds", lambda *given: 1.0)
    monkeypatch.setattr(fit, "fitted", keep)
    network = torch.nn.Linear(2, 2)
    run: Any = SimpleNamespace(
        config=small_config(batch_size=1, warmup_steps=5, **settings),
        network=network,
        result=network,
        validation=range(12),
        world=World(torch.device("cpu")),
        progress=Progress(),
        out=tmp_path,
    )
    _, sentence = fit._found(run, Pace(60, 0))
    assert asked[0].prediction == pytest.approx(seconds)
    assert sentence.endswith("; the learning rate rises for 5 steps (--train.warmup-steps), which is most of them")


@pytest.fixture
def pace(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every step takes 0.1 s, and 2.7 s are left."""
    monkeypatch.setattr(Pace, "step", 0.1)
    monkeypatch.setattr(Pace, "left", 2.7)


def recipe(**changes: Any) -> Recipe:
    return Recipe(base=small_config(), given=GIVEN, budget=60.0, **changes)


def same_weights(one: Path, other: Path) -> bool:
    first, second = (open_weights(path)[0].state_dict() for path in (one, other))
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.slow
@pytest.mark.usefixtures("pace")
def test_a_budget_finds_the_steps_once_and_the_run_is_that_of_so_many_steps(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(Run, "_stop_asked", lambda run: run.step == 2)
        assert not train(recipe(), data, out=tmp_path / "run").finished
    assert load_checkpoint(tmp_path / "run").progress.budget == 2.7
    summary = train(recipe(), data, out=tmp_path / "run", resume=True)
    assert summary.finished
    saved = load_checkpoint(tmp_path / "run")
    assert (saved.progress.budget, saved.config.train.steps) == (None, summary.steps)
    assert f"a step takes 0.1 s: {summary.steps} steps fit the budget" in capfd.readouterr().err
    (row,) = [
        row
        for row in json.loads((tmp_path / "run" / "recipe.json").read_text())["choices"]
        if row["setting"][6:] == "steps"
    ]
    assert row["value"] == summary.steps
    fixed = train(saved.config, data, out=tmp_path / "fixed")
    assert same_weights(summary.model, fixed.model)
    for how in (True, "with changes"):
        with pytest.raises(
            ConfigError, match=r"began with a budget of 60 s, and its \d+ steps are fixed; --train.steps N"
        ):
            train(replace(recipe(), budget=90.0), data, out=tmp_path / "run", resume=how)
    assert train(recipe(), data, out=tmp_path / "run", resume=True).steps == summary.steps
    assert train(Recipe(), data, out=tmp_path / "run", resume=True).steps == summary.steps
    assert f"the run has done its {summary.steps} steps" in capfd.readouterr().err
    longer = Recipe(given={"train.steps": summary.steps + 1})
    assert train(longer, data, out=tmp_path / "run", resume=True).steps == summary.steps + 1
    assert "the run has done" not in capfd.readouterr().err


@pytest.mark.slow
def test_a_budget_that_is_too_short_leaves_no_run(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pace, "left", 1.0)
    with pytest.raises(BudgetError, match="the budget is too short"):
        train(recipe(), data, out=tmp_path / "run")
    assert not (tmp_path / "run" / "last.ckpt").exists()
