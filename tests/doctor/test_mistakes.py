"""Labelling mistakes are found by what a model says. The model here knows the truth."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from maskrcnn.data.formats import read_dataset
from maskrcnn.doctor import examine, likely_mistakes, mistakes_section, report
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.instances import Instances
from planted import sound, written


@dataclass(frozen=True)
class Knowing:
    """A detector that knows the objects of each image by its pixels."""

    answers: dict[bytes, Instances]

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def prepare(self, image: np.ndarray) -> bytes:
        return image.tobytes()

    def detect(self, prepared: Sequence[bytes]) -> list[bytes]:
        return list(prepared)

    def finish(self, found: list[bytes]) -> list[Instances]:
        return [self.answers[key] for key in found]


def knowing(dataset: Dataset, score: float = 0.9) -> Knowing:
    answers = {}
    for number in range(len(dataset)):
        truth = dataset.instances(number)
        answers[dataset.read(number).tobytes()] = replace(truth, scores=np.full(len(truth), score, dtype=np.float32))
    return Knowing(answers)


@pytest.fixture
def labelled(tmp_path: Path) -> tuple[Dataset, Knowing]:
    """A data set with four mistakes, and a model that knows better."""
    content, pictures = sound()
    path = written(tmp_path, content, pictures)
    model = knowing(read_dataset(path))
    content["annotations"][1]["category_id"] = 1  # annotation 2 of image 1
    part = content["annotations"][2]["segmentation"][0]  # annotation 3 of image 2
    content["annotations"][2] |= {"segmentation": [[value + 9 for value in part]], "bbox": None, "area": None}
    extra = {**content["annotations"][4], "id": 50, "bbox": [100, 3, 20, 20], "segmentation": []}
    content["annotations"].append(extra)  # on image 3, where nothing is
    del content["annotations"][7]  # annotation 8 of image 4
    path.write_text(json.dumps(content))
    return read_dataset(path), model


def test_each_mistake_is_found_once_and_nothing_else(labelled: tuple[Dataset, Knowing]) -> None:
    dataset, model = labelled
    found = [mistake.to_dict(dataset) for mistake in likely_mistakes(dataset, model)]
    assert {(m["kind"], m["image_id"], m["annotation_id"], m["class"], m["found"]) for m in found} == {
        ("other class", 1, 2, "leaf", "stone"),
        ("badly placed", 2, 3, "leaf", "leaf"),
        ("not found", 3, 50, "leaf", None),
        ("no label", 4, None, None, "stone"),
    }
    assert [m["likely"] for m in found] == sorted((m["likely"] for m in found), reverse=True)
    assert found[-1]["kind"] == "not found"  # a model that finds nothing proves little
    for mistake in likely_mistakes(dataset, model):
        assert f"image {mistake.to_dict(dataset)['image_id']}" in mistake.sentence(dataset)


def test_a_model_that_is_not_sure_accuses_nobody(labelled: tuple[Dataset, Knowing]) -> None:
    dataset, model = labelled
    doubting = {key: replace(found, scores=found.scores / 4) for key, found in model.answers.items()}
    assert {mistake.kind for mistake in likely_mistakes(dataset, Knowing(doubting))} <= {"not found"}


def test_sound_labels_have_no_mistakes_and_crowds_excuse_detections(tmp_path: Path) -> None:
    content, pictures = sound()
    path = written(tmp_path, content, pictures)
    model = knowing(read_dataset(path))
    content["annotations"][0]["iscrowd"] = 1
    path.write_text(json.dumps(content))
    assert likely_mistakes(read_dataset(path), model) == []


def test_classes_of_one_place_are_taken_together(labelled: tuple[Dataset, Knowing]) -> None:
    dataset, model = labelled
    split = {}
    for key, found in model.answers.items():
        both = replace(found, labels=1 - found.labels, scores=found.scores - np.float32(0.4))
        split[key] = found.select([0, 0, 1, 1]) if len(found) == 2 else found
        split[key] = replace(
            split[key],
            labels=np.stack([found.labels, both.labels], axis=1).ravel(),
            scores=np.tile(np.float32([0.5, 0.4]), len(found)),
        )
    kinds = [mistake.kind for mistake in likely_mistakes(dataset, Knowing(split))]
    assert kinds.count("no label") == 1
    assert kinds.count("badly placed") == 1


def test_the_report_shows_mistakes(labelled: tuple[Dataset, Knowing]) -> None:
    dataset, model = labelled
    section = mistakes_section(dataset, likely_mistakes(dataset, model))
    content = report(examine(dataset), [section])
    assert content.count("data:image/jpeg;base64,") >= 4
    assert "other class: annotation 2 of image 1 (1.png): leaf, where the model finds a stone (0.90)" in content
