from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from coloured_objects import ColourReader, coloured
from maskrcnn.scale.manifest import Shard
from maskrcnn.scale.parts import PartWriter
from maskrcnn.structures.instances import Instances


@dataclass(frozen=True)
class PointReader(ColourReader):
    """Finds three keypoints on each object."""

    def _read(self, image: np.ndarray) -> Instances:
        found = super()._read(image)
        return replace(found, keypoints=np.arange(9 * len(found), dtype=np.float32).reshape(-1, 3, 3))


def test_keypoints_of_images_with_and_without_objects(tmp_path: Path) -> None:
    ids = np.zeros((8, 10), dtype=np.int64)
    names = [str(tmp_path / name) for name in ("none.png", "two.png")]
    Image.fromarray(coloured(ids)).save(names[0])
    ids[2:4, 2:4], ids[5:7, 6:9] = 1, 2
    Image.fromarray(coloured(ids)).save(names[1])
    shard = Shard(0, tuple(names))
    list(PartWriter(tmp_path, "run", lambda threads: PointReader()).write(shard))
    found = pq.read_table(tmp_path / shard.file_name).column("keypoints").to_pylist()
    assert found == [[], [[float(value) for value in range(first, first + 9)] for first in (0, 9)]]
