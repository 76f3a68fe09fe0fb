"""A detector of other classes fills what it knows by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from maskrcnn.config import Category, Config
from maskrcnn.weights.class_layers import CLASS_LAYERS, known_classes
from maskrcnn.weights.initialise import read_initial_weights
from maskrcnn.weights.model_file import save_model
from small_network import lively_network, network_config

RED, BLUE, GREEN = Category(7, "red"), Category(3, "blue"), Category(4, "green")


def filled(tmp_path: Path, config: Config, trained: Config) -> tuple[str, dict, dict, dict]:
    """The sentence, and the tensors of the detector, of the new network before and after it was filled."""
    old, new = lively_network(trained, seed=1), lively_network(config, seed=2)
    fresh = {name: value.clone() for name, value in new.state_dict().items()}
    save_model(tmp_path / "old.safetensors", old, trained, {})
    said = read_initial_weights(tmp_path / "old.safetensors", config).fill(new, config)
    return said, old.state_dict(), fresh, new.state_dict()


def with_classes(config: Config, *categories: Category) -> Config:
    return replace(config, model=replace(config.model, num_classes=len(categories)), categories=categories)


@pytest.mark.parametrize("loss", ["sigmoid", "softmax"])
@pytest.mark.parametrize("agnostic", [False, True])
def test_rows_go_to_the_classes_of_their_names(tmp_path: Path, loss: str, agnostic: bool) -> None:
    base = network_config(num_classes=2)
    assert base.model.mask_head is not None
    heads = {
        "mask_head": replace(base.model.mask_head, loss=loss),
        "box_head": replace(base.model.box_head, class_agnostic=agnostic),
    }
    base = replace(base, model=replace(base.model, **heads))
    # Another order, another id, and a class in the place of one that is known.
    ours = with_classes(base, GREEN, Category(9, "Red"), BLUE)
    said, old, fresh, new = filled(tmp_path, ours, with_classes(base, BLUE, RED))
    assert said.endswith("old.safetensors, 2 of 3 classes by name, new: green")
    places = {0: None, 1: 1, 2: 0, 3: 2}  # of green, red, blue and the background, in the detector
    for name in filter(CLASS_LAYERS.match, new):
        if agnostic and "deltas" in name:
            assert torch.equal(new[name], old[name]), name
            continue
        groups = 4 if "class_logits" in name or ("mask" in name and loss == "softmax") else 3
        for place, from_place in list(places.items())[:groups]:
            found, mine = (state[name].unflatten(0, (groups, -1))[place] for state in (new, fresh))
            theirs = None if from_place is None else old[name].unflatten(0, (groups - 1, -1))[from_place]
            assert torch.equal(found, mine if theirs is None else theirs), (name, place)


def test_the_same_classes_with_other_ids_keep_every_weight(tmp_path: Path) -> None:
    base = network_config(num_classes=2)
    ours = with_classes(base, Category(1, "red"), Category(2, "blue"))
    said, old, _, new = filled(tmp_path, ours, with_classes(base, RED, BLUE))
    assert said.endswith("2 of 2 classes by name")
    assert all(torch.equal(new[name], old[name]) for name in new)


def test_a_name_that_is_there_twice_is_not_known() -> None:
    assert known_classes((RED, BLUE), (Category(1, "red"), Category(2, "red"), BLUE)) == {2: 1}
    assert known_classes((RED, Category(8, "red")), (RED,)) == {}


def test_the_only_class_of_a_format_without_classes_is_that_of_the_detector() -> None:
    assert known_classes((RED,), (Category("object", "object"),)) == {0: 0}
    assert known_classes((RED,), (BLUE,)) == {}
