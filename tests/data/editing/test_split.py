"""Dividing a data set: shares of every class, groups that stay together, the same choice for the same seed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskrcnn.data.annotation import RawAnnotation
from maskrcnn.data.builder import DatasetBuilder
from maskrcnn.data.editing.split import split
from maskrcnn.errors import ConfigError, DataError
from maskrcnn.structures.dataset import Dataset


def dataset_of(
    classes: list[str], names: list[str] | None = None, fields: list[dict[str, Any]] | None = None
) -> Dataset:
    """One image for each text, with an object for each of its letters, which are the classes."""
    builder = DatasetBuilder(Path("set"))
    for letter in sorted(set("".join(classes))):
        builder.add_category(letter, letter)
    for number, letters in enumerate(classes):
        path = Path("images") / (names[number] if names else f"{number}.png")
        builder.add_image(number, path, 20, 20, fields[number] if fields else {})
        for letter in letters:
            builder.add_annotation(RawAnnotation(number, letter, box=[1, 1, 5, 5]))
    return builder.build()


def parts(dataset: Dataset) -> list[str]:
    return [record.fields["split"] for record in dataset.records]


def test_every_part_has_its_share_of_every_class_and_of_empty_images() -> None:
    random = np.random.default_rng(0)
    classes = ["a" * 3, "ab", "b", "", "c", "abc"]
    images = [classes[i] for i in random.choice(6, 400, p=[0.4, 0.2, 0.2, 0.1, 0.05, 0.05])]
    shares = {"train": 0.7, "val": 0.2, "test": 0.1}
    found = parts(split(dataset_of(images), shares))
    for kind in ("a", "b", "c", ""):
        having = Counter(
            part for part, letters in zip(found, images, strict=True) if (kind in letters if kind else not letters)
        )
        for part, share in shares.items():
            assert abs(having[part] - share * having.total()) <= 1.5, (kind, part)
    assert Counter(found) == {part: pytest.approx(400 * share, abs=3) for part, share in shares.items()}


def test_a_seed_repeats_its_choice() -> None:
    dataset = dataset_of(["a"] * 30)
    first, again, other = (parts(split(dataset, {"train": 0.5, "val": 0.5}, seed=seed)) for seed in (1, 1, 2))
    assert first == again != other


def test_versions_of_one_photograph_and_images_of_one_field_stay_together() -> None:
    names = [f"street{i // 3}_jpg.rf.{'0123456789abcdef'[i % 16] * 32}.jpg" for i in range(30)]
    fields = [{"camera": i // 6} for i in range(30)]  # two photographs each
    for group_by, size in ((None, 3), ("camera", 6)):
        found = parts(split(dataset_of(["a"] * 30, names, fields), {"train": 0.6, "val": 0.4}, group_by=group_by))
        groups = [set(found[start : start + size]) for start in range(0, 30, size)]
        assert all(len(group) == 1 for group in groups)
        assert Counter(found) == {"train": 18, "val": 12}
    found = parts(split(dataset_of(["a"] * 30), {"train": 0.5, "val": 0.5}, together=[(29, 4), (4, 17), (17, 0)]))
    assert len({found[number] for number in (0, 4, 17, 29)}) == 1
    # Photographs that share a camera only in one version: all versions of both are one group.
    fields = [{"camera": str(i) if i not in (0, 3) else "both"} for i in range(30)]
    found = parts(split(dataset_of(["a"] * 30, names, fields), {"train": 0.6, "val": 0.4}, group_by="camera"))
    assert len(set(found[:6])) == 1


def test_images_of_a_folder_stay_together() -> None:
    names = [f"film{i // 5}/{i}.png" for i in range(20)]
    found = parts(split(dataset_of(["a"] * 20, names), {"train": 0.75, "val": 0.25}, group_by="folder"))
    assert Counter(tuple(found[start : start + 5]) for start in range(0, 20, 5)) == {
        ("train",) * 5: 3,
        ("val",) * 5: 1,
    }


def test_a_few_large_groups_are_shared_out_among_the_parts() -> None:
    names = [f"film{0 if i < 9 else 1 if i < 17 else 2}/{i}.png" for i in range(24)]
    found = parts(split(dataset_of(["a"] * 24, names), {"train": 0.8, "val": 0.1, "test": 0.1}, group_by="folder"))
    assert found[0] == "train"
    assert sorted({*found[9:17], *found[17:]}) == ["test", "val"]


def test_what_cannot_be_divided_is_refused() -> None:
    dataset = dataset_of(["a"] * 4)
    for shares, found in (
        ({"train": 1.2, "val": -0.2}, "train 1.2, val -0.2"),
        ({"train": 1.0}, "train 1"),
        ({"train": 0.5, "val": 0.4}, "train 0.5, val 0.4"),
        ({"train": 0.5, "val": float("nan")}, "train 0.5, val nan"),
    ):
        with pytest.raises(ConfigError, match=f"expected a share above 0 for each .*, 1 in all, found {found}"):
            split(dataset, shares)
    with pytest.raises(DataError, match="set: image 0: expected the field camera for --group-by, found none"):
        split(dataset, {"train": 0.5, "val": 0.5}, group_by="camera")
    with pytest.raises(DataError, match=r"set: expected 2 or more groups of images .* found 1 in 4 .*--group-by"):
        split(dataset, {"train": 0.5, "val": 0.5}, group_by="folder")
    with pytest.raises(DataError, match="groups of images for train, val, found 1 in 1 images; add some"):
        split(dataset_of(["a"]), {"train": 0.5, "val": 0.5})
