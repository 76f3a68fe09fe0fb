"""Records and annotations in shared arrays: what went in comes out, and worker processes do not copy it."""

from __future__ import annotations

import gc
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils import data as torch_data

from maskrcnn.data.formats import read_dataset
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.records import ByteBuffer, PackedBytes, Record, Records, as_numpy, pack_ids
from small_data import small_coco

RECORDS = [Record(7, Path("a/é.jpg"), 20, 30, 0, 2), Record("street", Path("/b.png"), 5, 6, 2, 0)]
SHARES = Path("/proc/self/smaps_rollup")


def test_records_come_out_as_they_went_in() -> None:
    records = Records(RECORDS)
    assert list(records) == RECORDS
    assert records[-1] == RECORDS[1]
    assert list(records[1:]) == RECORDS[1:]
    assert records.sizes_hw.tolist() == [[20, 30], [5, 6]]
    assert type(Records(RECORDS[:1])[0].image_id) is int
    assert len(Records([])) == 0
    for index in (2, -3):
        with pytest.raises(IndexError):
            records[index]


@pytest.mark.parametrize("ids", [[], [3, -1, 2**62], [1 << 63], [1, "a"]])
def test_ids_come_out_as_they_went_in(ids: list[int | str]) -> None:
    assert as_numpy(pack_ids(ids)).tolist() == ids
    assert isinstance(pack_ids(ids), torch.Tensor) == all(isinstance(i, int) and i < 1 << 63 for i in ids)


@pytest.mark.parametrize("strings", [[], [b""], [b"ab", b"", b"\x00c"]])
def test_strings_come_out_as_they_went_in(strings: list[bytes]) -> None:
    packed = PackedBytes(strings)
    assert [packed[i].tobytes() for i in range(len(strings))] == strings


def many(folder: Path, count: int) -> Path:
    """A data set with so many polygons of 40 points on each of 20 images."""
    content, _ = small_coco(1)
    points = np.stack([30 + 20 * np.cos(np.arange(40) / 7), 30 + 20 * np.sin(np.arange(40) / 7)], axis=1).ravel()
    content["images"] = [dict(content["images"][0], id=i) for i in range(20)]
    content["annotations"] = [
        {"id": i, "image_id": i % 20, "category_id": 3, "bbox": [5, 5, 30, 30], "segmentation": [points.tolist()]}
        for i in range(count)
    ]
    path = folder / f"{count}.json"
    path.write_text(json.dumps(content))
    return path


def test_a_copy_says_the_same(tmp_path: Path) -> None:
    dataset = read_dataset(many(tmp_path, 40))
    again: Dataset = pickle.loads(pickle.dumps(dataset))
    assert list(again.records) == list(dataset.records)
    assert again.annotations(3).rle(1) == dataset.annotations(3).rle(1)
    np.testing.assert_array_equal(again.annotations(3).boxes, dataset.annotations(3).boxes)


class OwnMemory(torch_data.Dataset[int]):
    """Bytes that the process has to itself after it read everything."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __getitem__(self, index: int) -> int:
        for i, record in enumerate(self.dataset.records):
            self.dataset.annotations(i)
            for number in range(record.count):
                self.dataset.segmentations[record.first + number].sum()
        gc.collect()
        lines = SHARES.read_text().splitlines()
        return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))


@pytest.mark.slow
@pytest.mark.skipif(not SHARES.exists(), reason="the system does not tell")
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_share_the_annotations(tmp_path: Path, start: str) -> None:
    """13 MB of annotations more, and no worker has more than a part of it to itself."""
    sizes = []
    for count in (5_000, 25_000):
        dataset = read_dataset(many(tmp_path, count))
        assert dataset.segmentations._bytes.nbytes > 600 * count
        loader = torch_data.DataLoader(
            OwnMemory(dataset), None, sampler=range(2), num_workers=2, multiprocessing_context=start
        )
        sizes.append(max(loader))
    assert sizes[1] - sizes[0] < 6e6, sizes


def test_strings_in_any_order_begin_where_floats_can_be_read() -> None:
    buffer = ByteBuffer()
    spans = np.array([buffer.add(string) for string in (b"abc", b"", b"12345678", b"d")])
    assert spans[:, 0].tolist() == [0, 8, 8, 16]
    packed = buffer.packed(spans[[3, 0, 2]])
    assert [packed[i].tobytes() for i in range(len(packed))] == [b"d", b"abc", b"12345678"]
    assert [one.tobytes() for one in packed.chosen(np.array([2, 0]))] == [b"12345678", b"d"]
