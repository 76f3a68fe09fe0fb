"""Labelling mistakes are found by what a model says. The model here knows the truth."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

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


def likelihoods(dataset: Dataset, answers: dict[bytes, Instances]) -> dict[int | str, float]:
    """How likely each mistake is, by the image's id and, if there is one, the annotation's."""
    found = [mistake.to_dict(dataset) for mistake in likely_mistakes(dataset, Knowing(answers))]
    return {f"{m['image_id']}/{m['annotation_id']}": m["likely"] for m in found}


def test_a_moved_label_is_likelier_than_either_of_its_signs(tmp_path: Path) -> None:
    """An object without a label, or a label without an object, is one sign. A moved label has both."""
    content, pictures = sound()
    path = written(tmp_path, content, pictures)
    truth = read_dataset(path)
    answers = knowing(truth, score=0.7).answers
    part = content["annotations"][2]["segmentation"][0]  # annotation 3 of image 2
    content["annotations"][2] |= {"segmentation": [[v + 16 * (n % 2 == 0) for n, v in enumerate(part)]], "bbox": None}
    del content["annotations"][7]  # annotation 8 of image 4
    path.write_text(json.dumps(content))
    likely = likelihoods(read_dataset(path), answers)
    assert likely["2/3"] > likely["4/None"] > 0.5
    wide = [[v + 16 * (n % 2 == 0) + v * (n % 2) / 3 for n, v in enumerate(part)]]  # moved, and of another shape
    content["annotations"][2] |= {"segmentation": wide}
    path.write_text(json.dumps(content))
    assert likelihoods(read_dataset(path), answers).get("2/3", 0) < likely["2/3"]


def test_a_label_beside_the_place_of_another_label_is_not_meant_for_it(tmp_path: Path) -> None:
    """A small object without a detection of its own touches one that the model finds where its label lies."""
    content, pictures = sound()
    path = written(tmp_path, content, pictures)
    answers = knowing(read_dataset(path)).answers
    part = content["annotations"][2]["segmentation"][0]  # annotation 3 of image 2
    beside = [[v + 16 * (n % 2 == 0) for n, v in enumerate(part)]]
    content["annotations"].append({**content["annotations"][2], "id": 50, "segmentation": beside, "bbox": None})
    path.write_text(json.dumps(content))
    both = read_dataset(path)
    kinds = {m.to_dict(both)["annotation_id"]: m.kind for m in likely_mistakes(both, Knowing(answers))}
    assert kinds == {50: "not found"}


def test_what_people_often_leave_out_is_a_less_likely_mistake(tmp_path: Path) -> None:
    """Objects that the edge of the image cuts, far smaller than the labels, or of little contrast."""
    content, pictures = sound()
    dataset = read_dataset(written(tmp_path, content, pictures))
    sound_pixels = dataset.read(0)

    def likely(x: int, side: int, value: int = 255) -> float:
        pixels = sound_pixels.copy()
        pixels[:32, :32] = 0
        pixels[2 : 2 + side, x : x + side] = value
        Image.fromarray(pixels).save(dataset.records[0].path)
        answers, seen = knowing(dataset).answers, dataset.instances(0)
        box = np.array([[x, 2, x + side, 2 + side]], dtype=np.float32)
        one = replace(seen.select([0]), boxes=box, scores=np.full(1, 0.8, dtype=np.float32), masks=None)
        found = likely_mistakes(dataset, Knowing(answers | {dataset.read(0).tobytes(): one}))
        return max(mistake.likely for mistake in found if mistake.kind == "no label")

    whole = likely(2, 20)
    assert likely(0, 20) < whole
    assert likely(2, 6) < whole
    assert likely(2, 20, value=12) < whole
    assert likely(2, 20, value=240) == pytest.approx(whole)


def test_where_model_and_labels_often_disagree_no_mistake_is_sure(tmp_path: Path) -> None:
    content, pictures = sound()
    path = written(tmp_path, content, pictures)
    answers = knowing(read_dataset(path), score=0.8).answers
    of_first = [annotation for annotation in content["annotations"] if annotation["image_id"] == 1]
    content["annotations"].remove(of_first[0])
    path.write_text(json.dumps(content))
    one = max(likelihoods(read_dataset(path), answers).values())
    for annotation in of_first[1:]:
        content["annotations"].remove(annotation)
    path.write_text(json.dumps(content))
    several = likelihoods(read_dataset(path), answers)
    assert len(of_first) > 1
    assert max(several.values()) < one
