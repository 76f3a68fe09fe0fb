"""Which figure chooses the model, and the losses on validation data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from maskrcnn.config import Config
from maskrcnn.data.formats import read_dataset
from maskrcnn.errors import ConfigError
from maskrcnn.training.evaluate import evaluate
from maskrcnn.training.validation import (
    _names,
    is_better,
    metrics_of,
    require_validation,
    validation_losses,
)
from small_data import random_predictor, small_config, write_small


def plain(items: Any, total: int) -> Any:
    return items


def test_every_name_that_is_accepted_is_a_figure_of_an_evaluation(tmp_path: Path) -> None:
    predictor = random_predictor()
    report = evaluate(predictor, write_small(tmp_path, "val", 2))
    config = replace(predictor.config, train=replace(predictor.config.train, validation_losses=True))
    losses = dict.fromkeys(("loss", "loss_rpn_class", "loss_rpn_box", "loss_class", "loss_box", "loss_mask"), 1.0)
    found = metrics_of(report, losses)
    assert set(_names(config)) == set(found)
    assert found["AP"] == report.score
    assert found["masks.AP.red"] == report.per_class["red"]["masks"]


def test_losses_are_better_when_lower_and_an_undefined_figure_never_is() -> None:
    assert is_better("masks.AP50", 0.5, 0.4)
    assert not is_better("masks.AP50", 0.4, 0.4)
    assert is_better("loss_mask", 0.3, 0.4)
    assert not is_better("loss", 0.5, 0.4)
    assert not is_better("AP", None, 0.4)
    assert is_better("AP", None, None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"best_metric": "mask AP"}, r"best_metric: .* such as AP, masks\.AP, .*found 'mask AP'; losses need"),
        ({"best_metric": "loss"}, "losses need train.validation_losses"),
        ({"best_metric": "keypoints.AP"}, "found 'keypoints.AP'"),
    ],
)
def test_a_metric_that_no_evaluation_gives_is_refused(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    validation = read_dataset(write_small(tmp_path, "val", 1))
    with pytest.raises(ConfigError, match=message):
        require_validation(small_config(**settings), validation)
    require_validation(small_config(best_metric="loss", validation_losses=True), validation)


@pytest.mark.parametrize("settings", [{"patience": 2}, {"validation_losses": True}, {"best_metric": "boxes.AP"}])
def test_what_judges_needs_validation_data(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"train.{next(iter(settings))} judges by validation data: give --val"):
        require_validation(small_config(**settings), None)


def test_losses_of_all_images_do_not_depend_on_their_batches(tmp_path: Path) -> None:
    """One weight for each sampled RoI, not for each batch; without augmentation and without a gradient."""
    dataset = read_dataset(write_small(tmp_path, "val", 3))
    predictor = random_predictor()
    network = predictor.backend.network  # type: ignore[attr-defined]
    assert not network.training

    def losses(size: int) -> dict[str, float]:
        config = every_sample(small_config(batch_size=size, precision="fp32"))
        network.rpn.config, network.roi_heads.box.config = config.model.rpn, config.model.box_head
        return validation_losses(network, dataset, config, plain)

    one, three = losses(1), losses(3)
    assert one == pytest.approx(three, rel=1e-4)
    assert one["loss"] == pytest.approx(sum(value for name, value in one.items() if name != "loss"))


def every_sample(config: Config) -> Config:
    """With so many samples, nothing is drawn at random."""
    rpn, box = replace(config.model.rpn, samples=1 << 16), replace(config.model.box_head, samples=1 << 12)
    return replace(config, model=replace(config.model, rpn=rpn, box_head=box))
