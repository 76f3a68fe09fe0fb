"""One part of a run: the objects of some hundred images as one Parquet file, written whole or not at all."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from maskrcnn.errors import ImageError
from maskrcnn.files.atomic import atomic_write, remove_temporaries
from maskrcnn.files.images import decode_image, read_image
from maskrcnn.files.media.windows import Pixels, open_pixels
from maskrcnn.predict import Tiled, stream_images
from maskrcnn.scale.inputs import is_address, read_address
from maskrcnn.scale.manifest import KEY, Shard
from maskrcnn.structures.instances import Instances

# One row an image. Boxes are x1 y1 x2 y2 in pixels of the image, masks are COCO's compressed strings for `size`, and
# keypoints are x, y and score one after the other. Lists are empty, and `size` is missing, where `error` is not.
SCHEMA = pa.schema(
    {
        "path": pa.string(),
        "size": pa.list_(pa.int32()),  # height and width
        "boxes": pa.list_(pa.list_(pa.float32(), 4)),
        "scores": pa.list_(pa.float32()),
        "labels": pa.list_(pa.int64()),
        "names": pa.list_(pa.string()),
        "masks": pa.list_(pa.string()),  # missing for a model without masks
        "keypoints": pa.list_(pa.list_(pa.float32())),  # missing for a model without keypoints
        "error": pa.string(),
    }
)


class Content(NamedTuple):
    """What a part holds."""

    images: int
    objects: int
    errors: int


@dataclass(frozen=True)
class PartWriter:
    """Writes parts, in this process or, pickled, in any other.

    Attributes:
        folder: the folder of the parts.
        fingerprint: that of the manifest.
        open_detector: opens the model. It gets the number of threads, or None for one for each core.
        threads: its argument.
        min_score: objects with a lower score are left out.
        batch_size: images that pass through the network together.
        strict: whether a broken image is refused instead of becoming a row with its error.
    """

    folder: Path
    fingerprint: str
    open_detector: Callable[[int | None], Any]
    threads: int | None = None
    min_score: float = 0.0
    batch_size: int = 1
    strict: bool = False

    @cached_property
    def detector(self) -> Any:
        return self.open_detector(self.threads)

    def write(self, shard: Shard) -> Iterator[None]:
        """Writes a part, and yields after each of its images.

        Raises:
            ImageError: with `strict`, the first image that cannot be read.
            ConfigError: an object store cannot be reached.
            OSError: the part cannot be written.
        """
        path = self.folder / shard.file_name
        remove_temporaries(self.folder, path.stem)
        rows: list[dict[str, Any]] = []
        with closing(
            stream_images(self.detector, shard.paths, self._read, self._row, batch_size=self.batch_size)
        ) as done:
            for image, row in done:
                if isinstance(row, ImageError):
                    if self.strict:
                        raise row
                    row = {"path": image, **dict.fromkeys(SCHEMA.names[2:-2], ()), "error": str(row)}
                rows.append(row)
                yield
        objects, errors = sum(len(row["scores"]) for row in rows), sum("error" in row for row in rows)
        told = json.dumps({"run": self.fingerprint, "objects": objects, "errors": errors})
        content = pa.BufferOutputStream()  # not written directly, because Arrow's errors of a full disk have no code
        pq.write_table(pa.Table.from_pylist(rows, SCHEMA.with_metadata({KEY: told})), content, compression="zstd")
        with atomic_write(path) as temporary:
            temporary.write_bytes(content.getvalue())

    def _read(self, path: str) -> Pixels:
        channels = self.detector.config.image.channel_names
        if is_address(path):
            return decode_image(read_address(path), path, channels=channels)
        return (open_pixels if isinstance(self.detector, Tiled) else read_image)(path, _note, channels)

    def _row(self, path: str, image: Pixels, found: Instances) -> dict[str, Any]:
        good = found.with_score(self.min_score)
        masks, keypoints = good.masks, good.keypoints
        return {
            "path": path,
            "size": good.image_hw,
            "boxes": good.boxes.tolist(),
            "scores": good.scores.tolist(),
            "labels": good.labels.tolist(),
            "names": good.class_names,
            "masks": None if masks is None else [mask.counts.decode("ascii") for mask in masks],
            "keypoints": None if keypoints is None else keypoints.reshape(len(good), 3 * keypoints.shape[1]).tolist(),
        }


def content_of(path: Path, shard: Shard, fingerprint: str) -> Content | str | None:
    """What a part holds, a sentence that says why it must be written again, or None if it is missing."""
    try:
        footer = pq.read_metadata(path)
        told = json.loads((footer.metadata or {})[KEY])
        run, content = told["run"], Content(footer.num_rows, told["objects"], told["errors"])
    except FileNotFoundError:
        return None
    except (pa.ArrowException, OSError, KeyError, ValueError):
        return f"{path} is truncated, or no part of a run: it is written again"
    if run != fingerprint or content.images != len(shard.paths):
        return f"{path} is a part of another run: it is written again"
    return content


def _note(text: str) -> None:
    print(f"note: {text}", file=sys.stderr)
