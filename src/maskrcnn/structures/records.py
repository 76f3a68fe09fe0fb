"""The images of a data set, stored in flat arrays.

The arrays here and in `dataset.py` are torch tensors. Forked worker processes share their memory pages, because nothing
writes to them, not even a reference count. Spawned processes receive the same memory instead of a copy.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, overload

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Record:
    """One image of a data set.

    Attributes:
        image_id: the id in the annotation file.
        path: the image file.
        height, width: pixels, from the annotation file.
        first, count: position of its first annotation in the arrays of the data set, and their number.
        fields: all other fields of the image in the annotation file, as JSON types.
        fault: what was found instead of the image file, such as "no such file"; empty if the file was there.
    """

    image_id: int | str
    path: Path
    height: int
    width: int
    first: int
    count: int
    fields: Mapping[str, Any] = field(default_factory=dict)
    fault: str = ""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.height, self.width


class Records(Sequence[Record]):
    """A sequence of records in flat arrays. Each access builds a new `Record`.

    Attributes:
        faults: position of an image -> its `Record.fault`, for images that have one.
    """

    def __init__(self, records: Iterable[Record]) -> None:
        given = list(records)
        self._fill(
            [record.image_id for record in given],
            [str(record.path) for record in given],
            [pack_fields(record.fields) for record in given],
            [record.fault for record in given],
            np.array([(record.height, record.width, record.first, record.count) for record in given]),
        )

    @classmethod
    def of(
        cls,
        ids: Sequence[int | str],
        paths: Sequence[str],
        fields: Sequence[bytes],
        faults: Sequence[str],
        numbers: np.ndarray,
    ) -> Self:
        """The records with these attributes. `fields` come from `pack_fields`; `numbers` (N, 4) are heights, widths,
        firsts and counts."""
        records = cls.__new__(cls)
        records._fill(ids, paths, fields, faults, numbers)
        return records

    def _fill(
        self,
        ids: Sequence[int | str],
        paths: Sequence[str],
        fields: Sequence[bytes],
        faults: Sequence[str],
        numbers: np.ndarray,
    ) -> None:
        self._ids = pack_ids(ids)
        self._paths = PackedBytes([path.encode("utf-8", "surrogatepass") for path in paths])
        self._fields = PackedBytes(fields)
        self.faults = {number: fault for number, fault in enumerate(faults) if fault}
        self._numbers = torch.from_numpy(np.asarray(numbers, dtype=np.int64).reshape(-1, 4))

    def tensors(self) -> dict[str, Tensor | np.ndarray]:
        """All but the faults, for `of_tensors`; `ids` is no tensor if some id is no 64-bit integer."""
        return {
            "ids": self._ids,
            "numbers": self._numbers,
            **self._paths.tensors("paths"),
            **self._fields.tensors("fields"),
        }

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Any]) -> Self:
        """The records without faults that gave these `tensors`."""
        records = cls.__new__(cls)
        records._ids, records._numbers, records.faults = tensors["ids"], tensors["numbers"], {}
        records._paths = PackedBytes.of_tensors(tensors, "paths")
        records._fields = PackedBytes.of_tensors(tensors, "fields")
        return records

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> Record: ...

    @overload
    def __getitem__(self, index: slice) -> Records: ...

    def __getitem__(self, index: int | slice) -> Record | Records:
        if isinstance(index, slice):
            return Records(self[i] for i in range(len(self))[index])
        index = range(len(self))[index]  # resolves negative numbers, and raises IndexError beyond the end
        image_id = as_numpy(self._ids)[index]
        path = Path(self._paths[index].tobytes().decode("utf-8", "surrogatepass"))
        height, width, first, count = self._numbers[index].tolist()
        fields = json.loads(self._fields[index].tobytes() or b"{}")
        image_id = image_id if isinstance(image_id, str) else int(image_id)
        return Record(image_id, path, height, width, first, count, fields, self.faults.get(index, ""))

    def numbers(self) -> dict[int | str, int]:
        """The position of each image by its id."""
        return {image_id: number for number, image_id in enumerate(self.ids)}

    def order_by_id(self) -> dict[int | str, int]:
        """The position of each image by its id, in the order of the ids: integers before strings."""
        return dict(sorted(self.numbers().items(), key=lambda item: (isinstance(item[0], str), item[0])))

    @property
    def ids(self) -> list[int | str]:
        """The ids in the annotation file."""
        found: list[int | str] = as_numpy(self._ids).tolist()
        return found

    @property
    def paths(self) -> list[str]:
        """The image files, which takes a tenth of the time of asking every record."""
        return [path.tobytes().decode("utf-8", "surrogatepass") for path in self._paths.between(0, len(self))]

    @property
    def counts(self) -> np.ndarray:
        """(N,) int64 numbers of annotations."""
        return self._numbers[:, 3].numpy()

    @property
    def rows(self) -> np.ndarray:
        """(T,) int64: where the columns of the data set hold the T annotations of these images, image by image."""
        firsts, counts = self._numbers[:, 2].numpy(), self.counts
        return np.repeat(firsts - counts.cumsum() + counts, counts) + np.arange(counts.sum())

    @property
    def sizes_hw(self) -> np.ndarray:
        """(N, 2) int64 heights and widths."""
        return self._numbers[:, :2].numpy()

    @property
    def median_short_side(self) -> int:
        """The median of the short sides of the images, in pixels."""
        return int(np.median(self.sizes_hw.min(axis=1)))


def pack_fields(fields: Mapping[str, Any]) -> bytes:
    """`Record.fields` as the records store them."""
    return json.dumps(fields).encode() if fields else b""


class PackedBytes:
    """Byte strings in one buffer, in any order. An index gives a view of one, (n,) uint8."""

    def __init__(self, strings: Sequence[bytes]) -> None:
        ends = torch.tensor([0, *map(len, strings)], dtype=torch.int64).cumsum(0)
        self._bytes = _as_tensor(bytearray().join(strings))
        self._spans = torch.stack([ends[:-1], ends[1:]], dim=1)

    @classmethod
    def of(cls, content: Tensor, spans: Tensor) -> Self:
        """The strings between the bytes `spans`, (N, 2) int64, of one buffer (n,) uint8, which is not copied."""
        packed = cls.__new__(cls)
        packed._bytes, packed._spans = content, spans
        return packed

    def tensors(self, name: str) -> dict[str, Tensor]:
        """The buffer, and where each string begins and ends in it, under two names for `of_tensors`."""
        return {f"{name} bytes": self._bytes, f"{name} spans": self._spans}

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Tensor], name: str) -> Self:
        """The strings that gave these `tensors`."""
        return cls.of(tensors[f"{name} bytes"], tensors[f"{name} spans"])

    def __len__(self) -> int:
        return len(self._spans)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.between(index, index + 1)[0]

    def between(self, first: int, end: int) -> list[np.ndarray]:
        """Views of the strings `first` to `end - 1`."""
        return self.chosen(np.arange(first, end))

    def chosen(self, numbers: np.ndarray) -> list[np.ndarray]:
        """Views of the strings with these numbers (N,)."""
        content = self._bytes.numpy()
        return [content[start:stop] for start, stop in self._spans.numpy()[numbers].tolist()]


class ByteBuffer:
    """Collects byte strings for `PackedBytes`. Each begins at a multiple of 8 bytes, as float64 needs."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def add(self, string: bytes | bytearray) -> tuple[int, int]:
        """Adds a string; where it begins and ends."""
        start = len(self._bytes)
        self._bytes += string
        end = len(self._bytes)
        self._bytes += bytes(-end % 8)
        return start, end

    def view(self, start: int, end: int) -> np.ndarray:
        """(n,) uint8: a copy of the string between these bytes."""
        return np.frombuffer(self._bytes[start:end], dtype=np.uint8)

    def packed(self, spans: np.ndarray) -> PackedBytes:
        """The strings between (N, 2) int64 bytes. Nothing can be added afterwards."""
        return PackedBytes.of(_as_tensor(self._bytes), torch.from_numpy(spans))


def _as_tensor(content: bytearray) -> Tensor:
    return torch.frombuffer(content, dtype=torch.uint8) if content else torch.zeros(0, dtype=torch.uint8)


def pack_ids(ids: Sequence[int | str]) -> Tensor | np.ndarray:
    """(N,) int64 if all ids are 64-bit integers, else an object array, which processes do not share."""
    if set(map(type, ids)) <= {int}:
        with suppress(OverflowError):
            return torch.from_numpy(np.array(ids, dtype=np.int64))
    objects = np.empty(len(ids), dtype=object)
    objects[:] = ids
    return objects


def as_numpy(packed: Tensor | np.ndarray) -> Any:
    """A column of a data set in numpy, without a copy."""
    return packed.numpy() if isinstance(packed, Tensor) else packed
